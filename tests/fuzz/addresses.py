"""Addresses: a normal form that means the same to everybody, or none.

That real servers agree is for `test_readers.py` to find out.
"""

from __future__ import annotations

import re
from itertools import accumulate, repeat
from typing import Literal
from urllib.parse import unquote_to_bytes

from gateway import target
from gateway.errors import BadTarget
from gateway.target import Endpoints, Pattern
from gateway.target.rules import PathRules
from tests.fuzz.hunt import Signs

WORDS = (
    b"/", b"//", b"/.", b"/..", b"..;", b"%2e", b"%2E%2e", b"%252e", b"%2f", b"%252F", b"%5c",
    b"\\", b"%00", b"%0d%0a", b"%250a", b"%", b"%zz", b"%7e", b"%41", b"%c0%ae", b"%e0%80%af",
    b"\xef\xbc\x8e", b"\xe2\x80\xa5", b"?", b"#", b";x=1", b"@", b":", b"http://gw",
    b"https://gw:443", b"HTTP://GW:80/", b"//evil", b"http:/", b"user@", b" ", b"\t", b"\x7f", b"+",
    b"batch", b"b%61tch", b"%2562atch", b"secret", b"%73ecret", b"open", b"[::1]", b"&", b"%3b",
    b"%3f", b"%23", b"%25",
)  # fmt: skip
SEEDS = (b"/open/a?b=c", b"/a%2Fb/%C3%A9;x=1/~u", b"http://gw/v10/bulk", "/é/@me".encode())

OWN = frozenset({"http://gw:80", "https://gw:443"})
BULK: Endpoints[str] = Endpoints([(Pattern(p), p) for p in ("/batch", "{prefix}/{version}/bulk")])
ALLOW, DENY = (Pattern("/open/**"),), (Pattern("/open/secret/**"),)
RULES = PathRules(ALLOW, DENY)

MARKS = ("%25", "%3", ";", "?", ".")
"""What makes addresses that are accepted differ."""

_DOTS = re.compile(rb"(?:^|/)\.\.?(?:[;/]|$)")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f\\]")


def run(data: bytes) -> Signs:
    text = data.decode("utf-8", "surrogateescape")
    signs = _check_rebased(text)
    BULK.route(text)  # of what a client sends as a request's own target; never raises
    normal = _normal(text, "keep")
    if normal in target.MISTAKES:
        return signs | {normal}
    _check_form(text, normal)
    _check_meaning(text, normal)
    marks = "".join(mark for mark in MARKS if mark in normal)
    return signs | {f"{_slashes(text, normal)}, {_judged(normal)} {marks}"}


def _normal(text: str, encoded_slash: Literal["keep", "refuse"]) -> str:
    """The normal form, or why there is none."""
    try:
        return target.normalise(text, encoded_slash=encoded_slash)
    except BadTarget as bad:
        return bad.slug


def _check_form(text: str, normal: str) -> None:
    path, _, query = normal.partition("?")
    assert re.fullmatch(r"/[!-~]*", normal)
    assert len(normal) <= target.LONGEST
    assert "//" not in path
    assert target.normalise(normal) == normal
    assert query == text.partition("?")[2] or not text.isascii()


def _check_meaning(text: str, normal: str) -> None:
    """A backend that decodes the path once reads what was written, and no reading is another
    place: two more show what a second server behind it would make of that."""
    read = normal.partition("?")[0].encode()
    assert unquote_to_bytes(read) == unquote_to_bytes(text.partition("?")[0].encode())
    for reading in accumulate(repeat(read, 3), lambda before, _: unquote_to_bytes(before)):
        assert not _DOTS.search(reading)
        assert not _CONTROL.search(reading)


def _slashes(text: str, normal: str) -> str:
    """To refuse encoded slashes is the only difference that the setting makes."""
    expected = normal
    if re.search(r"%(?:25)?2[Ff]", normal.partition("?")[0]):
        expected = "encoded_slash"
    assert _normal(text, "refuse") == expected
    return "data" if expected == normal else expected


def _judged(normal: str) -> str:
    """No reading of an allowed path is a denied one, and none of an innocent one a bulk call."""
    path = normal.partition("?")[0]
    decoded = [path, target.form.spelt_out(path), target.form.spelt_out(path, 2)]
    merged = [re.sub(r"/+", "/", reading) for reading in decoded]
    without = [re.sub(r"/+", "/", re.sub(r";[^/]*", "", reading)) for reading in decoded]
    recursion = BULK.recursion(normal)
    named = [reading.rstrip("/") for reading in (*decoded, *merged, *without)]
    assert recursion == any(map(BULK.match, named))
    allowed = RULES.refusal("GET", normal) is None
    if allowed:
        for reading in (*decoded, *merged, *without):
            assert re.match(r"/open(?:/|\Z)", reading)
            assert not re.match(r"/open/secret(?:/|\Z)", reading)
    return f"allowed {allowed}, bulk {recursion}"


def _check_rebased(text: str) -> Signs:
    try:
        rebased = target.rebase(text, OWN)
    except BadTarget as bad:
        return frozenset({f"rebased: {bad.slug}"})
    if rebased == text:
        assert not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|//", text)
        return frozenset()
    assert rebased.startswith("/")
    assert re.match(r"(?:http://gw(?::80)?|https://gw(?::443)?)(?=[/?]|\Z)", text, re.IGNORECASE)
    return frozenset({"rebased"})
