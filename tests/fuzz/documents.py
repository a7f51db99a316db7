"""JSON in and out: one meaning for what is accepted, and contents that stay inside the answer."""

from __future__ import annotations

import json
import zlib
from gzip import compress

from gateway import bodies
from gateway.bodies import CodingError, Decoder
from gateway.errors import Refused
from tests.fuzz.hunt import Signs

WORDS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0041", b"\\ud800", b"\\udc00", b"null",
    b"true", b"NaN", b"1.10", b"-0", b"1E400", b'{"requests":', b'"a":1,', b'"\\u0061":1',
    b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xff", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    b"x\x9c", b"\x01" * 600,
)  # fmt: skip
SEEDS = (
    b'{"requests":[{"a":1.10,"b":"\xc3\xa9"},null],"x":{"a":1}}',
    b'{"requests":{"k":{},"l":[]}}',
    compress(b"contents" * 9),
    zlib.compress(b"contents" * 9),
)

TYPES = (
    None,
    b"application/json",
    b"text/html",
    b"text/plain; charset=utf-16",
    b"application/x+json; charset=big5",
)
LIMIT = 10_000


def run(data: bytes) -> Signs:
    return frozenset({_document(data), _decoded_alike(data), *_spliced(data)})


def _document(data: bytes) -> str:
    try:
        bodies.check_document(data, max_depth=20)
    except Refused as refused:
        return f"{refused.reason}: {refused.message.rpartition(': ')[2]}"
    tree = json.loads(data, object_pairs_hook=tuple, parse_int=str)
    if not isinstance(tree, tuple):
        return "no object"
    entries = dict(tree).get("requests")
    padded = b" " * 70_000 + data  # short ones are not looked at
    for most in (0, 1, 3):
        # Of two lists of one name the longer one may be seen: that they are two is found later.
        if isinstance(entries, list | tuple) and len(entries) > most:
            assert bodies.more(padded, "requests", most)
    return _twice(data, [name for name, _ in tree])


def _twice(data: bytes, names: list[str]) -> str:
    refused = False
    try:
        bodies.refuse_duplicates(data, {"": -1}, lists=(), maps=())
    except Refused:
        refused = True
    assert refused == (len(set(names)) < len(names))
    return "a name twice" if refused else "fine"


def _spliced(data: bytes) -> Signs:
    """Nothing that a backend says ends the place where it is put."""
    signs = set()
    for declared in TYPES:
        spliced, base64 = bodies.splice(data, declared)
        document = b'[{"a":' + spliced + b'},"end"]'
        try:
            found = json.loads(document, parse_int=str, parse_float=str)
        except RecursionError:
            continue
        assert found[1:] == ["end"]
        assert list(found[0]) == ["a"]
        assert not base64 or isinstance(found[0]["a"], str)
        signs.add(f"{declared!r} {type(found[0]['a']).__name__} {base64}")
    return frozenset(signs)


# --- content codings -----------------------------------------------------------------------------


def _decoded_alike(data: bytes) -> str:
    """As zlib has it, whatever the pieces; and never more than the limit."""
    signs = []
    for coding in (b"gzip", b"deflate"):
        outcomes = {_decoded(coding, data, size) for size in (1, 7, len(data) + 1)}
        assert len(outcomes) == 1
        (decoded,) = outcomes
        signs.append(decoded if isinstance(decoded, str) else "decoded")
        if isinstance(decoded, bytes) and coding == b"gzip" and data:
            assert decoded.startswith(zlib.decompress(data, 16 + zlib.MAX_WBITS))
    return " ".join(signs)


def _decoded(coding: bytes, data: bytes, size: int) -> bytes | str:
    decoder = Decoder(coding, LIMIT)
    made = b""
    try:
        for at in range(0, len(data), size):
            made += decoder.feed(data[at : at + size])
            assert len(made) <= LIMIT + 1
        decoder.end()
    except CodingError as error:
        return error.kind
    return made
