"""The answer on the client's connection, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from gateway.answer import ClientAnswer, problem, settle, wire
from gateway.batch import Failure
from tests.front import get, house, raw
from tests.support.nginx import nginx


async def exchange(request: bytes, handle: object) -> bytes:
    """What a client reads until the server closes."""
    async with house(handle) as gateway, raw(gateway.address) as client:  # type: ignore[arg-type]
        client.send(request)
        return await client.rest()


async def test_a_whole_answer_has_the_fields_it_was_given_and_its_length() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        fields = (
            (b"X-Odd-CASE", b"caf\xe9 \xff"),
            (b"Set-Cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        )
        return ClientAnswer(request, 299, fields, reason=b"Quite \xe9").finish(b"hello")

    assert await exchange(get("/", "Connection: close"), handle) == (
        b"HTTP/1.1 299 Quite \xe9\r\nX-Odd-CASE: caf\xe9 \xff\r\nSet-Cookie: a=1\r\n"
        b"set-cookie: b=2\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    )


async def test_an_empty_reason_phrase_stays_empty() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        return ClientAnswer(request, 200, reason=b"").finish()

    answer = await exchange(get("/", "Connection: close"), handle)
    assert answer.startswith(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n")


async def test_a_stream_is_chunked_on_http_1_1_and_its_head_goes_with_the_first_contents() -> None:
    go = asyncio.Event()

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200)
        answer.send(b"first")
        await go.wait()
        answer.send(b"second")
        return answer.finish(b"third")

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get())
        assert await client.until(b"first\r\n") == (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        )
        go.set()
        assert await client.until(b"0\r\n\r\n") == b"6\r\nsecond\r\n5\r\nthird\r\n0\r\n\r\n"


async def test_a_stream_to_an_http_1_0_client_ends_with_the_connection() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200)
        answer.send(b"first")
        return answer.finish(b"second")

    answer = await exchange(get("/", "Connection: keep-alive", version="1.0"), handle)
    assert answer == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirstsecond"


async def test_a_whole_answer_keeps_an_http_1_0_connection_that_asks_for_it() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        return ClientAnswer(request, 200).finish(b"x")

    async with house(handle) as gateway, raw(gateway.address) as client:
        for _ in range(2):
            client.send(get("/", "Connection: keep-alive", version="1.0"))
            head, contents = await client.answer()
            assert b"\r\nConnection: keep-alive\r\n" in head
            assert contents == b"x"


@pytest.mark.parametrize(
    ("method", "status", "fields", "contents", "framing"),
    [
        ("HEAD", 200, ((b"Content-Length", b"42"),), b"", b"Content-Length: 42\r\n"),
        ("HEAD", 200, (), b"", b""),
        ("HEAD", 404, (), b"whole", b"Content-Length: 5\r\n"),
        ("GET", 304, ((b"Content-Length", b"42"),), b"", b"Content-Length: 42\r\n"),
        ("GET", 304, (), b"", b""),
        ("GET", 204, (), b"", b""),
        ("GET", 205, (), b"", b"Content-Length: 0\r\n"),
    ],
)
async def test_an_answer_without_contents_says_of_its_length_what_it_was_given(
    method: str,
    status: int,
    fields: tuple[tuple[bytes, bytes], ...],
    contents: bytes,
    framing: bytes,
) -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        return ClientAnswer(request, status, fields, declared=bool(fields)).finish(contents)

    answer = await exchange(
        get(method=method) + get("/", "Connection: close"), handle_second(handle)
    )
    first, _, second = answer.partition(b"\r\n\r\n")
    assert first.partition(b"\r\n")[2] + (b"\r\n" if framing else b"") == framing
    assert second.startswith(b"HTTP/1.1 200 OK\r\n"), "the next answer follows at once"


def handle_second(handle: object) -> object:
    async def either(request: web.BaseRequest) -> ClientAnswer:
        if request.keep_alive:
            return await handle(request)  # type: ignore[operator, no-any-return]
        return ClientAnswer(request, 200).finish()

    return either


async def test_a_declared_length_frames_a_stream() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200, ((b"content-length", b"6"),), declared=True)
        answer.send(b"one")
        return answer.finish(b"two")

    assert await exchange(get("/", "Connection: close"), handle) == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nConnection: close\r\n\r\nonetwo"
    )


@pytest.mark.parametrize("name", [b"X\r\nY", b"X\nY", b"X\0"])
async def test_a_field_that_would_break_the_head_is_never_written(name: bytes) -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        return ClientAnswer(request, 200, ((name, b"1"),)).finish()

    assert (await exchange(get(), handle)).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "mistake", ["left open", "raised", "cut", "cut before its end", "ended early"]
)
async def test_an_answer_that_cannot_be_finished_is_reset(version: str, mistake: str) -> None:
    go = asyncio.Event()

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200)
        answer.send(b"first")
        await go.wait()
        if mistake == "raised":
            raise RuntimeError
        if mistake == "ended early":
            return ClientAnswer(request, 500)
        if mistake == "cut":
            answer.cut()
        if mistake == "cut before its end":
            wire(request).cut()
            answer.finish(b"lost")
        return answer

    async with house(handle) as gateway, raw(gateway.address) as client:
        client.send(get(version=version))
        await client.until(b"first")
        go.set()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_problem_is_what_rfc_9457_asks_for() -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        failure = Failure("connection_timeout", "connect_timeout", retry_after=3)
        return problem(request, failure)

    answer = await exchange(get("/", "Connection: close"), handle)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(
        b"HTTP/1.1 504 Gateway Timeout\r\nContent-Type: application/problem+json"
    )
    assert b'error=connection_timeout; details="connect_timeout"; sent=?0\r\n' in head
    assert b"\r\nRetry-After: 3\r\n" in head
    assert b'"title":"Gateway Timeout","status":504' in body
    assert b'"detail":"the backend took no connection in time"' in body


async def test_aiohttp_asks_no_more_of_an_answer_than_it_has() -> None:
    """The private seam: if aiohttp comes to ask for more, this is where it shows."""
    asked: set[str] = set()

    class Watched:
        def __init__(self, answer: ClientAnswer) -> None:
            self.answer = answer

        def __getattr__(self, name: str) -> object:
            asked.add(name)
            return getattr(self.answer, name)

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        return cast(ClientAnswer, Watched(ClientAnswer(request, 200).finish(b"x")))

    await exchange(get("/", "Connection: close"), handle)
    # `__http_exception__` is asked for with a default.
    assert asked - {"ended"} == {"prepare", "write_eof", "keep_alive", "__http_exception__"}


@pytest.mark.parametrize("version", ["", "proxy_http_version 1.1;"], ids=["1.0", "1.1"])
async def test_a_cut_answer_reaches_the_client_of_an_nginx_as_a_broken_one(
    version: str, tmp_path: Path
) -> None:
    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 200, ((b"X-Accel-Buffering", b"no"),))
        answer.send(b"first")
        if request.raw_path == "/cut":
            await go.wait()
            answer.cut()
            return answer
        return answer.finish(b"second")

    go = asyncio.Event()
    async with (
        house(handle) as gateway,
        nginx(
            tmp_path, f"location / {{ proxy_pass http://{gateway.address}; {version} }}"
        ) as fronts,
    ):
        (front,) = fronts
        async with raw(front) as client:
            client.send(get("/whole", "Connection: close"))
            assert (await client.rest()).endswith(b"0\r\n\r\n")
        async with raw(front) as client:
            client.send(get("/cut", "Connection: close"))
            beginning = await client.until(b"first\r\n")
            go.set()
            try:
                end = await client.rest()
            except ConnectionResetError:
                end = b""
            assert b"chunked" in beginning
            assert not end.endswith(b"0\r\n\r\n"), "nginx ended the answer as if it were whole"


async def test_a_task_that_was_cancelled_a_moment_ago_is_told_nothing() -> None:
    end: asyncio.Future[ClientAnswer] = asyncio.get_running_loop().create_future()
    end.cancel()

    async def handle(request: web.BaseRequest) -> ClientAnswer:
        answer = ClientAnswer(request, 204).finish()
        settle(end, answer)
        return answer

    assert (await exchange(get("/", "Connection: close"), handle)).startswith(b"HTTP/1.1 204 ")
    assert end.cancelled()
