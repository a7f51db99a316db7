"""Metrics hold what the settings name and nothing that a client thought of."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import Telemetry
from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    TRUTO,
    Siege,
    echo,
    got,
    head,
    posted,
    siege,
    truto,
)
from tests.support.raw_backend import Peer, RawBackend, ok


def series(page: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Every series of a page, which must be well-formed to the last line."""
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def any_status(peer: Peer) -> None:
    """Answers with the status that the path ends in."""
    while True:
        status = int((await peer.request()).target.rpartition("/")[2])
        await peer.send(ok(b"{}", status=f"{status} Said so"))


WORDS = random.Random(6).choices(string.printable.strip(), k=4000)


def hostile(count: int) -> Iterator[str]:
    """Text that no two label values share, with what breaks an exposition in it."""
    marks = ['"', "\\", "\n", "{", "}", ",", "=", "\u2028", "é", "\U0001f600", "%00", "#", "\t"]
    for number in range(count):
        yield f"{number}{marks[number % len(marks)]}{''.join(WORDS[number % 3000 :][:9])}"


async def test_thousands_of_hostile_names_make_no_series() -> None:
    """Paths, methods, names, references, keys and header names, in calls of every sort."""
    names = hostile(4000)
    async with RawBackend(echo) as backend, siege(backend) as gate:
        await every_sort(gate, ["usual"] * 20)
        before = series(await gate.metrics())
        for _ in range(20):
            await every_sort(gate, [next(names) for _ in range(60)])
        after = series(await gate.metrics())
        made = after - before
        assert len(backend.requests) > 2000
    assert len(made) <= 300
    values = {value for _, labels in made for _, value in labels}
    assert all(value.isascii() and value.isprintable() and len(value) < 50 for value in values)
    assert not [value for value in values if any(char in value for char in '"\\,=\n')]


async def every_sort(gate: Siege, names: list[str]) -> None:
    quoted = [name.encode().hex() for name in names]
    for form in FORMATS:
        entries = [form.entry(f"/{name}") for name in names[:20]]
        entries += [form.entry("/x", name) for name in names[20:30]]
        entries += [form.entry(f"/rest/v10/{q}/{q}", own={f"X-{q}": q}) for q in quoted[:10]]
        if form is not GUIDEWIRE:
            await gate.bulk(form, entries)
        await gate.bulk(form, [form.entry(f"/rest/v{i}/M/{q}") for i, q in enumerate(quoted)])
    referring = [
        AGENDIZE.entry(f"/a/{q}") | {"name": n} for n, q in zip(names, quoted, strict=True)
    ]
    await gate.bulk(AGENDIZE, referring)
    await gate.post(
        "/bulk",
        {"requests": {name: {"url": f"/{q}"} for name, q in zip(names, quoted, strict=True)}},
    )
    nodes = [
        {"resource": name, "method": q, "name": name} for name, q in zip(names, quoted, strict=True)
    ]
    await gate.post(TRUTO, truto(*nodes))
    for q in quoted[:10]:
        await gate.ask(got(f"/{q}?{q}={q}", [(f"X-{q}", q), ("User-Agent", q)], "PROPFIND"))
        await gate.talk(head(f"M{q.upper()} /x HTTP/1.1"))
        await gate.ask(posted(f"/{q}/rest/bulk", b"{" + q.encode()))


async def test_every_status_of_a_backend_is_a_label_of_a_few() -> None:
    async with RawBackend(any_status) as backend, siege(backend) as gate:
        before = series(await gate.metrics())
        for start in range(200, 600, 100):
            entries = [GUIDEWIRE.entry(f"/{status}") for status in range(start, start + 100)]
            assert (await gate.bulk(GUIDEWIRE, entries)).status == 200
        for status in (200, 299, 418, 451, 499, 599):
            assert (await gate.ask(got(f"/{status}"))).status == status
        made = series(await gate.metrics()) - before
    statuses = {dict(labels).get("status", "200") for _, labels in made}
    assert statuses >= {"200", "404", "503", "2xx", "4xx", "5xx"}
    assert all(
        status in ("2xx", "3xx", "4xx", "5xx") or 200 <= int(status) < 600 for status in statuses
    )
    assert len(made) < 150


async def test_a_million_distinct_labels_make_no_series_and_no_memory() -> None:
    """Beneath the sockets, since they would take minutes: what is told of calls to the record."""
    async with RawBackend(echo) as backend, siege(backend) as gate:
        await gate.alive()
        telemetry: Telemetry = gate.gateway.worker.app.telemetry  # type: ignore[attr-defined]
        metrics, label = telemetry.metrics, telemetry._label
        before = series(await gate.metrics())
        for number in range(1_000_000):
            if number % 10:
                route = label(f"/rest/v10/Module{number}/{number}")
            else:
                route = label(f"/any/{number}")
            metrics.subrequest("sugarcrm", route, f"M{number}", 200 + number % 400, 0.001)
            if not number % 100:
                metrics.passthrough(route, f"M{number}", 200 + number % 400, 0.001)
        page = await gate.metrics()
        made = series(page) - before
    assert len(made) < 300
    assert len(page) < 200_000


async def test_a_scrape_is_a_page_whatever_was_said_before() -> None:
    """One label that cannot be encoded would make every scrape after it a 500."""
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for bad in (b"\xff\xfe", b"\xed\xa0\x80", "é".encode("latin-1")):
            await gate.ask(b"GET /x HTTP/1.1\r\nHost: gw\r\nX-Latin: " + bad + b"\r\n\r\n")
            await gate.talk(b"GET /" + bad + b" HTTP/1.1\r\nHost: gw\r\n\r\n")
            await gate.talk(bad + b" / HTTP/1.1\r\nHost: gw\r\n\r\n")
        for accept in ("", "application/openmetrics-text; version=1.0.0", "\xff", "*/*, " * 500):
            for encoding in ("", "gzip", "br, \xff", "identity;q=0"):
                fields = [("Accept", accept), ("Accept-Encoding", encoding)]
                assert (await gate.ask(got("/metrics", fields), to=gate.ops)).status == 200
        assert series(await gate.metrics())
