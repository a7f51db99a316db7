"""What is told of a call: enough to know who did what, and nothing that lets anybody in."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from gateway.config.settings import Log, PassThrough, Paths, Upstream
from tests.security.siege import (
    AGENDIZE,
    FORMATS,
    GUIDEWIRE,
    SUGARCRM,
    TRUTO,
    Format,
    Siege,
    echo,
    got,
    head,
    posted,
    siege,
    truto,
)
from tests.support.ports import free_port
from tests.support.raw_backend import Peer, RawBackend, answering, ok

LOUD = Log(format="json", level="debug", subrequests="all")


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The log, every line of which must be JSON of its own."""
    out, err = capfd.readouterr()
    return [json.loads(line) for line in (out + err).splitlines()]


# --- secrets -------------------------------------------------------------------------------------

MARK = "S3CRETmark"
SPELLINGS = [MARK, quote(MARK), base64.b64encode(MARK.encode()).decode(), MARK.encode().hex()]

CREDENTIALS = [
    ("Authorization", f"Bearer {MARK}"),
    ("Cookie", f"session={MARK}"),
    ("OAuth-Token", MARK),
    ("token", MARK),
    ("apiKey", MARK),
    ("X-Api-Key", MARK),
    ("Proxy-Authorization", f"Basic {MARK}"),
    ("X-Forwarded-User", MARK),
    ("Idempotency-Key", MARK),
    ("User-Agent", MARK),
    ("Referer", f"http://x/?token={MARK}"),
]
OWN = [field for field in CREDENTIALS if field[0] not in ("Referer", "User-Agent")]


async def careless(gate: Siege) -> None:
    """Calls of every sort, good and bad, with secrets wherever clients put them."""
    body = {"password": MARK, "n": [MARK]}
    for form in FORMATS:
        own = form.own["items"](OWN)
        good = form.entry(f"/x?token={MARK}&{MARK}", "POST", own, body)
        if form is GUIDEWIRE:
            good = form.entry("/x", "POST", own, body) | {"query": f"token={MARK}"}
        await gate.post(f"{form.path}?apiKey={MARK}", form.document([good] * 2), CREDENTIALS)
        for bad in (
            {form.target: f"http://user:{MARK}@evil/{MARK}", "method": "GET"},
            {form.target: "/x", "method": f"GET {MARK}"},
            {form.target: f"/x/../{MARK}", "method": "GET"},
            form.entry("/x", own=form.own["items"]([("X Y", MARK)])),
            form.entry("/x", own=form.own["items"]([("X-A", f"{MARK}\n")])),
            form.entry("/x", own=form.own["items"]([(MARK, MARK), (MARK.lower(), MARK)])),
            form.entry("/x", "POST", body=5),
            form.entry(f"/batch?{MARK}", "POST", body=body),
            form.entry(f"/denied/{MARK}"),
        ):
            await gate.post(form.path, form.document([bad]), CREDENTIALS)
    for document in (
        f'{{"requests":[{{"url":"/x","token":"{MARK}",}}]}}',
        f'{{"requests":"{MARK}"}}',
        f'{{"{MARK}":1}}',
        MARK,
        f'{{"requests":[{{"url":"/x","method":"{MARK}","onFail":"{MARK}","type":"{MARK}"}}]}}',
    ):
        for path in (*(form.path for form in FORMATS), TRUTO):
            await gate.post(path, document.encode(), CREDENTIALS)
    first = AGENDIZE.entry("/x") | {"name": MARK}
    for reference in (
        f"${{result={MARK}:$.{MARK}}}",
        f"${{result={MARK}x:$.x}}",
        f"${{result={MARK}",
    ):
        await gate.bulk(AGENDIZE, [first, AGENDIZE.entry(f"/y/{reference}")], CREDENTIALS)
    for node in (
        {"resource": "a", "method": "get", "id": f"{{{{args.{MARK}}}}}"},
        {"resource": "a", "method": "create", "body": {"x": f"{{{{args.x:{MARK}}}}}"}},
        {"resource": "a", "method": "list", "depends_on": MARK},
        {"resource": "a", "method": "list", "query": f"$error('{MARK}')"},
    ):
        await gate.post(TRUTO, truto(node, args={"x": MARK}), CREDENTIALS)
    await gate.ask(got(f"/passed?token={MARK}&{MARK}", CREDENTIALS))
    await gate.ask(got(f"http://gw/passed?token={MARK}", CREDENTIALS))
    await gate.ask(got(f"/denied/x?token={MARK}", CREDENTIALS))
    for malformed in (
        got("/x", [("Authorization", f"Bearer {MARK}\x01")]),
        got("/x", [(f"Authorization {MARK}", "x")]),
        head(f"GET /{MARK}\x01 HTTP/1.1"),
        head(f"{MARK} / HTTP/1.1"),
        head(f"GET http://user:{MARK}@gw/ HTTP/1.1"),
        head("GET / HTTP/1.1", [("Authorization", MARK * 5000)]),
        posted("/bulk", b"", [("Transfer-Encoding", MARK)]),
        got("/x", [("Expect", MARK)]),
        got("/x", [("Host", MARK)]),
    ):
        await gate.talk(malformed)


@pytest.mark.parametrize("backend_is", ["there", "failing", "garbling", "not there"])
async def test_no_secret_is_in_a_log_line_or_a_metric(
    backend_is: str, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = ok(json.dumps({"error": MARK, "message": MARK}).encode(), f"X-Secret: {MARK}",
                 f"Set-Cookie: {MARK}", status=f"500 {MARK}")  # fmt: skip
    garbled = f"HTTP/1.1 200 {MARK}\r\nContent-Length: {MARK}\r\n\r\n".encode()
    script = {"failing": answering(failing), "garbling": answering(garbled)}.get(backend_is, echo)
    paths = Paths(deny=("/denied/**",))
    async with RawBackend(script) as backend:
        url = backend.url if backend_is != "not there" else f"http://127.0.0.1:{free_port()}"
        passing = PassThrough(enforce_paths=True)
        async with siege(url, log=LOUD, paths=paths, passthrough=passing) as gate:
            await careless(gate)
            page = await gate.metrics()
    said = lines(capfd)
    assert len(said) > 60
    # What is in a path is part of an address, and a path that was passed through is told.
    paths_apart = [line | {"path": line.get("path", "").partition("?")[2]} for line in said]
    text = json.dumps(paths_apart) + page
    assert not [line for line in paths_apart if any(s in str(line) for s in SPELLINGS)]
    assert not [spelling for spelling in SPELLINGS if spelling in text]
    assert not [line for line in said if "traceback" in json.dumps(line).lower()]


async def test_no_error_quotes_what_it_is_about() -> None:
    """Whoever refuses a call does not repeat it: not to the client, nor to a proxy's log."""
    refused: list[str] = []

    class Listening(Siege):
        async def ask(self, data: bytes, to: str | None = None) -> Any:
            answer = await super().ask(data, to)
            if answer.status >= 400:
                refused.append(str(answer.headers) + answer.body.decode("latin-1"))
            return answer

        async def talk(self, *pieces: bytes, **more: Any) -> Any:
            answers = await super().talk(*pieces, **more)
            refused.extend(
                str(a.headers) + a.body.decode("latin-1") for a in answers if a.status >= 400
            )
            return answers

    paths = Paths(deny=("/denied/**",))
    async with RawBackend(echo) as backend, siege(backend, paths=paths) as gate:
        await careless(Listening(gate.gateway))
    assert len(refused) > 40
    assert not [text for text in refused if MARK in text]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_a_result_of_ours_quotes_nothing_either(form: Format) -> None:
    upstream = Upstream(url=f"http://127.0.0.1:{free_port()}")
    async with siege(upstream.url, upstream=upstream) as gate:
        own = form.own["items"](OWN)
        entries = [form.entry("/x", "POST", own, {"password": MARK})]
        answer = await gate.bulk(form, entries, CREDENTIALS)
        assert form.statuses(answer) == [502]
        assert MARK not in str(answer.headers) + answer.body.decode()
        assert MARK not in (await gate.ask(got("/passed", CREDENTIALS))).body.decode()


async def test_an_explained_plan_masks_what_lets_its_holder_in(
    capfd: pytest.CaptureFixture[str],
) -> None:
    shown = [field for field in CREDENTIALS if field[0] not in ("User-Agent", "Idempotency-Key")]
    async with RawBackend(echo) as backend, siege(backend, log=LOUD) as gate:
        for form in FORMATS:
            own = form.own["items"]([field for field in OWN if field[0] != "Idempotency-Key"])
            target = "/x" if form is GUIDEWIRE else f"/x?apiKey={MARK}&access_token={MARK}"
            document = form.document([form.entry(target, "POST", own, {"password": MARK})])
            request = posted(f"/explain/{form.name}", document, shown)
            answer = await gate.ask(request, to=gate.ops)
            assert answer.status == 200
            assert MARK not in answer.body.decode()
            assert b"***" in answer.body
            bad = posted(f"/explain/{form.name}", form.document([form.entry(f"http://{MARK}/")]))
            assert MARK not in (await gate.ask(bad, to=gate.ops)).body.decode()
        document = truto({"resource": "a", "method": "get", "query": {"api_key": MARK}})
        answer = await gate.ask(posted("/explain/truto", document, shown), to=gate.ops)
        assert MARK not in answer.body.decode()
        assert not backend.requests
    assert MARK not in "".join(capfd.readouterr())


# --- injection -----------------------------------------------------------------------------------

FORGED = '"}\n{"level":"info","event":"batch","id":"forged","ok":1}\n'


async def test_nobody_writes_a_line_of_our_log_but_us(capfd: pytest.CaptureFixture[str]) -> None:
    nasty = [
        FORGED,
        "\r\n",
        "\x1b[2J\x1b]0;title\x07",
        "\u2028\u2029\x85",
        "\u202e",
        "\x00",
        "%0a%0d",
        "\\n",
    ]
    async with RawBackend(echo) as backend, siege(backend, log=LOUD) as gate:
        for text in nasty:
            for form in FORMATS:
                await gate.bulk(form, [form.entry(f"/{text}"), form.entry("/x", text)])
                await gate.bulk(form, [form.entry("/x", own=form.own["items"]([(text, text)]))])
                await gate.bulk(form, [form.entry("/x", "POST", body={"x": text})])
            await gate.post("/bulk", {"requests": {text: {"url": 5}}})
            await gate.post(TRUTO, truto({"resource": text, "method": text, "name": text}))
            safe = "".join(char for char in text if "\x20" < char < "\x7f")
            await gate.ask(
                got(f"/{safe}?{safe}", [("User-Agent", text.replace("\n", " ")[:0] or "x")])
            )
            await gate.talk(f"GET /{text} HTTP/1.1\r\nHost: gw\r\n\r\n".encode(), answers=1)
            await gate.ask(got("/x", [("X-Request-Id", safe), ("traceparent", safe)]))
    out, err = capfd.readouterr()
    for line in (out + err).split("\n")[:-1]:
        assert line.isprintable(), ascii(line)
        told = json.loads(line)
        assert told["event"] in ("batch", "refused", "request", "malformed", "serving", "stopped")
        assert told.get("id") != "forged"


async def test_lines_about_malformed_traffic_are_few_and_say_how_many_they_stand_for(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with RawBackend(echo) as backend, siege(backend, log=LOUD) as gate:
        garbage = b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"
        await asyncio.gather(*(gate.talk(garbage) for _ in range(300)))
        for _ in range(300):
            await gate.post("/bulk", b"nonsense")
    told = [line for line in lines(capfd) if line["event"] in ("refused", "malformed")]
    assert {line["event"] for line in told} == {"refused", "malformed"}
    assert len(told) <= 100


# --- who did what --------------------------------------------------------------------------------


async def test_every_write_of_a_batch_can_be_told_from_every_other(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By one line, and by ids that the backend has seen and the client was told."""

    async def some_fail(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.target == "/3":
                peer.reset()
                return
            await peer.send(ok(b"{}", status="500 No" if request.target == "/2" else "200 OK"))

    async with RawBackend(some_fail) as backend:
        paths = Paths(deny=("/4",))
        async with siege(backend, log=LOUD, paths=paths) as gate:
            entries = [SUGARCRM.entry(f"/{i}", "POST" if i else "GET", body={}) for i in range(6)]
            answer = await gate.bulk(SUGARCRM, entries)
            (id,) = answer.all("x-request-id")
        seen = {request.target: request.header("x-request-id") for request in backend.requests}
    assert seen == {f"/{i}": f"{id}.{i}".encode() for i in (0, 1, 2, 3, 5)}
    (line,) = [line for line in lines(capfd) if line["event"] == "batch"]
    assert (line["id"], line["client"], line["dialect"]) == (id, "127.0.0.1", "sugarcrm")
    assert (line["writes_sent"], line["writes_unsent"]) == ("1-3 5", "4")
    assert line["parts"].split(" ")[0].startswith("0:GET:200:")
    assert {part.split(":")[0]: part.split(":")[2] for part in line["parts"].split(" ")} == {
        "0": "200", "1": "200", "2": "500", "3": "000", "4": "000", "5": "200",
    }  # fmt: skip


async def test_ids_are_our_own_unless_a_trusted_peer_gives_them() -> None:
    given = [("X-Request-Id", "theirs"), ("X_Request_Id", "theirs"), ("X-REQUEST-ID", "theirs")]
    async with RawBackend(echo) as backend, siege(backend) as gate:
        ids = set()
        for form in FORMATS:
            own = form.own["items"](given)
            answer = await gate.bulk(form, [form.entry("/x", own=own)] * 3, given[:1])
            ids.update(answer.all("x-request-id"))
        assert len(ids) == 3
        assert "theirs" not in ids
        assert all(b"theirs" not in request.head for request in backend.requests)
        assert len({request.header("x-request-id") for request in backend.requests}) == 9


@pytest.mark.parametrize("id", ["é", "a" * 5000, "a b", '"', "a\tb", "\x80"])
async def test_an_odd_id_of_a_trusted_peer_harms_nobody(id: str) -> None:
    from gateway.config.settings import HeaderLists

    lists = HeaderLists(trusted_proxies=("127.0.0.1/32",))
    async with RawBackend(echo) as backend, siege(backend, headers=lists) as gate:
        for form in FORMATS:
            answer = await gate.bulk(form, [form.entry("/x")], [("X-Request-Id", id)])
            assert form.statuses(answer) == [200]
            (told,) = answer.all("x-request-id")
            assert told.isascii()
            assert len(told) <= 200
        for request in backend.requests:
            assert len(request.all("x-request-id")) == 1
