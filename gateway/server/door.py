"""The door: which requests are turned away before anybody looks at what they want.

aiohttp's C parser refuses most of what is malformed, and a little more is refused here
(RELIABILITY 5.1). All of it is answered in our words: aiohttp's own quote the bytes they stumbled
over, which may be somebody's credentials.
"""

from __future__ import annotations

import re
from functools import lru_cache

import aiohttp.http
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway import headers, target
from gateway.batch import Failure

LINE = 16 * 2**10
"""Most bytes of a request's target."""
FIELD = LINE - 1
"""Most bytes of one header field; unlike `LINE`, since that is how LineTooLong tells them apart."""
FIELDS = 128


def _refused(status: int, slug: str, message: str = "") -> Failure:
    return Failure("http_request_error", slug, status=status, message=message)


BAD_REQUEST = _refused(400, "bad_request", "not a well-formed HTTP request")
TARGET_TOO_LONG = _refused(414, "target_too_long")
HEAD_TOO_LARGE = _refused(
    431, "head_too_large", "a header field is too long, or there are too many"
)
HEAD_TIMEOUT = _refused(408, "head_timeout", "the head did not arrive in time")
BAD_VERSION = _refused(505, "bad_version", "expected HTTP/1.1 or HTTP/1.0")
BAD_METHOD = _refused(405, "bad_method", "CONNECT and TRACE are not served")
BAD_CODING = _refused(501, "bad_transfer_coding", "the only transfer coding served is chunked")
LEGACY_CODING = _refused(400, "bad_transfer_coding", "HTTP/1.0 has no transfer codings")
BAD_TARGET = _refused(400, "bad_target", "a fragment is no part of a request's target")
BAD_AUTHORITY = _refused(400, "bad_target", "expected a path, or http:// and one host before it")
UNKNOWN_METHOD = _refused(501, "unknown_method", "no such method")
BAD_HOST = _refused(400, "bad_host", "expected one Host field with a valid name")
BAD_EXPECTATION = _refused(417, "bad_expectation", "expected 100-continue")
FULL = Failure(
    "connection_limit_reached",
    "gateway_overloaded",
    message="too many clients at once",
    retry_after=1,
)


def objection(request: web.BaseRequest) -> Failure | None:
    """What is wrong with a request that aiohttp's parser let through (RELIABILITY 5.1)."""
    fields = request.headers
    if request.version not in _VERSIONS:
        return BAD_VERSION
    if request.method in _UNSERVED:
        return BAD_METHOD
    if "#" in request.raw_path:
        return BAD_TARGET
    if request.raw_path[0] not in "/*" and not target.rooted(request.raw_path).startswith("/"):
        return BAD_AUTHORITY
    host = fields.get("Host")
    if not _host_is_valid(host) if host is not None else request.version != (1, 0):
        return BAD_HOST
    coding = fields.get("Transfer-Encoding")
    if coding is not None:
        if request.version == (1, 0):
            return LEGACY_CODING
        if coding.lower() != "chunked":
            return BAD_CODING
    expectation = fields.get("Expect")
    if expectation is not None and expectation.lower() != "100-continue":
        return BAD_EXPECTATION
    return None


_VERSIONS = frozenset({(1, 0), (1, 1)})
_UNSERVED = frozenset({"CONNECT", "TRACE"})
_host_is_valid = lru_cache(maxsize=512)(headers.valid_host)


def misread(exc: HttpProcessingError) -> Failure:
    """What to answer when aiohttp's parser gave up. Its text is looked at, never passed on."""
    if isinstance(exc, LineTooLong):
        return TARGET_TOO_LONG if exc.args[1] == LINE else HEAD_TOO_LARGE
    for words, failure in _MISREAD:
        if words.search(exc.message):
            return failure
    return BAD_REQUEST


_MISREAD = (
    (re.compile(r"^Too many headers received$"), HEAD_TOO_LARGE),
    (re.compile(r"^(?:Missing|Duplicate) 'Host'"), BAD_HOST),
    (re.compile(r"^Bad status line:\s+Invalid HTTP version"), BAD_VERSION),
    (re.compile(r"^Pause on PRI/Upgrade"), BAD_VERSION),
    (re.compile(r"^Invalid method encountered:\s+b'[A-Z-]{1,32} \S+ HTTP/1\.[01]"), UNKNOWN_METHOD),
)
"""aiohttp's words for what llhttp found; all else is 400. tests/test_server.py has each of them."""


def require_c_parser() -> None:
    """Six of aiohttp's nine smuggling advisories are of its pure-Python parser."""
    if "_http_parser" not in aiohttp.http.HttpRequestParser.__module__:
        raise RuntimeError("aiohttp runs without its C parser: install a binary wheel of it")
