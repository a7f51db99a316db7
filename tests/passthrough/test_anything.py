"""Shapes that nobody thought of: any request, any answer, cut anywhere."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.headers import normal
from gateway.headers.names import Kind, kind
from tests.passthrough.messages import FRAMING, OF_ONE_HOP
from tests.passthrough.scripts import in_pieces
from tests.passthrough.shapes import CHUNKED, METHODS, Shape, ask, chunks, tell
from tests.passthrough.test_shapes import compare

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
PRINTABLE = "".join(map(chr, range(33, 127)))
TEXT = PRINTABLE + " \t" + "".join(map(chr, range(0xA0, 0x100)))

NAMES = st.text(TOKEN, min_size=1, max_size=12).filter(
    lambda name: (
        kind(normal(name)) is Kind.PLAIN and name.lower().encode() not in OF_ONE_HOP | FRAMING
    )
)
VALUES = st.text(TEXT, max_size=30).map(lambda value: value.strip(" \t\xa0\x85"))
FIELDS = st.lists(st.builds("{}: {}".format, NAMES, VALUES), max_size=8)
TARGETS = st.text(PRINTABLE.replace("#", ""), max_size=60).map(lambda text: f"/{text}")


@st.composite
def framed(draw: st.DrawFn) -> tuple[list[str], bytes]:
    """Contents, and the fields that frame them."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=100), max_size=4))
    how = draw(st.sampled_from(["length", "chunks", "nothing"]))
    if how == "chunks":
        return [CHUNKED], chunks(*pieces)
    body = b"" if how == "nothing" else b"".join(pieces)
    return ([f"Content-Length: {len(body)}"] if how == "length" else []), body


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> tuple[bytes, ...]:
    places = draw(st.lists(st.integers(1, max(1, len(data) - 1)), max_size=6, unique=True))
    bounds = [0, *sorted(places), len(data)]
    pieces = (data[start:end] for start, end in pairwise(bounds))
    return tuple(piece for piece in pieces if piece)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    method, version = draw(st.sampled_from(METHODS)), draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    framing, body = draw(framed())
    assume(version == "1.1" or CHUNKED not in framing)
    line, fields = f"{method} {draw(TARGETS)}", [*draw(FIELDS), *framing]
    asked = ask(line, *fields, body=body, version=version)

    status = draw(st.integers(200, 599))
    framing, body = draw(framed())
    line, fields = f"{status} {draw(VALUES)}", [*draw(FIELDS), *framing]
    if method == "HEAD" or status in (204, 304):
        body = b""
    told = tell(line, *fields, body=body, length=False)
    return Shape(draw(cut(asked)), in_pieces(*draw(cut(told))), (method,))


@settings(max_examples=100)
@given(shapes())
def test_anything_comes_through(shape: Shape) -> None:
    asyncio.run(compare(shape))
