"""A real Prometheus scrapes the gateway under load, and counts what the ledgers say.

The backend keeps one ledger and the clients another; Prometheus is asked in PromQL.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from gateway.config.settings import Listener, Log, Settings, Upstream
from gateway.server import serving
from tests.deploy.outside import DEPLOY
from tests.support.outside import debian, running
from tests.support.ports import free_port

LOOPBACK = Listener(address="127.0.0.1:0")
STATUSES = (200, 200, 200, 201, 404, 503)
CLIENTS, CALLS, SIZE = 4, 10, 12


class Backend:
    """Answers with the status that the path asks for, and keeps the ledger."""

    def __init__(self) -> None:
        self.ledger: Counter[tuple[str, str]] = Counter()
        self.app = web.Application()
        self.app.router.add_post("/v1/traces", self._collect)
        self.app.router.add_route("*", "/rest/{version}/{module}/{status}", self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        await asyncio.sleep(0.005)
        status = request.match_info["status"]
        self.ledger[request.method, status] += 1
        return web.json_response({"status": status}, status=int(status))

    async def _collect(self, request: web.Request) -> web.Response:
        """Spans, which are another test's."""
        await request.read()
        return web.Response(content_type="application/x-protobuf")


class Clients:
    """What was sent and what came of it, by the clients' own account."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.session = session
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.passed: Counter[str] = Counter()
        self.traces: set[str] = set()

    async def work(self, first: int) -> None:
        for number in range(CALLS):
            entries = [self._entry(first + number + place) for place in range(SIZE)]
            await self._sugarcrm(entries)
            await self._guidewire(entries)
            status = STATUSES[number % len(STATUSES)]
            async with self.session.get(f"{self.base}/rest/v10/Leads/{status}") as answer:
                self.passed[str(answer.status)] += 1
        await self._refused()

    def _entry(self, number: int) -> tuple[str, str]:
        status = STATUSES[number % len(STATUSES)]
        return ("POST" if status == 201 else "GET", f"/v10/Leads/{status}")

    async def _sugarcrm(self, entries: list[tuple[str, str]]) -> None:
        requests = [{"method": method, "url": url} for method, url in entries]
        answer = await self._post("/rest/v10/bulk", {"requests": requests})
        self._count("sugarcrm", [result["status"] for result in answer])

    async def _guidewire(self, entries: list[tuple[str, str]]) -> None:
        requests = [{"method": method.lower(), "path": f"/rest{url}"} for method, url in entries]
        answer = await self._post("/batch", {"requests": requests})
        self._count("guidewire", [result["status"] for result in answer["responses"]])

    def _count(self, dialect: str, statuses: list[int]) -> None:
        assert len(statuses) == SIZE
        failed = sum(status >= 400 for status in statuses)
        self.outcomes[dialect, "partial" if failed else "ok"] += 1

    async def _post(self, path: str, body: Any) -> Any:
        trace = secrets.token_hex(16)
        self.traces.add(trace)
        headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
        async with self.session.post(self.base + path, json=body, headers=headers) as answer:
            assert answer.status == 200
            return await answer.json()

    async def _refused(self) -> None:
        url = f"{self.base}/rest/v10/bulk"
        headers = {"Content-Type": "application/json"}
        async with self.session.post(url, data=b'{"requests": [', headers=headers) as answer:
            assert answer.status == 422
        self.outcomes["sugarcrm", "refused"] += 1


class Prometheus:
    """Debian's, asked over its API."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.session = session

    async def get(self, path: str, **parameters: Any) -> Any:
        async with self.session.get(self.base + path, params=parameters) as answer:
            document = await answer.json()
        assert document["status"] == "success", document
        return document["data"]

    async def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """The values, by the values of their labels in the order of the labels' names."""
        found = (await self.get("/api/v1/query", query=expression))["result"]
        return {
            tuple(value for _, value in sorted(series["metric"].items())): float(series["value"][1])
            for series in found
        }

    async def until(self, expression: str, wanted: dict[tuple[str, ...], float]) -> None:
        """A scrape ago is a scrape late; counts that do not come in ten seconds are wrong."""
        found: dict[tuple[str, ...], float] = {}
        try:
            async with asyncio.timeout(10):
                while found != wanted:
                    await asyncio.sleep(0.1)
                    found = await self.query(expression)
        except TimeoutError:
            assert found == wanted


@asynccontextmanager
async def prometheus(
    target: str, folder: Path, session: aiohttp.ClientSession
) -> AsyncIterator[Prometheus]:
    program, port = debian("prometheus", "prometheus"), free_port()
    config = folder / "prometheus.yaml"
    config.write_text(f"""
        global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
        rule_files: [{DEPLOY}/prometheus/recording.yaml, {DEPLOY}/prometheus/alerts.yaml]
        scrape_configs:
          - job_name: bulk-gateway
            static_configs: [{{targets: ["{target}"]}}]
    """)
    command = (
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    )
    async with running(*command, port=port, log=folder / "prometheus.log"):
        yield Prometheus(f"http://127.0.0.1:{port}", session)


async def test_prometheus_counts_what_the_ledgers_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Backend()
    began = time.time()
    async with TestServer(backend.app) as server, aiohttp.ClientSession() as session:
        url = str(server.make_url("")).rstrip("/")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        settings = Settings(
            listen=(LOOPBACK,), ops=LOOPBACK, upstream=Upstream(url=url), log=Log(level="error")
        )
        async with (
            serving(settings) as gateway,
            prometheus(gateway.ops_address, tmp_path, session) as asked,
        ):
            await asked.until("sum(up)", {(): 1})
            clients = Clients(f"http://{gateway.address}", session)
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(clients.work(number))

            await counts_agree(asked, clients, backend)
            await rules_work(asked)
            await exemplars_lead_to_traces(asked, clients, began)
            await both_formats_are_clean(f"http://{gateway.ops_address}/metrics", session)


async def counts_agree(asked: Prometheus, clients: Clients, backend: Backend) -> None:
    whole = CLIENTS * CALLS * 2 * SIZE
    passed = {("GET", status): number for status, number in clients.passed.items()}
    subrequests = backend.ledger - Counter(passed)
    assert subrequests.total() == whole
    ended = "sum by (dialect, outcome) (gateway_batches_total) > 0"
    await asked.until(ended, dict(clients.outcomes))
    await asked.until("sum by (method, status) (gateway_subrequests_total)", dict(subrequests))
    await asked.until("sum by (method, status) (gateway_passthrough_requests_total)", passed)
    # By every other way to count them.
    await asked.until("sum(gateway_subrequest_duration_seconds_count)", {(): whole})
    await asked.until('sum(gateway_subrequest_duration_seconds_bucket{le="+Inf"})', {(): whole})
    await asked.until("sum(gateway_batch_subrequests_sum)", {(): whole})
    await asked.until("sum(gateway_batch_duration_seconds_count)", {(): CLIENTS * CALLS * 2})
    refused = {("bad_json",): CLIENTS}
    await asked.until("sum by (reason) (gateway_refused_batches_total)", refused)
    await asked.until("sum(gateway_batches_in_flight + gateway_subrequests_in_flight)", {(): 0})


async def rules_work(asked: Prometheus) -> None:
    groups = (await asked.get("/api/v1/rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule for rule in rules if rule.get("lastError")] == []
    dialects = {("guidewire",): 1.0, ("sugarcrm",): 1.0}
    for expression in (
        "sum by (dialect) (job_dialect:gateway_parallel_speedup:ratio_rate5m > bool 1) == 1",
        "sum by (dialect) (job_dialect:gateway_round_trips_saved:rate5m > bool 0) == 1",
    ):
        await asked.until(expression, dialects)
    share = "round(job:gateway_subrequest_errors:ratio_rate5m, 0.1)"
    await asked.until(share, {("bulk-gateway",): 0.2})


async def exemplars_lead_to_traces(asked: Prometheus, clients: Clients, began: float) -> None:
    for name in ("gateway_subrequest_duration_seconds", "gateway_batch_duration_seconds"):
        data = await asked.get(
            "/api/v1/query_exemplars", query=f"{name}_bucket", start=began, end=time.time()
        )
        traces = {seen["labels"]["trace_id"] for series in data for seen in series["exemplars"]}
        assert traces
        assert traces <= clients.traces


async def both_formats_are_clean(url: str, session: aiohttp.ClientSession) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with session.get(url, headers=accept) as answer:
        families = list(openmetrics(await answer.text()))
    assert any(s.exemplar for family in families for s in family.samples)
    async with session.get(url) as answer:
        text = await answer.read()
    check = await asyncio.create_subprocess_exec(
        debian("promtool", "prometheus"),
        *("check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert (await check.communicate(text), check.returncode) == ((b"", None), 0)
