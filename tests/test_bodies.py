"""Bodies: documents checked and decoded, contents spliced, content codings undone."""

from __future__ import annotations

import base64
import enum
import gzip
import json
import zlib
from itertools import pairwise

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import bodies
from gateway.bodies import CodingError, Decoder
from gateway.bodies.codings import MEMBERS
from gateway.bodies.contents import _CHARSETS
from gateway.bodies.depth import depth
from gateway.errors import Refused


class OnFail(enum.Enum):
    ABORT = "abort"


class Entry(msgspec.Struct):
    url: str
    method: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    on_fail: OnFail | None = msgspec.field(default=None, name="onFail")
    headers: dict[str, str] = {}


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Document(msgspec.Struct):
    requests: list[Entry]
    strict: Strict | None = None


def check(body: bytes, max_depth: int = 64) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        bodies.check_document(body, max_depth=max_depth)
    return refused.value.reason, refused.value.message


# --- grammar -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b'"x"', b" [1e400, -0, 1.10] \n", b'{"a":18446744073709551616123}',
     '{"é":"日本\U0001f600"}'.encode(), rb'"\ud83d\ude00\u0000"', b'{"a":1,"a":2}'],
)  # fmt: skip
def test_json_is_accepted(body: bytes) -> None:
    bodies.check_document(body, max_depth=64)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "line 1, column 1: unexpected end"),
        (b"{", "line 1, column 2: unexpected end"),
        (b"[1,\n 2,\n]", "line 3, column 1: trailing comma in array"),
        (b'{"a": 1,\n}', "line 2, column 1: trailing comma in object"),
        (b'{"a"\n  1}', "line 2, column 3: expected ':'"),
        (b"[1\n 2]", "line 2, column 2: expected ',' or ']'"),
        (b"{}\n\nx", "line 3, column 1: trailing characters"),
        (b"[NaN]", "line 1, column 2: invalid character"),
        (b"[Infinity]", "line 1, column 2: invalid character"),
        (b"{'a': 1}", "line 1, column 2: expected '\"'"),
        (b"[1] // x", "line 1, column 5: trailing characters"),
        (b"[01]", "line 1, column 3: invalid number"),
        (b'["\n"]', "line 1, column 3: invalid character"),
        ('["日本", x]'.encode(), "line 1, column 8: invalid character"),
        (b"\xef\xbb\xbf{}", "line 1, column 1: a byte order mark is not allowed"),
        (b'{"a":\n"\xff"}', "line 2, column 2: invalid UTF-8"),
        (b'["\xed\xa0\x80"]', "line 1, column 3: invalid UTF-8"),
        (b'["\xc0\xae"]', "line 1, column 3: invalid UTF-8"),
        ('["x"]'.encode("utf-16"), "line 1, column 1: invalid UTF-8"),
    ],
)
def test_what_is_no_json_is_refused_with_line_and_column(body: bytes, message: str) -> None:
    assert check(body) == ("bad_json", message)


@pytest.mark.parametrize(
    "body", [rb'["\ud800"]', rb'["\udc00 and more text"]', rb'["\ud800\u0041"]']
)
def test_half_of_a_surrogate_pair_is_refused(body: bytes) -> None:
    assert check(body)[0] == "bad_json"


BROKEN = b"""\
{
  "requests": [
    {
      "method": "post",
      "path": "/activities/xc:21/notes"
      "body": {
        "data": 1
      },
    }
  ]
}"""
"""As a vendor documents it: a comma is missing, and another stands where none may."""


def test_a_missing_and_a_surplus_comma_are_named_by_place() -> None:
    assert check(BROKEN) == ("bad_json", "line 6, column 7: expected ',' or '}'")
    mended = BROKEN.replace(b'notes"\n', b'notes",\n')
    assert check(mended) == ("bad_json", "line 9, column 5: trailing comma in object")
    bodies.check_document(mended.replace(b"},\n    }", b"}\n    }"), max_depth=64)


@given(st.binary(max_size=30) | st.text('{}[]",:\\u0d81 \n', max_size=30).map(str.encode))
def test_what_is_accepted_is_json_and_what_is_refused_names_its_place(body: bytes) -> None:
    try:
        bodies.check_document(body, max_depth=64)
    except Refused as refused:
        mistake = refused
    else:
        json.loads(body)
        return
    assert mistake.reason == "bad_json"
    assert mistake.message.startswith("line ")


# --- depth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 64])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}"), ('[[],{"]":"}"},', "]")])
def test_a_document_is_as_deep_as_the_limit_and_no_deeper(begin: str, end: str, most: int) -> None:
    extra = begin.count("[") > 1
    levels = most - extra

    def tower(levels: int) -> bytes:
        return (begin * levels + "1" + end * levels).encode()

    bodies.check_document(tower(levels), max_depth=most)
    reason, message = check(tower(levels + 1), most)
    assert (reason, message) == ("too_deep", f"nested deeper than {most} levels")


@pytest.mark.parametrize(
    "body", [b"[" * 10_000 + b"]" * 10_000, b"[" * 200_000, b'{"a":' * 200_000]
)
def test_ten_thousand_levels_are_refused_without_recursion_trouble(body: bytes) -> None:
    assert check(body)[0] == "too_deep"


class Nest(msgspec.Struct):
    nests: list[Nest] = []


def test_a_place_far_down_is_named_by_its_two_ends() -> None:
    with pytest.raises(Refused) as caught:
        bodies.document(b'{"nests":[' * 200 + b"1" + b"]}" * 200, Nest, max_depth=64)
    message = caught.value.message
    assert message.startswith("nests[0].nests[0].")
    assert "..." in message
    assert message.endswith(".nests[0]: expected object, got integer")
    assert len(message) < 500


def test_brackets_in_strings_count_for_nothing() -> None:
    closing = json.dumps(["]" * 5, {"a": ["[" * 500, '"]\\"', "\\"]}, *["}{"] * 90]).encode()
    bodies.check_document(closing, max_depth=3)
    assert check(closing, 2)[0] == "too_deep"
    # Brackets in strings that would level out towers of real ones.
    assert check(b'["]",' * 100 + b"1" + b"]" * 100)[0] == "too_deep"
    assert check(b'["]]","",' * 100 + b'"[[["' + b"]" * 100)[0] == "too_deep"


def measured(tree: object) -> int:
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else None
    return 0 if inside is None else 1 + max(map(measured, inside), default=0)


JSON = st.recursive(
    st.none() | st.integers() | st.text('ab[]{}"\\\n é', max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a]["', max_size=3), inner),
    max_leaves=30,
)


@given(JSON, st.booleans())
def test_depth_is_what_a_walk_over_the_tree_finds(tree: object, escaped: bool) -> None:
    text = json.dumps(tree, ensure_ascii=escaped).encode()
    assert depth(text) == measured(tree)


# --- shape ---------------------------------------------------------------------------------------


def test_a_document_is_decoded_with_bodies_as_they_were_written() -> None:
    body = b'{"requests":[{"url":"/a","data": {"n":1.10,"m":18446744073709551616} }]}'
    document = bodies.document(body, Document, max_depth=64)
    assert bytes(document.requests[0].data) == b'{"n":1.10,"m":18446744073709551616}'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "expected object, got array"),
        (b"{}", "requests: missing"),
        (b'{"requests":5}', "requests: expected array, got integer"),
        (b'{"requests":[{"url":"a"},{"url":1}]}', "requests[1].url: expected string, got integer"),
        (b'{"requests":[{"url":"a"},{}]}', "requests[1].url: missing"),
        (b'{"requests":[null]}', "requests[0]: expected object, got null"),
        (b'{"requests":[{"url":null}]}', "requests[0].url: expected string, got null"),
        (b'{"requests":[{"url":"a","headers":{"secret":1}}]}',
         "requests[0].headers: expected string, got integer"),
        (b'{"requests":[{"url":"a","onFail":"secret"}]}',
         "requests[0].onFail: not one of the known values"),
        (b'{"requests":[],"strict":{"name":"a","secret":1}}', "strict: an unknown field"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_refused_with_its_path_and_no_word_of_the_client(
    body: bytes, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        bodies.document(body, Document, max_depth=64)
    assert (refused.value.reason, refused.value.message) == ("bad_shape", message)


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        (b'{"url":1}', "bad_shape", "requests.acc.url: expected string, got integer"),
        (b"{}", "bad_shape", "requests.acc.url: missing"),
        (b"3", "bad_shape", "requests.acc: expected object, got integer"),
        (b'{"url":', "bad_json", "requests.acc: line 1, column 8: unexpected end"),
        (b'{"url":"\xff"}', "bad_json", "requests.acc: invalid UTF-8"),
        pytest.param(
            b'{"x":' + b"[" * 200_000, "too_deep", "requests.acc: nested too deeply", id="deep"
        ),
    ],
)
def test_a_part_is_decoded_at_its_own_place(body: bytes, reason: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        bodies.decode(body, Entry, "requests.acc")
    assert (refused.value.reason, refused.value.message) == (reason, message)


def test_a_raw_span_can_be_decoded() -> None:
    assert bodies.decode(msgspec.Raw(b'{"url":"a"}'), Entry) == Entry("a")


# --- duplicate keys ------------------------------------------------------------------------------


def seen(document: bytes, **counts: int) -> str | None:
    try:
        bodies.refuse_duplicates(document, counts)
    except Refused as refused:
        return refused.message
    return None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"requests":[],"requests":[]}', "a key stands twice"),
        (b' {"url":12 , "requests":[], "url":1} ', "a key stands twice"),
        (b'{"requests":[{"url":"a"},{"url":"b","url":"c"}]}', "requests[1]: a key stands twice"),
        (b'{"requests":{"k":{"url":"a"},"k":{"url":"b"}}}', "requests: a key stands twice"),
        (b'{"requests":[{"url":"a","\\u0075rl":"b"}]}', "requests[0]: a key stands twice"),
        (b'{"requests":[{"url":"a","url":"a","requests":[]}]}', "requests[0]: a key stands twice"),
        (b'{"requests":[{"requests":[{"url":"a","url":"b"}]}]}',
         "requests[0].requests[0]: a key stands twice"),
        (b'{"requests":[{"ur\\u006C" : "a","headers":{"A":"1","A":"2"}}]}',
         "requests[0].headers: a key stands twice"),
        (b'{"requests":[{"url":"a","data":{"url":1,"url":2}}]}', None),
        (b'{"requests":[{"url":"\\u00e9","data":{"a":1,"a":2}}]}', None),
        (b'{"requests":[{"url":"url"}]}', None),
        pytest.param(
            b'{"requests":[{"url":"a","n":' + b"9" * 5000 + b',"m":"\\u0041"}]}', None, id="digits"
        ),
        (b'{"requests":"\\u0041"}', None),
        (b'["\\u0041"]', None),
    ],
)  # fmt: skip
def test_no_object_of_the_envelope_names_a_key_twice(body: bytes, message: str | None) -> None:
    assert seen(body, requests=1, url=1) == message


def test_a_field_may_stand_in_the_text_as_often_as_it_was_found() -> None:
    body = b'{"requests":[{"url":"a"},{"url":"b","method":"GET","method":"DELETE"}]}'
    assert seen(body, requests=1, url=2, method=1) == "requests[1]: a key stands twice"


def test_names_in_escapes_of_other_texts_are_not_looked_for() -> None:
    """The count is trusted then: looking costs as much as decoding."""
    assert seen(b'{"requests":[{"a":"\\u0075rl","\\u00e9":1,"x":2,"x":3}]}', requests=1) is None


MEMBERS_OF_AN_OBJECT = st.lists(
    st.tuples(st.sampled_from(["a", "b", ":", '"', "\\", "é", "a:b"]), JSON), max_size=4
)


@given(MEMBERS_OF_AN_OBJECT, st.booleans(), st.sampled_from(["", " ", "\n "]))
def test_a_key_twice_is_found_whatever_the_values(
    members: list[tuple[str, object]], escaped: bool, space: str
) -> None:
    written = [
        f"{json.dumps(key, ensure_ascii=escaped)}{space}:{json.dumps(value, ensure_ascii=escaped)}"
        for key, value in members
    ]
    body = f"{space}{{{space}{f'{space},'.join(written)}{space}}}".encode()
    twice = len({key for key, _ in members}) < len(members)
    assert seen(body, **{"": -1}) == ("a key stands twice" if twice else None)


@pytest.mark.parametrize(
    ("body", "most", "too_many"),
    [
        (b'{"requests":[1,2,3]}', 3, False),
        (b'{"requests":[1,2,3]}', 2, True),
        (b'{"requests":[{},[],"x"' + b",{}" * 30_000 + b"]}", 100, True),
        (b'{"requests":{"a":1,"b":{}}}', 2, False),
        (b'{"requests":{"a":1,"a":2,"b":{}}}', 2, True),
        (b'{"x":[1,2,3],"requests":[1]}', 1, False),
        (b'{"requests":"x"}', 0, False),
        (b'{"requests":null}', 0, False),
        (b'{"requests":[1', 1, False),
        (b"[1,2,3]", 1, False),
        (b"nonsense", 1, False),
        (b'{"requests":["\xff"]}', 1, False),
    ],
)
def test_too_many_entries_are_known_before_any_is_made(
    body: bytes, most: int, too_many: bool
) -> None:
    """In a long document: a short one cannot hold many."""
    assert bodies.more(b" " * 70_000 + body, "requests", most) is too_many
    assert not bodies.more(body[:2000], "requests", most)


# --- contents ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"application/json", b'{"id":18446744073709551616,"x":1.10,"a":1,"a":2}'),
        (b"Application/JSON; charset=utf-8", b" [ 1e400 , -0 ]\n"),
        (b"application/vnd.api+json", '{"é":"日本"}'.encode()),
        (b"text/json", b"null"),
        (None, b'"text"'),
        (b"", b"true"),
        pytest.param(b"application/json", b"[" * 200 + b"]" * 200, id="nested"),
    ],
)
def test_json_goes_into_the_answer_as_it_is(content_type: bytes | None, body: bytes) -> None:
    assert bodies.splice(body, content_type) == (body, False)


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        (b"text/plain", b'{"a":1}', '{"a":1}'),
        (b"text/html; charset=ISO-8859-1", b"caf\xe9", "café"),
        (b'text/plain;charset="windows-1252"', b"\x80", "€"),
        (b"text/plain; charset=utf-16", "é".encode("utf-16"), "é"),
        (b"text/plain; charset=no-such", "é".encode(), "é"),
        (b"text/plain; charset=idna", "é".encode(), "é"),
        (b"text/plain; charset=rot13", b"abc", "abc"),
        (b"application/json", b"<html>", "<html>"),
        (b"application/json", b'{"a":1,}', '{"a":1,}'),
        (b"application/json", b"[1],[2]", "[1],[2]"),
        (b"application/json", b'1}],"x":[', '1}],"x":['),
        (b"application/json", b"[NaN]", "[NaN]"),
        (b"application/json", rb'"\ud800"', r'"\ud800"'),
        pytest.param(
            b"application/json",
            b"[" * 200_000 + b"]" * 200_000,
            "[" * 200_000 + "]" * 200_000,
            id="deep",
        ),
        (b"application/json", b"", ""),
        (b"application/json; charset=latin1", b'"\xe9"', '"é"'),
        (None, b'plain \x00\x1b"\\\n', 'plain \x00\x1b"\\\n'),
    ],
)
def test_text_becomes_a_string_by_its_charset(
    content_type: bytes | None, body: bytes, text: str
) -> None:
    spliced, encoded = bodies.splice(body, content_type)
    assert json.loads(spliced) == text
    assert not encoded


@pytest.mark.parametrize("content_type", [None, b"application/json", b"image/png", b"text/plain"])
@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b'"\xff"', b'["\xed\xa0\x80"]'])
def test_other_bytes_become_base64(content_type: bytes | None, body: bytes) -> None:
    spliced, encoded = bodies.splice(body, content_type)
    assert base64.b64decode(json.loads(spliced)) == body
    assert encoded


@pytest.mark.parametrize("unit", [b"\x01", b"a\x01", b'"', b"\\", b'"a"'])
def test_what_is_long_and_mostly_escapes_is_no_text(unit: bytes) -> None:
    """As a string it would be up to six times as long."""
    assert bodies.splice(unit * 300_000, b"text/plain")[1]
    assert bodies.splice(unit * 300_000, None)[1]
    assert not bodies.splice(unit * 80_000, b"text/plain")[1]


@pytest.mark.parametrize(
    ("body", "declared"),
    [
        (b"\x1b[0m" + b"a" * 40 + b'\r\n\t"quoted"', b"text/plain"),
        ("a".encode("utf-16le"), b"text/plain; charset=utf-16le"),
    ],
)
def test_long_texts_with_some_escapes_are_texts(body: bytes, declared: bytes) -> None:
    assert not bodies.splice(body * 300_000, declared)[1]


def test_what_its_charset_cannot_read_becomes_base64() -> None:
    assert bodies.splice(b"\x00\xd8\x00\x00", b"text/plain; charset=utf-16le")[1]
    assert bodies.splice(b"\xff", b"text/plain; charset=us-ascii")[1]


def test_a_byte_order_mark_is_taken_off_json() -> None:
    assert bodies.splice(b"\xef\xbb\xbf[1]", b"application/json") == (b"[1]", False)


@pytest.mark.parametrize("charset", sorted(_CHARSETS))
def test_every_charset_in_the_list_is_known(charset: str) -> None:
    content_type = f"text/plain; charset={charset.upper()}".encode()
    assert bodies.splice("Az".encode(charset), content_type) == (b'"Az"', False)


@given(st.binary(max_size=40), st.sampled_from([None, b"application/json", b"text/plain"]))
def test_contents_cannot_break_out_of_the_answer(body: bytes, content_type: bytes | None) -> None:
    spliced, _ = bodies.splice(body, content_type)
    assert len(orjson.loads(b"[" + spliced + b"]")) == 1


# --- content codings -----------------------------------------------------------------------------


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


CODINGS = [
    (b"gzip", gzip.compress),
    (b"X-GZIP", gzip.compress),
    (b" deflate ", zlib.compress),
    (b"deflate", raw_deflate),
    (b"gzip", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
]


def undo(coding: bytes, pieces: list[bytes], limit: int = 1 << 20) -> bytes:
    decoder = Decoder(coding, limit)
    contents = b"".join([decoder.feed(piece) for piece in pieces])
    decoder.end()
    return contents


@pytest.mark.parametrize(("coding", "encode"), CODINGS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_contents_come_out_as_they_were_whatever_the_pieces(
    coding: bytes, encode: object, size: int
) -> None:
    contents = b"hello, world " * 100
    encoded: bytes = encode(contents)  # type: ignore[operator]
    pieces = [encoded[start : start + size] for start in range(0, len(encoded), size)]
    assert undo(coding, pieces) == contents


@given(st.binary(max_size=200), st.sampled_from(CODINGS), st.lists(st.integers(0, 99), max_size=4))
def test_any_contents_survive_any_cuts(contents: bytes, coding: object, cuts: list[int]) -> None:
    name, encode = coding  # type: ignore[misc]
    encoded = encode(contents)
    at = [0, *sorted(cut % (len(encoded) + 1) for cut in cuts), len(encoded)]
    pieces = [encoded[begin:end] for begin, end in pairwise(at)]
    assert undo(name, pieces) == contents


def kind(coding: bytes, data: bytes, limit: int = 1 << 20) -> str:
    with pytest.raises(CodingError) as error:
        undo(coding, [data], limit)
    return error.value.kind


@pytest.mark.parametrize(("coding", "encode"), CODINGS)
def test_a_stream_without_its_end_is_an_error(coding: bytes, encode: object) -> None:
    encoded: bytes = encode(b"x" * 1000)  # type: ignore[operator]
    assert kind(coding, encoded[:-1]) == "content_coding"


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        (b"gzip", b"plain text"),
        # Without the time, which would be part of the test's name.
        (b"gzip", gzip.compress(b"x", mtime=0) + b"junk"),
        (b"gzip", gzip.compress(b"x", mtime=0)[:-8] + b"\0" * 8),
        (b"deflate", zlib.compress(b"x") + b"junk"),
        (b"deflate", zlib.compress(b"x") + zlib.compress(b"x")),
        (b"deflate", b"\xff\xff\xff"),
        (b"deflate", b"x"),
        pytest.param(b"gzip", gzip.compress(b"") * (MEMBERS + 1), id="members"),
    ],
)
def test_what_is_not_what_it_says_is_an_error(coding: bytes, data: bytes) -> None:
    assert kind(coding, data) == "content_coding"


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"identity", b"", b"gzip;q=1"])
def test_other_codings_are_refused_before_any_data(coding: bytes) -> None:
    with pytest.raises(CodingError) as error:
        Decoder(coding, 1000)
    assert error.value.kind == "content_coding"


def test_an_empty_body_may_be_labelled() -> None:
    assert undo(b"gzip", []) == b""


@pytest.mark.parametrize(("coding", "encode"), CODINGS)
def test_the_limit_counts_what_comes_out(coding: bytes, encode: object) -> None:
    encoded: bytes = encode(b"\0" * 1_000_000)  # type: ignore[operator]
    assert len(undo(coding, [encoded], 1_000_000)) == 1_000_000
    assert kind(coding, encoded, 999_999) == "body_size"


def test_a_bomb_makes_no_more_than_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    decoder = Decoder(b"gzip", 1000)
    with pytest.raises(CodingError, match="body_size"):
        decoder.feed(bomb)
    assert decoder._left == -1


# --- places in a document -----------------------------------------------------------------------


def test_positions_are_counted_in_characters_from_one() -> None:
    text = "é\nab\n".encode()
    assert bodies.position(text, 0) == "line 1, column 1"
    assert bodies.position(text, 2) == "line 1, column 2"
    assert bodies.position(text, 3) == "line 2, column 1"
    assert bodies.position(text, len(text)) == "line 3, column 1"
