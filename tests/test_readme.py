"""README is followed: its calls go through its gateway, a process, to PyPI's httpbin."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families as families

from tests.passthrough.backends import httpbin
from tests.support.consoles import elsewhere, sessions, shell
from tests.support.outside import debian, running

README = Path(__file__).parent.parent / "README.md"


async def test_the_calls_in_readme_are_answered_and_metrics_count_what_was_sent(
    tmp_path: Path,
) -> None:
    debian("curl")
    blocks = [
        block
        for heading, block in sessions(README.read_text())
        if heading == "In front of your backend"
    ]
    (_, run), *calls, (metrics,) = blocks
    moved = elsewhere()
    gateway, operators = moved("http://127.0.0.1:8080"), moved("http://127.0.0.1:8081")
    async with httpbin(tmp_path) as backend, aiohttp.ClientSession() as session:
        arguments = moved(run.text.replace("127.0.0.1:8000", backend)).split()[1:-1]
        command = (sys.executable, "-m", "gateway", *arguments)
        port = int(gateway.rpartition(":")[2])
        async with running(*command, port=port, log=tmp_path / "gateway.log") as process:
            answers = [json.loads(await shell(moved(call.text))) for (call,) in calls]
            async with session.get(f"{gateway}/status/418") as answer:
                assert answer.status == 418
            assert await shell(moved(metrics.text)) == metrics.printed
            async with session.get(f"{operators}/metrics") as answer:
                counted = counts(await answer.text())
            process.kill()
    look_at(*answers)
    assert counted == {
        ("gateway_batches_total", "sugarcrm", "ok"): 1,
        ("gateway_batches_total", "guidewire", "ok"): 1,
        ("gateway_batches_total", "agendize", "ok"): 1,
        ("gateway_batches_total", "truto", "failed"): 1,
        ("gateway_batch_subrequests_sum", "sugarcrm"): 2,
        ("gateway_batch_subrequests_sum", "guidewire"): 2,
        ("gateway_batch_subrequests_sum", "agendize"): 2,
        ("gateway_batch_subrequests_sum", "truto"): 1,  # a loop is one entry
        ("gateway_subrequests_total", "sugarcrm", "GET", "_other", "200"): 1,
        ("gateway_subrequests_total", "sugarcrm", "POST", "_other", "200"): 1,
        ("gateway_subrequests_total", "guidewire", "GET", "_other", "200"): 1,
        ("gateway_subrequests_total", "guidewire", "POST", "_other", "200"): 1,
        ("gateway_subrequests_total", "agendize", "GET", "_other", "200"): 2,
        ("gateway_subrequests_total", "truto", "GET", "_other", "404"): 2,
        ("gateway_passthrough_requests_total", "GET", "_other", "418"): 1,
    }


def look_at(sugarcrm: Any, guidewire: Any, agendize: Any, truto: Any) -> None:
    """httpbin says what it was asked."""
    got, posted = (result["contents"] for result in sugarcrm)
    assert (got["args"], posted["json"]) == ({"a": "1"}, {"name": "test123"})
    got, posted = (result["body"] for result in guidewire["responses"])
    assert got["args"] == {"a": "1"}
    assert posted["json"] == {"data": {"attributes": {"body": "n1"}}}
    first, second = (result["response"] for result in agendize["responses"])
    assert second["url"].endswith(f"/anything/{first['uuid']}")
    assert [error["statusCode"] for error in truto["errors"]["users"]] == [404, 404]


def counts(text: str) -> dict[tuple[str, ...], float]:
    """What counts batches, subrequests or passed requests, and is not 0."""
    wanted = re.compile(
        "gateway_(batches|subrequests|passthrough_requests)_total|.*_subrequests_sum"
    )
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(text)
        for sample in family.samples
        if sample.value and wanted.fullmatch(sample.name)
    }
