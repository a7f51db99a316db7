"""Metrics as text that Prometheus reads, whatever was counted."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_classic

from gateway.telemetry.catalogue import METRICS
from gateway.telemetry.exposition import CLASSIC, OPENMETRICS, Exposition, negotiate, render
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import Snapshot

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=1.0.0;q=0.5,*/*;q=0.2"
)


def counted() -> Snapshot:
    metrics = Metrics(methods=["GET"], dialects=["sugarcrm"], version="1.2.3")
    metrics.subrequest("sugarcrm", "/a/{id}", "GET", 200, 0.003, None, "0af7" * 8)
    metrics.subrequest("sugarcrm", "/a/{id}", "GET", 200, 90.0)
    metrics.passthrough('/"quoted"\\{x}', "GET", 200, 0.003)
    metrics.read("gateway_upstream_connections", lambda: {"idle": 2})
    return metrics.snapshot()


@pytest.mark.parametrize("content_type", [CLASSIC, OPENMETRICS])
def test_every_metric_of_the_table_is_there_with_its_type_and_help(content_type: str) -> None:
    text = render(counted(), content_type).decode()
    for metric in METRICS:
        name = metric.name.removesuffix("_total") if content_type == OPENMETRICS else metric.name
        assert f"# TYPE {name} {metric.kind}\n" in text
        assert f"# HELP {name} {metric.help}\n" in text


@pytest.mark.parametrize(
    ("content_type", "read"), [(CLASSIC, read_classic), (OPENMETRICS, read_openmetrics)]
)
def test_a_parser_reads_back_what_was_counted(content_type, read) -> None:  # type: ignore[no-untyped-def]
    families = {family.name: family for family in read(render(counted(), content_type).decode())}
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for sample in families["gateway_subrequest_duration_seconds"].samples
    }
    name = "gateway_subrequest_duration_seconds"
    assert samples[f"{name}_bucket", "0.002"] == 0
    assert samples[f"{name}_bucket", "0.005"] == samples[f"{name}_bucket", "60.0"] == 1
    assert samples[f"{name}_bucket", "+Inf"] == samples[f"{name}_count", None] == 2
    assert samples[f"{name}_sum", None] == pytest.approx(90.003)
    (passed,) = families["gateway_passthrough_requests"].samples
    assert passed.labels == {"route": '/"quoted"\\{x}', "method": "GET", "status": "200"}
    (idle,) = families["gateway_upstream_connections"].samples
    assert (idle.labels, idle.value) == ({"state": "idle"}, 2)


def test_exemplars_are_in_openmetrics_only() -> None:
    assert b'# {trace_id="0af70af7' in render(counted(), OPENMETRICS)
    assert b"trace_id" not in render(counted(), CLASSIC)


def test_a_lone_surrogate_in_a_label_does_not_break_the_scrape() -> None:
    snapshot = Snapshot({"gateway_shed_requests_total": {("\ud800",): 1}})
    for content_type in (CLASSIC, OPENMETRICS):
        assert b'gateway_shed_requests_total{reason="?"} 1.0' in render(snapshot, content_type)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", CLASSIC),
        ("*/*", CLASSIC),
        ("text/plain;version=1.0.0", CLASSIC),
        (PROMETHEUS, OPENMETRICS),
        ("application/openmetrics-text; version=x.y", OPENMETRICS),
    ],
)
def test_a_scraper_gets_one_of_two_formats_whatever_it_names(
    accept: str, content_type: str
) -> None:
    assert negotiate(accept) == content_type


async def test_a_scrape_can_be_compressed() -> None:
    exposition = Exposition(_ready)
    scrape = await exposition.scrape(PROMETHEUS, "gzip")
    assert scrape.gzipped
    assert gzip.decompress(scrape.body) == render(await _ready(), OPENMETRICS)
    exposition.close()


async def test_scrapes_at_the_same_time_share_one_rendering() -> None:
    fetched = 0

    async def fetch() -> Snapshot:
        nonlocal fetched
        fetched += 1
        return Snapshot()

    exposition = Exposition(fetch)
    bodies = await asyncio.gather(*(exposition.scrape() for _ in range(50)))
    assert fetched == 1
    assert len({scrape.body for scrape in bodies}) == 1
    await exposition.scrape()
    assert fetched == 2
    exposition.close()


async def test_a_scraper_that_hangs_up_does_not_take_the_others_with_it() -> None:
    gate = asyncio.Event()

    async def fetch() -> Snapshot:
        await gate.wait()
        return Snapshot()

    exposition = Exposition(fetch)
    first = asyncio.create_task(exposition.scrape())
    second = asyncio.create_task(exposition.scrape())
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert (await second).body.startswith(b"# HELP")
    with pytest.raises(asyncio.CancelledError):
        await first
    exposition.close()


async def test_a_scrape_that_fails_is_raised_and_the_next_one_works() -> None:
    fail = True

    async def fetch() -> Snapshot:
        if fail:
            raise OSError
        return Snapshot()

    exposition = Exposition(fetch)
    with pytest.raises(OSError):  # noqa: PT011 (its type is all there is)
        await exposition.scrape()
    fail = False
    assert (await exposition.scrape()).body
    exposition.close()


async def _ready() -> Snapshot:
    return Snapshot({"gateway_draining": {(): 1}})
