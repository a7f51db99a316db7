"""The placeholder grammar of Truto, beside what npm's own engine made of the same templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Exhausted
from gateway.templates import trees
from gateway.templates.placeholders import Meter, parts
from gateway.templates.scope import BadPlaceholder, Layer
from gateway.templates.values import Node

CORPUS = json.loads((Path(__file__).parents[1] / "placeholders" / "corpus.json").read_text())
SCOPES = {name: Node(json.dumps(context).encode()) for name, context in CORPUS["contexts"].items()}
LOST = object()
"""What JavaScript calls undefined."""


def replaced(template: Any, scope: Layer) -> Any:
    filled = trees.fill(trees.template(json.dumps(template).encode(), Meter()), scope)
    return LOST if filled is None else json.loads(trees.encode(filled))


def same(ours: Any, theirs: Any) -> bool:
    """Equal, and alike in what is a number and what a truth value."""
    return json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True) or (
        type(ours) in (int, float) and type(theirs) in (int, float) and ours == theirs
    )


def test_the_corpus_is_of_a_size_that_means_something() -> None:
    assert len(CORPUS["cases"]) > 2000


def test_templates_give_what_npm_gives() -> None:
    """Every template of the corpus; what npm throws at, or would, is refused when it is read."""
    wrong = []
    for case in CORPUS["cases"]:
        template = case["template"]
        theirs = LOST if case.get("undefined") else case.get("result")
        try:
            ours = replaced(template, Layer(SCOPES[case["context"]]))
        except BadPlaceholder:
            if not (case.get("mistake") or case.get("throws")):
                wrong.append((template, "refused", theirs))
            continue
        if case.get("throws") or case.get("mistake"):
            wrong.append((template, ours, "a mistake"))
        elif ours is LOST or theirs is LOST:
            if ours is not theirs:
                wrong.append((template, ours, theirs))
        elif not same(ours, theirs):
            wrong.append((template, ours, theirs))
    assert wrong == []


# --- where it differs on purpose ------------------------------------------------------------------


def filled(template: Any, context: str) -> str:
    """JSON in, JSON out, to the byte."""
    scope = Layer(Node(context.encode()))
    return trees.encode(
        trees.fill(trees.template(json.dumps(template).encode(), Meter()), scope)
    ).decode()


def test_what_is_put_in_is_not_scanned_again() -> None:
    """npm would read `b` through the value of `a`, and put the text before the match for `$``."""
    assert filled("{{a}}{{b}}", '{"a": "{{b}}", "b": 1}') == '"{{b}}1"'
    assert filled({"x": "{{a:json}}"}, '{"a": {"y": "{{b}}"}, "b": 1}') == '{"x":{"y": "{{b}}"}}'
    assert filled("<{{a}}>", '{"a": "$&$`$1$$"}') == '"<$&$`$1$$>"'


def test_a_value_cannot_say_where_it_is_merged() -> None:
    template = {"$truto_merge": "{{a:json}}"}
    assert filled(template, '{"a": {"x": 1, "$truto_merge": {"y": 2}}}') == '{"x":1}'


@pytest.mark.parametrize("name", ["toString", "hasOwnProperty", "__proto__", "map"])
def test_what_javascript_objects_inherit_is_not_there(name: str) -> None:
    template = "{{a." + name + "}}"
    assert filled(template, '{"a": [1]}') == f'"{template}"'


@pytest.mark.parametrize(
    ("template", "context", "expected"),
    [
        ("{{id:int}}", '{"id": 9223372036854775807}', "9223372036854775807"),
        ("{{id:int}}", '{"id": "18446744073709551616"}', "18446744073709551616"),
        ("{{id}}", '{"id": 123456789012345678901234567890}', '"123456789012345678901234567890"'),
        ("{{id:any}}", '{"id": 1.10}', "1.10"),
        ("{{id:num}}", '{"id": "1.10"}', "1.10"),
        ("x{{id}}", '{"id": 1E400}', '"x1E400"'),
        ("{{id:num}}", '{"id": " -.5e3 kg"}', "-0.5e3"),
    ],
)
def test_numbers_stay_as_they_are_written(template: str, context: str, expected: str) -> None:
    assert filled(template, context) == expected


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{{a:integer}}", "an unknown cast"),
        ("{{missing:integer}}", "an unknown cast"),
        ("{{a?:5:x}}", "an unknown cast"),
        ("{{ }}", "a path is empty"),
        ("{{a|}}", "a path is empty"),
        ("{{/a?b/}}", "a regular expression is not supported as a path"),
        ("{{a./x/i}}", "a regular expression is not supported as a path"),
    ],
)
def test_a_mistake_is_found_before_anything_runs(template: str, what: str) -> None:
    """npm throws when the value turns up, or guesses."""
    with pytest.raises(BadPlaceholder) as caught:
        trees.template(json.dumps(template).encode(), Meter())
    assert caught.value.what == what


@pytest.mark.parametrize("one", ["{{a}}", "{{a|b}}", "{{a.b.c}}", "{{a b c}}"])
def test_only_so_much_of_a_batchs_placeholders_is_read(one: str) -> None:
    """What is read once is looked up in every run."""
    assert parts(one * 10, Meter(100))
    with pytest.raises(BadPlaceholder, match="more than 100 steps"):
        parts(one * 101, Meter(100))


def test_what_stands_around_placeholders_is_read_once_for_each_level_and_within_a_bound() -> None:
    nested = b'["' + b"a" * 90 + b'",' + b"[" * 10 + b'"{{x}}"' + b"]" * 11
    assert trees.template(nested, Meter(bytes=len(nested) + 10 * 30))
    with pytest.raises(BadPlaceholder, match="more than 300 bytes around it"):
        trees.template(b"[" * 5 + nested + b"]" * 5, Meter(bytes=300))


# --- queries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({"a": 1, "b": "x y"}, "a=1&b=x%20y"),
        ({"a": {"b": {"c": True}}}, "a[b][c]=true"),
        ({"a": [1, 2]}, "a[]=1&a[]=2"),
        ({"a": None, "b": False}, "b=false"),
        ({"a": "{{missing:undefined}}", "b": []}, ""),
        ({"a": "{{ids:json}}", "b": "{{ids}}"}, "a[]=1&a[]=2&b=1%2C2"),
        ({"a[]": "&=#", "ü": "é"}, "a%5B%5D=%26%3D%23&%C3%BC=%C3%A9"),
        ({"id": "{{big}}"}, "id=9223372036854775808"),
    ],
)
def test_a_query_is_written_as_the_vendors_sdk_writes_it(template: Any, expected: str) -> None:
    scope = Layer(Node(b'{"ids": [1, 2], "big": 9223372036854775808}'))
    tree = trees.fill(trees.template(json.dumps(template).encode(), Meter()), scope)
    assert "&".join(trees.query(tree)) == expected


# --- the scope ------------------------------------------------------------------------------------


def test_a_long_list_that_is_read_anew_for_each_text_costs_more_than_a_step() -> None:
    document = b'{"a":[' + b"1," * 200_000 + b"1]}"
    meter = Meter()
    for where in (b'{"b":%b}' % document, document):
        scope = Layer(Node(where))
        assert trees.fill(trees.template(b'"{{a.5:int}}"', meter), scope) in (
            b"1",
            b'"{{a.5:int}}"',
        )
    nested = b'{"a":' * 60 + b"[" + b"1," * 200_000 + b"1]" + b"}" * 60
    deep = "a." * 60 + "5"
    with pytest.raises(Exhausted, match="too many steps"):
        trees.fill(trees.template(b'"{{%b}}"' % deep.encode(), meter), Layer(Node(nested)))


def test_a_name_in_a_document_can_mean_something_else_for_a_while() -> None:
    scope = Layer()
    scope.bind(["args"], Node(b'{"ids": [1, 2], "other": "o"}'))
    run = Layer()
    run.bind(["args"], Node(b'{"ids": [1, 2], "other": "o"}'))
    run.bind(["args", "ids"], Node(b"2"))
    template = trees.template(b'"{{args.ids}} {{args.other}}"', Meter())
    assert trees.fill(template, scope) == b'"1,2 o"'
    assert trees.fill(template, run) == b'"2 o"'


@pytest.mark.parametrize(
    "text",
    [
        b'{ "a":1.10,"a": 2 ,"s":"\\u00e9\\/"}',
        b'["\\u007b", {"a":[ ]}, "\\u007b {"]',
        b'{"a":"\\u00e9","list":[' + b"1," * 30_000 + b"1]}",
    ],
)
def test_json_without_placeholders_stays_as_it_is_whatever_its_escapes(text: bytes) -> None:
    assert trees.template(text, Meter()) == text


def test_a_placeholder_in_escapes_is_one() -> None:
    template = trees.template(b'["\\u007b\\u007bargs.a}}", "\\u00e9"]', Meter())
    layer = Layer(Node(b'{"args":{"a":"x"}}'))
    assert trees.encode(trees.fill(template, layer)) == b'["x","\\u00e9"]'
