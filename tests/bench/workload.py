"""What is asked: one bulk call of a given kind, and whether an answer to it is right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from tests.bench.backend import collection
from tests.bench.formats import FORMATS, OWN, Call, Format
from tests.bench.load import Address, request

TOKEN = "5b1f3c1c-7d0a-4f0e-a1b5-2f0c8d3e9a77"
OUTER = (
    ("Content-Type", "application/json"),
    ("Accept", "application/json"),
    ("User-Agent", "bench/1.0"),
    ("OAuth-Token", TOKEN),
)
RECORD = json.dumps(
    {
        "name": "Account made by a bulk call",
        "industry": "Apparel",
        "annual_revenue": 1250000.5,
        "description": "line one\nline two",
        "tag": ["new", "bulk"],
    },
    separators=(",", ":"),
)


class WrongAnswer(Exception):
    """A contestant that is not right is not timed."""


class Work(Protocol):
    """Something to ask and to check."""

    @property
    def name(self) -> str: ...

    @property
    def batch(self) -> int:
        """How many subrequests the cost is divided by."""

    def request(self, format: str, address: Address) -> bytes: ...

    def check(self, format: str, answer: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Workload:
    """`batch` calls to pages of `size`, each answered after `sleep`."""

    batch: int
    size: str = "200B"
    sleep: str = "0ms"
    post: bool = False
    own: bool = False
    """Whether each subrequest brings three headers of its own."""
    page: str = ""
    """Another page than the size's: `echo` answers with the body it got, `big` with 8 MB."""
    slow_last: bool = False
    """The last subrequest alone takes half a second."""

    @property
    def name(self) -> str:
        words = [f"{self.batch} x {self.size}"]
        words += [f"after {self.sleep}"] if self.sleep != "0ms" else []
        words += ["POST"] if self.post else []
        words += ["own headers"] if self.own else []
        return ", ".join(words)

    def request(self, format: str, address: Address) -> bytes:
        speech = FORMATS[format]
        body = _document(self, format)
        return request("POST", speech.endpoint, address, OUTER, body)

    def check(self, format: str, answer: bytes) -> None:
        """Raises `WrongAnswer` unless every result is there, in order, and complete."""
        speech = FORMATS[format]
        try:
            results = speech.results(json.loads(answer))
        except (ValueError, KeyError, TypeError, AssertionError) as trouble:
            raise WrongAnswer(f"{trouble!r} in {answer[:300]!r}") from trouble
        calls = self.calls()
        if len(results) != len(calls):
            raise WrongAnswer(f"{len(results)} results for {len(calls)} subrequests")
        for call, (status, contents) in zip(calls, results, strict=True):
            if status != 200:
                raise WrongAnswer(f"status {status}: {str(contents)[:300]}")
            _compare(self, speech, call, contents)

    def calls(self) -> list[Call]:
        return [self._call(number) for number in range(self.batch)]

    def _call(self, number: int) -> Call:
        sleep = "500ms" if self.slow_last and number == self.batch - 1 else self.sleep
        where = self.page or collection(self.size, sleep)
        own = {**OWN, "X-Part": f"part-{number}"} if self.own else {}
        return Call(f"/{where}/{number}", RECORD if self.post else None, own)


@dataclass(frozen=True, slots=True)
class Passed:
    """One plain request, for proxies."""

    size: str = "200B"
    batch: int = 1

    @property
    def name(self) -> str:
        return f"GET {self.size}"

    @property
    def _path(self) -> str:
        return f"{FORMATS['sugarcrm'].prefix}/{collection(self.size)}/1"

    def request(self, format: str, address: Address) -> bytes:
        return request("GET", self._path, address, OUTER[1:], b"")

    def check(self, format: str, answer: bytes) -> None:
        document = json.loads(answer)
        _same((document["uri"], document["token"]), (self._path, TOKEN))


@cache
def _document(workload: Workload, format: str) -> bytes:
    document = FORMATS[format].document(workload.calls())
    return json.dumps(document, separators=(",", ":")).encode()


def _compare(workload: Workload, speech: Format, call: Call, contents: object) -> None:
    if workload.page == "echo":
        _same(contents, json.loads(RECORD))
    elif workload.page:
        _same(type(contents), list)
    else:
        expected = {
            "uri": speech.prefix + call.path + speech.suffix,
            "method": call.method,
            "length": str(len(RECORD)) if workload.post else "",
            "token": TOKEN,
            "own": call.headers.get("X-Part", ""),
        }
        if not isinstance(contents, dict) or not contents.get("records"):
            raise WrongAnswer(f"contents {str(contents)[:300]}")
        _same({name: contents.get(name) for name in expected}, expected)


def _same(seen: object, expected: object) -> None:
    if seen != expected:
        raise WrongAnswer(f"expected {expected}, got {str(seen)[:300]}")
