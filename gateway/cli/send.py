"""Sends a bulk call, watches its results come, and tells what became of each."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, TextIO

import aiohttp
import click

from gateway.batch import Headers
from gateway.cli.results import Result, Results, said
from gateway.cli.scanning import NotJson
from gateway.statuses import PHRASES
from gateway.terminal import Ink, Row, milliseconds, shortened, waterfall

PATIENCE = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
"""Seconds to connect, and without a byte of the answer."""
CALL = 50
"""Columns of a call."""
MESSAGE = 200
"""Characters of what an error says."""


@dataclass
class Exchange:
    """One bulk call and its answer; seconds count from when it was sent."""

    results: Results
    status: int = 0
    first: float = 0.0
    """Until the answer began."""
    whole: float = 0.0
    cut: str = ""
    """Why the answer ended before its end; empty: it did not."""
    refusal: bytes = b""
    """The answer to a call that was refused as a whole."""

    @property
    def failed(self) -> bool:
        return bool(self.cut) or self.status != 200 or any(r.failed for r in self.results)


def send(url: str, fields: Headers, body: bytes, *, as_json: bool) -> int:
    """Sends, shows, and returns the exit status: 0 only if everything went well."""
    progress = Progress(sys.stderr)
    exchange = Exchange(Results(body))
    asyncio.run(_exchanged(exchange, url, fields, body, progress))
    if as_json:
        click.echo(json.dumps(_document(exchange), indent=2, ensure_ascii=False))
    elif exchange.status == 200:
        click.echo("\n".join(_drawn(exchange, Ink(sys.stdout))))
    if exchange.status != 200:
        raise click.ClickException(_refused(exchange))
    if exchange.cut:
        raise click.ClickException(exchange.cut)
    return 1 if exchange.failed else 0


# --- sending -------------------------------------------------------------------------------------


async def _exchanged(
    exchange: Exchange, url: str, fields: Headers, body: bytes, progress: Progress
) -> None:
    try:
        async with aiohttp.ClientSession(timeout=PATIENCE) as session:
            began = monotonic()
            request = session.post(url, data=body, headers=_typed(fields), allow_redirects=False)
            async with request as response:
                exchange.first = monotonic() - began
                exchange.status = response.status
                await _received(exchange, response, began, progress)
    except (aiohttp.ClientError, TimeoutError, NotJson) as error:
        exchange.cut = _why(error)
        if not exchange.status:
            raise click.ClickException(f"no answer: {exchange.cut}") from None
    finally:
        progress.end()


async def _received(
    exchange: Exchange, response: aiohttp.ClientResponse, began: float, progress: Progress
) -> None:
    results = exchange.results
    async for data in response.content.iter_any():
        exchange.whole = monotonic() - began
        if exchange.status == 200:
            results.feed(data, exchange.whole)
            progress.show(results.here, len(results), exchange.whole)
        elif len(exchange.refusal) < 2**20:
            exchange.refusal += data
    results.finish()


def _typed(fields: Headers) -> Headers:
    if any(name.lower() == "content-type" for name, _ in fields):
        return fields
    return (("Content-Type", "application/json"), *fields)


def _why(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorError():
            system = error.os_error
            # asyncio writes its own words into an OSError; a resolver's numbers are below 0.
            number = system.errno or 0
            words = os.strerror(number) if number > 0 else system.strerror
            return f"{error.host}:{error.port}: {words or 'cannot connect'}"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return "the connection was cut before the answer had ended"
        case TimeoutError():
            return "nothing came for too long"
        case NotJson():
            return "the answer is none to a bulk call"
    return str(error) or type(error).__name__


class Progress:
    """A line that counts results, on a terminal; nothing anywhere else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on = stream.isatty()

    def show(self, here: int, all: int, seconds: float) -> None:
        if self._on:
            text = f"  {here} of {all} results, {milliseconds(seconds)}"
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()

    def end(self) -> None:
        if self._on:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


# --- showing -------------------------------------------------------------------------------------


def _drawn(exchange: Exchange, ink: Ink) -> Iterator[str]:
    results = list(exchange.results)
    rows = [Row(_cells(r), _span(r), _colour(r)) for r in results]
    yield from waterfall(("#", "call", "result", "arrived"), rows, ink, right={0, 3})
    failures = [result for result in results if result.failed]
    if failures:
        yield ""
    for result in failures:
        for message in dict.fromkeys(result.errors or ["no result came"]):
            said = shortened(message, MESSAGE) or "it does not say why"
            yield f"  {ink('yellow', f'{result.index}  {_outcome(result)}')}  {said}"
    yield ""
    failed = f", {len(failures)} of them failed" if failures else ""
    yield (
        f"  {len(results)} result{'' if len(results) == 1 else 's'}{failed}, in"
        f" {milliseconds(exchange.whole)}; the answer began after {milliseconds(exchange.first)}."
    )


def _cells(result: Result) -> tuple[str, str, str, str]:
    arrived = "" if result.arrived is None else milliseconds(result.arrived)
    return str(result.index), shortened(result.call, CALL), _outcome(result), arrived


def _outcome(result: Result) -> str:
    """A status, or what came of a list."""
    if not result.came:
        return "none"
    if result.records is None:
        return str(result.status)
    counts = [(result.records, "record"), (len(result.errors), "error")]
    told = [f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in counts if n or noun == "record"]
    return ", ".join(told)


def _span(result: Result) -> tuple[float, float] | None:
    return None if result.arrived is None else (result.began, result.arrived)


def _colour(result: Result) -> str:
    if not result.came:
        return "dim"
    return "yellow" if result.failed else "green"


def _refused(exchange: Exchange) -> str:
    status = exchange.status
    phrase = f" {PHRASES[status]}" if status in PHRASES else ""
    try:
        message = said(json.loads(exchange.refusal))
    except ValueError:
        message = ""
    return f"refused as a whole: {status}{phrase}{message and ': '}{shortened(message, MESSAGE)}"


def _document(exchange: Exchange) -> dict[str, Any]:
    results = list(exchange.results)
    return {
        "status": exchange.status,
        "seconds": round(exchange.whole, 6),
        "first_byte": round(exchange.first, 6),
        "cut": exchange.cut or None,
        "failed": sum(result.failed for result in results),
        "results": [_entry(result) for result in results],
    }


def _entry(result: Result) -> dict[str, Any]:
    return {
        "index": result.index,
        "call": result.call,
        "status": result.status or None,
        "records": result.records,
        "errors": result.errors,
        "failed": result.failed,
        "arrived": None if result.arrived is None else round(result.arrived, 6),
        "bytes": result.bytes,
    }
