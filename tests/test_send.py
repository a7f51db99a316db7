"""Sending a bulk call: what is read out of the answer while it comes, what is shown, what is left
as exit status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import main
from gateway.cli.results import Results, said
from gateway.cli.scanning import NotJson, Scanner
from gateway.cli.send import Progress
from gateway.config import Settings
from gateway.config.settings import Listener, Upstream
from gateway.demo.backend import Crm
from gateway.demo.samples import SAMPLES
from gateway.server import serving
from tests.support.ports import free_port

# --- finding values in a text that is still coming -----------------------------------------------

trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    tree=st.lists(trees) | st.dictionaries(st.text(), trees),
    size=st.integers(1, 20),
    indent=st.none() | st.integers(0, 2),
    ascii=st.booleans(),
)
def test_values_are_found_however_the_text_is_cut(
    tree: Any, size: int, indent: int | None, ascii: bool
) -> None:
    text = json.dumps(tree, indent=indent, ensure_ascii=ascii).encode()
    scanner = Scanner(lambda path: len(path) in (1, 2), lambda path: len(path) < 2)
    events = [e for n in range(0, len(text), size) for e in scanner.feed(text[n : n + size])]
    found = {path: json.loads(value) for path, value in events if value is not None}
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    expected = {(key,): value for key, value in items}
    for key, value in items:
        if isinstance(value, dict | list):
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            expected |= {(key, name): item for name, item in inner}
    assert found == expected
    assert [path for path, value in events if value is None] != [] or not items


def test_bytes_that_nobody_wants_are_not_kept() -> None:
    scanner = Scanner(lambda path: path == (1,), lambda path: path == ())
    kept = 0
    for piece in (b'["', *[b"x" * 1000] * 100, b'",', b"[" * 1000, b"]" * 1000, b",7]"):
        list(scanner.feed(piece))
        kept = max(kept, len(scanner._text))
    assert kept <= 1000


@pytest.mark.parametrize("text", [b"[:]", b"{1:2}", b'{"a" 1}', b"]", b'{"\\x":1}'])
def test_what_is_no_json_is_noticed_where_it_is_looked_into(text: bytes) -> None:
    scanner = Scanner(lambda _: True, lambda _: True)
    with pytest.raises(NotJson):
        list(scanner.feed(text + b" "))


# --- results -------------------------------------------------------------------------------------


def read(request: Any, answer: Any, size: int = 10**6) -> Results:
    """The results of an answer that comes in pieces, one a second."""
    results = Results(json.dumps(request).encode())
    text = json.dumps(answer).encode()
    for number, start in enumerate(range(0, len(text), size), 1):
        results.feed(text[start : start + size], float(number))
    results.finish()
    return results


def told(results: Results) -> list[tuple[str, int]]:
    return [(result.call, result.status) for result in results]


def test_a_list_of_entries() -> None:
    request = {"requests": [{"url": "v10/a"}, {"url": "v10/b", "method": "post"}]}
    error = {"error": "not_found", "error_message": "no such thing"}
    answer = [{"contents": {}, "status": 200}, {"contents": error, "status": 404}]
    results = read(request, answer)
    assert told(results) == [("GET v10/a", 200), ("POST v10/b", 404)]
    good, bad = results
    assert (good.failed, bad.failed) == (False, True)
    assert bad.errors == ["no such thing"]


def test_a_map_of_entries_in_any_order() -> None:
    request = {"requests": {"responses": {"url": "a"}, "b": {"url": "b"}}}
    answer = {"b": {"status": 500, "contents": ""}, "responses": {"status": 200, "contents": ""}}
    assert told(read(request, answer)) == [("GET a", 200), ("GET b", 500)]


def test_entries_of_a_nested_bulk_call_are_results_of_their_own() -> None:
    inner = {"requests": [{"url": "x"}, {"url": "y"}]}
    for data in (inner, json.dumps(inner)):
        request = {"requests": [{"url": "v10/bulk", "method": "POST", "data": data}, {"url": "z"}]}
        parts = [{"status": 200}, {"status": 403}]
        answer = [{"status": 200, "contents": parts}, {"status": 200}]
        assert told(read(request, answer)) == [
            ("POST v10/bulk", 200),
            ("GET x", 200),
            ("GET y", 403),
            ("GET z", 200),
        ]


def test_nested_responses_come_one_by_one_and_show_what_their_paths_became() -> None:
    child = {"path": "/a/${result=a:$.id}", "method": "GET"}
    request = {"requests": [{"path": "/a", "method": "POST", "requests": [child]}, {"path": "/b"}]}
    entry = {"path": "/a/7", "method": "GET", "status": 200, "response": {"long": "x" * 40}}
    answer = {
        "responses": [
            {"path": "/a", "method": "POST", "status": 200, "responses": [entry]},
            {"status": 200, "path": "/b", "method": "GET"},
        ]
    }
    results = read(request, answer, size=70)
    assert told(results) == [("POST /a", 200), ("GET /a/7", 200), ("GET /b", 200)]
    arrived = [result.arrived for result in results]
    assert arrived == sorted(arrived, key=lambda at: at or 0)
    parent, inner, _ = results
    assert parent.arrived is not None
    assert inner.arrived is not None
    assert parent.arrived < inner.arrived, "a parent has come when its children begin"


def test_records_are_counted_under_their_key_and_errors_too() -> None:
    request = {
        "resources": [
            {"resource": "crm/contacts", "method": "list"},
            {"resource": "crm/contacts", "method": "get"},
            {"resource": "users", "method": "get"},
            {"name": "totals", "type": "transform"},
        ]
    }
    errors = [{"statusCode": 404, "error": "Not Found", "message": "no such user"}]
    answer = {
        "result": {"crm/contacts": [{"id": 1}, 2, "x"], "totals": []},
        "errors": {"crm/contacts": [], "users": errors},
    }
    contacts, users, totals = read(request, answer)
    assert (contacts.call, contacts.records, contacts.failed) == ("list crm/contacts", 3, False)
    assert (users.call, users.records, users.errors) == ("get users", 0, ["no such user"])
    assert users.failed
    assert (totals.call, totals.records, totals.failed) == ("transform totals", 0, False)


def test_what_did_not_come_has_failed() -> None:
    request = {"requests": [{"url": "a"}, {"url": "b"}]}
    results = Results(json.dumps(request).encode())
    results.feed(b'[{"status":200},{"stat', 1.0)
    assert [(result.came, result.failed) for result in results] == [(True, False), (False, True)]
    assert (results.here, len(results)) == (1, 2)


@pytest.mark.parametrize(
    "request_body", [b"", b"[", b"7", b'{"requests":7}', b'{"requests":["x"]}']
)
def test_a_body_that_is_no_bulk_call_has_no_results(request_body: bytes) -> None:
    results = Results(request_body)
    results.feed(b'[{"status":200}]', 1.0)
    assert len(results) == 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"body": {"userMessage": "no\n such"}}, "no such"),
        ({"response": {"error": {"code": 404, "message": "no"}}}, "no"),
        ("plain", "plain"),
        ({"error": 7}, ""),
        ([], ""),
    ],
)
def test_an_error_says_what_it_says_wherever_that_stands(error: Any, text: str) -> None:
    assert said(error) == text


# --- the command ---------------------------------------------------------------------------------

Output = tuple[int, str, str]
Send = Callable[..., Awaitable[Output]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TWO = {"requests": [{"url": "a"}, {"url": "b"}]}


@pytest.fixture
def send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Send:
    """Runs the command in a thread, since the server that it talks to is in this loop."""

    async def run(url: str, body: Any = TWO, *more: str) -> Output:
        path = tmp_path / "call.json"
        path.write_text(json.dumps(body))
        status = await asyncio.to_thread(main, ["send", str(path), "--to", url, *more])
        return status, *capsys.readouterr()

    return run


@asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/bulk", handle)
    async with TestServer(app) as found:
        yield str(found.make_url("/bulk"))


async def entries(_: web.Request) -> web.Response:
    return web.json_response([{"status": 200}, {"status": 404, "contents": {"message": "none"}}])


async def test_a_table_tells_of_every_result_and_the_status_that_one_failed(send: Send) -> None:
    async with server(entries) as url:
        status, out, err = await send(url)
    head, first, second, _, failure, _, summary = out.splitlines()
    assert (status, err) == (1, "")
    assert head.split()[:4] == ["#", "call", "result", "arrived"]
    assert first.split()[:4] == ["0", "GET", "a", "200"]
    assert second.split()[:4] == ["1", "GET", "b", "404"]
    assert "█" in first
    assert failure.split() == ["1", "404", "none"]
    assert summary.startswith("  2 results, 1 of them failed, in ")


async def test_the_status_is_0_if_all_went_well(send: Send) -> None:
    async def good(request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers.getall("X-Token") == ["1", "2"]
        assert await request.json() == TWO
        return web.json_response([{"status": 200}, {"status": 201}])

    async with server(good) as url:
        status, out, err = await send(url, TWO, "-H", "X-Token: 1", "--header", "X-Token:2")
    assert (status, err) == (0, "")
    assert "failed" not in out


async def test_as_json_it_is_for_programs(send: Send) -> None:
    async with server(entries) as url:
        status, out, _ = await send(url, TWO, "--json")
    document = json.loads(out)
    assert status == 1
    assert (document["status"], document["failed"], document["cut"]) == (200, 1, None)
    assert document["seconds"] >= document["results"][0]["arrived"]
    assert [(r["call"], r["status"], r["failed"]) for r in document["results"]] == [
        ("GET a", 200, False),
        ("GET b", 404, True),
    ]


async def test_a_call_that_is_refused_as_a_whole_is_one_line(send: Send) -> None:
    async def refused(_: web.Request) -> web.Response:
        return web.json_response({"error": "x", "error_message": "requests: missing"}, status=422)

    async with server(refused) as url:
        assert await send(url) == (
            1,
            "",
            "bulk-gateway: refused as a whole: 422 Unprocessable Content: requests: missing\n",
        )


async def test_what_a_server_says_cannot_steer_the_terminal(send: Send) -> None:
    async def steering(_: web.Request) -> web.Response:
        said = {"message": "gone\x1b[2J"}
        return web.json_response([{"status": 500, "contents": said}, {"status": 200}])

    async with server(steering) as url:
        _, out, _ = await send(url)
    assert "\x1b" not in out
    assert "gone\N{REPLACEMENT CHARACTER}[2J" in out


async def test_an_answer_that_is_cut_shows_what_came(send: Send) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b'[{"status":200},')
        assert request.transport is not None
        request.transport.close()
        return answer

    async with server(cut) as url:
        status, out, err = await send(url)
    assert status == 1
    assert err == "bulk-gateway: the connection was cut before the answer had ended\n"
    assert [line.split()[3] for line in out.splitlines()[1:3]] == ["200", "none"]
    assert "no result came" in out


async def test_an_answer_that_is_none_to_a_bulk_call_is_one_line_more(send: Send) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="[7,8]")

    async with server(page) as url:
        status, _, err = await send(url)
    assert (status, err) == (1, "bulk-gateway: the answer is none to a bulk call\n")


async def test_a_server_that_is_not_there_is_one_line(send: Send) -> None:
    port = free_port()
    assert await send(f"http://127.0.0.1:{port}/bulk") == (
        1,
        "",
        f"bulk-gateway: no answer: 127.0.0.1:{port}: Connection refused\n",
    )


@pytest.mark.parametrize(
    ("url", "more", "message"),
    [
        ("ftp://x/bulk", (), "--to: expected http://host:port/path"),
        ("http:///bulk", (), "--to: expected http://host:port/path"),
        ("http://x/", ("-H", "nonsense"), "Invalid value for '-H' / '--header': expected `Name"),
    ],
)
async def test_wrong_usage_is_status_2(
    url: str, more: tuple[str, ...], message: str, send: Send
) -> None:
    status, out, err = await send(url, TWO, *more)
    assert (status, out) == (2, "")
    assert err.startswith(f"bulk-gateway: {message}")
    assert err.count("\n") == 1


def test_progress_counts_on_a_terminal_and_leaves_nothing_behind() -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    terminal, file = Terminal(), StringIO()
    for stream in (terminal, file):
        progress = Progress(stream)
        progress.show(2, 5, 0.0741)
        progress.end()
    assert terminal.getvalue() == "\r\x1b[K  2 of 5 results, 74 ms\r\x1b[K"
    assert file.getvalue() == ""


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.dialect)
async def test_every_dialects_answer_is_read_through_the_gateway(
    sample: Any, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    loopback = Listener(address="127.0.0.1:0")
    async with TestServer(Crm(work=0.0).app) as backend:
        upstream = Upstream(url=f"http://127.0.0.1:{backend.port}")
        settings = Settings(listen=(loopback,), ops=loopback, upstream=upstream)
        async with serving(settings) as gateway:
            url = f"http://{gateway.address}{sample.path}"
            fields = [
                part for name, value in sample.headers.items() for part in ("-H", f"{name}:{value}")
            ]
            status, out, _ = await send(url, sample.body, *fields, "--json")
    document = json.loads(out)
    assert all(result["arrived"] is not None for result in document["results"])
    assert document["failed"] == sum(result["failed"] for result in document["results"])
    assert status == (1 if document["failed"] else 0)
    assert document["failed"] == {"sugarcrm": 1, "guidewire": 2}.get(sample.dialect, 0)
