"""References: found in paths and strings, filled with what was found, byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Reply
from gateway.errors import Unresolved
from gateway.templates import references
from gateway.templates.allowance import Allowance
from gateway.templates.jsonpath import parse
from gateway.templates.references import (
    LONGEST,
    MOST,
    MOST_BEGINNINGS,
    MOST_STRINGS,
    BodyTemplate,
    Hole,
    Matches,
    PathTemplate,
    Reference,
    Scan,
    properties,
    results,
    strings,
)

WHERE = "requests[1]"


def resolved(parts: list[str | Hole]) -> tuple[str | Reference, ...]:
    return tuple(
        part if isinstance(part, str) else Reference(part.name, parse(part.path)) for part in parts
    )


def scope_of(text: str, document: bytes) -> dict[str, tuple[bytes, ...]]:
    """What is kept of a result for the references in a text, all of which read `a`."""
    holes = [part for part in results(text) if isinstance(part, Hole)]
    keep = Matches(tuple(parse(hole.path) for hole in holes))
    return {"a": tuple(keep.pick(Reply(200, body=document)))}


def path(text: str, document: bytes) -> str:
    template = PathTemplate(text, WHERE, resolved(results(text)))
    return template.fill(scope_of(text, document))


def body(text: str, document: bytes) -> str:
    pieces = [
        piece if isinstance(piece, bytes) else resolved(piece)
        for piece in strings(text.encode(), results)
    ]
    said = " ".join(map(str, json.loads(text)))
    return BodyTemplate("", WHERE, tuple(pieces)).fill(scope_of(said, document))


# --- finding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/plain", ["/plain"]),
        ("/a/${result=x:$.id}/b", ["/a/", Hole("x", "$.id"), "/b"]),
        ("${result=x y:$['a}b'].c}", ["", Hole("x y", "$['a}b'].c"), ""]),
        ("${result=a:b:$.id}", ["", Hole("a:b", "$.id"), ""]),
        ("${result=a:id}${result=b:$}", ["", Hole("a", "id"), "", Hole("b", "$"), ""]),
        ('${result=x:$["q\\"}"]}', ["", Hole("x", '$["q\\"}"]'), ""]),
        ("${result=x:$}${result=y:$}", ["", Hole("x", "$"), "", Hole("y", "$"), ""]),
        ("${other=x:$.id} ${", ["${other=x:$.id} ${"]),
    ],
)
def test_references_are_found_where_they_stand(text: str, parts: list[str | Hole]) -> None:
    assert results(text) == parts


@pytest.mark.parametrize("text", ["${result=x:$.id", "${result=x}", "${result=", "${result=x:$['}"])
def test_a_reference_without_an_end_is_unresolved(text: str) -> None:
    with pytest.raises(Unresolved):
        results(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/c/{id}/s", ["/c/", Hole("", "id"), "/s"]),
        ("{company.id}", ["", Hole("company", "id"), ""]),
        ("{} { id} {a.b.c} {1}", ["{} { id} {a.b.c} {1}"]),
    ],
)
def test_the_older_form_names_a_property(text: str, parts: list[str | Hole]) -> None:
    assert properties(text) == parts


@pytest.mark.parametrize(("scan", "one"), [(results, "${result=a:$}"), (properties, "{a}")])
def test_a_text_of_very_many_references_is_not_read_to_its_end(scan: Scan, one: str) -> None:
    assert len(scan(one * MOST)) == 2 * MOST + 1
    with pytest.raises(Unresolved, match="more than 1000"):
        scan(one * (MOST + 1))


@pytest.mark.parametrize("text", ["${result=%s:$.id}", "${result=a:$['%s']}"])
def test_a_reference_ends_within_reach(text: str) -> None:
    assert len(results(text % ("a" * (LONGEST - len(text) - 1)))) == 3
    with pytest.raises(Unresolved, match="no end"):
        results(text % ("a" * LONGEST))


@pytest.mark.parametrize(
    ("scan", "member"), [(results, b'"${result=":0,'), (properties, b'"{\\u0061}":0,')]
)
def test_strings_that_only_look_like_references_are_looked_at_up_to_a_number(
    scan: Scan, member: bytes
) -> None:
    body = b"{" + member * MOST_STRINGS + b'"a":0}'
    assert list(strings(body, scan)) == [body]
    with pytest.raises(Unresolved, match="more than 10000 strings"):
        list(strings(b"{" + member + body[1:], scan))


@pytest.mark.parametrize("scan", [results, properties])
def test_a_body_of_nothing_but_beginnings_is_not_looked_through(scan: Scan) -> None:
    body = b'["%b"]' % (b"${" * (MOST_BEGINNINGS // 2))
    assert list(strings(body, scan)) == [body]
    with pytest.raises(Unresolved, match="more than 2000000 characters"):
        list(strings(b'["$",' + body[1:], scan))


def test_a_string_is_found_behind_escaped_quotes_and_backslashes() -> None:
    body = rb'["\\", "\"\\\"${result=a:$}\\", "${result=b:$}"]'
    before, first, between, second, after = strings(body, results)
    assert (before, between, after) == (rb'["\\", ', b", ", b"]")
    assert first == ['"\\"', Hole("a", "$"), "\\"]
    assert second == ["", Hole("b", "$"), ""]


PIECES = st.lists(
    st.sampled_from([*"${}=:.'\"\\/ax", "${result=", "${result=a:$.id}", "{a}", "{a.b}", "\n", "é"])
)


@pytest.mark.parametrize("scan", [results, properties])
@given(st.lists(st.tuples(PIECES, PIECES)), st.data())
def test_no_reference_in_a_body_is_passed_over_however_it_is_written(
    scan: Scan, members: list[tuple[list[str], list[str]]], data: st.DataObject
) -> None:
    def quoted(pieces: list[str]) -> str:
        escaped = data.draw(st.sets(st.sampled_from("${}=:.raelb/x")))
        written = (
            f"\\u{ord(char):04X}" if char in escaped else json.dumps(char)[1:-1]
            for char in "".join(pieces)
        )
        return f'"{"".join(written)}"'

    body = ",".join(f"{quoted(key)} : [{quoted(value)}, 1]" for key, value in members).encode()
    wanted = ["".join(value) for _, value in members]
    try:
        holes = [part for text in wanted for part in scan(text) if isinstance(part, Hole)]
    except Unresolved:
        with pytest.raises(Unresolved):
            list(strings(body, scan))
        return
    found = list(strings(body, scan))
    assert [part for piece in found for part in piece if isinstance(part, Hole)] == holes


@given(st.text("${result=x:.}'\"\\ab", max_size=60))
def test_reading_takes_any_text_and_loses_nothing(text: str) -> None:
    try:
        parts = results(text)
    except Unresolved:
        return
    assert text == "".join(
        part if isinstance(part, str) else "${result=" + f"{part.name}:{part.path}" + "}"
        for part in parts
    )


# --- filling --------------------------------------------------------------------------------------

DOCUMENT = (
    b'{"id": 9223372036854775808, "name": "a/b c", "tags": ["x", "y"], "none": null, "no": {}}'
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("/c/${result=a:$.id}/s", "/c/9223372036854775808/s"),
        ("/c/${result=a:$.name}", "/c/a%2Fb%20c"),
        ("/c?ids=${result=a:$.tags[*]}", "/c?ids=x,y"),
    ],
)
def test_in_a_path_a_match_is_one_segment(template: str, expected: str) -> None:
    assert path(template, DOCUMENT) == expected


@pytest.mark.parametrize(
    "template",
    ["/${result=a:$.tags}", "/${result=a:$.no}", "/${result=a:$.none}", "/${result=a:$.x}"],
)
def test_what_is_no_segment_leaves_a_path_unresolved(template: str) -> None:
    with pytest.raises(Unresolved):
        path(template, DOCUMENT)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('[1.10 , "${result=a:$.id}"]', "[1.10 , 9223372036854775808]"),
        ('["${result=a:$.tags}", "${result=a:$.none}"]', '[["x", "y"], null]'),
        ('["${result=a:$.tags[*]}"]', '[["x","y"]]'),
        ('["no ${result=a:$.id}!"]', '["no 9223372036854775808!"]'),
        ('["${result=a:$.tags[*]}; ${result=a:$.name}"]', '["x,y; a/b c"]'),
        ('{"${result=a:$.id}": "x"}', '{"${result=a:$.id}": "x"}'),
        ('[{"id" : "${result=a:$.id}"}]', '[{"id" : 9223372036854775808}]'),
        ('["\\u0024{result=a:$.id}"]', "[9223372036854775808]"),
        ('["${result=a:$[\\"id\\"]}"]', "[9223372036854775808]"),
    ],
)
def test_in_a_body_a_whole_string_becomes_the_match_and_no_other_byte_changes(
    template: str, expected: str
) -> None:
    assert body(template, DOCUMENT) == expected


def test_what_was_put_in_is_not_read_again() -> None:
    document = json.dumps({"id": '${result=a:$.id}"}'}).encode()
    assert json.loads(body('["x ${result=a:$.id}"]', document)) == ['x ${result=a:$.id}"}']


@given(st.text(), st.text())
def test_a_text_match_survives_in_any_string(before: str, value: str) -> None:
    before = before.replace("$", "").replace("{", "")
    pieces = ((before, Reference("a", parse("$.v"))),)
    keep = Matches((parse("$.v"),)).pick(Reply(200, body=json.dumps({"v": value}).encode()))
    if not keep:  # lone surrogates are no text that can be sent
        return
    filled = BodyTemplate("", WHERE, (b"[", *pieces, b"]")).fill({"a": keep})
    assert json.loads(filled) == [before + value if before else value]


def test_what_all_references_of_a_batch_put_in_has_a_bound() -> None:
    document = json.dumps({"x": "y" * 3_000_000}).encode()
    pieces = ((Reference("a", parse("$.x")),),)
    scope, batch = scope_of("${result=a:$.x}", document), Allowance()
    assert len(BodyTemplate("", WHERE, pieces, batch).fill(scope)) > 3_000_000
    assert len(BodyTemplate("", WHERE, pieces, batch).fill(scope)) > 3_000_000
    with pytest.raises(Unresolved, match=r"requests\[1\]: filled in, it has more"):
        BodyTemplate("", WHERE, pieces, batch).fill(scope)


def test_matches_that_become_text_one_by_one_have_a_bound() -> None:
    document = json.dumps([1] * 9_000).encode()
    assert body('["x ${result=a:$[*]}"]', document).count("1") == 9_000
    assert body('["${result=a:$[*]}", "${result=a:$[*]}"]', document).count("1") == 18_000
    with pytest.raises(Unresolved, match=r"requests\[1\]: .* too many steps"):
        body('["x ${result=a:$[*]}", "x ${result=a:$[*]}"]', document)


def test_a_result_that_is_no_json_resolves_nothing() -> None:
    with pytest.raises(Unresolved, match=r"requests\[1\]: the result"):
        path("/${result=a:$.id}", b"<html>")


def test_only_what_references_find_is_kept() -> None:
    kept = Matches((parse("$.id"), parse("$.gone"))).pick(Reply(200, body=DOCUMENT))
    assert kept == (b'{"$.id":[9223372036854775808]}',)
    assert references.Matches(()).pick(Reply(200, body=b"nope")) == ()
