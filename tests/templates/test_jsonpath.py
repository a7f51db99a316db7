"""JSONPath: what the library parses gives what the library finds, within bounds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonpath import JSONPathEnvironment

from gateway.errors import Unresolved
from gateway.templates.jsonpath import BadPath, Unbounded, Walker, parse

LIBRARY = JSONPathEnvironment(strict=True)


def found(path: str, document: str) -> list[str]:
    return [match.decode() for match in Walker(document.encode()).matches(parse(path))]


def test_matches_are_the_bytes_of_the_document() -> None:
    document = '{"id": 9223372036854775808, "price": 1.10, "at": { "b" : [ ] }}'
    assert found("$.id", document) == ["9223372036854775808"]
    assert found("$['price']", document) == ["1.10"]
    assert found("$.at", document) == ['{ "b" : [ ] }']


names = st.sampled_from(["a", "b", "c", ""])
documents = st.recursive(  # without strings: the library's slices take letters for elements
    st.integers(0, 9) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=25,
)
edges = st.integers(-4, 4).map(str)
selectors = st.one_of(
    names.map(lambda name: f"'{name}'"),
    st.integers(-4, 4).map(str),
    st.just("*"),
    st.tuples(edges, edges | st.just(""), st.sampled_from(["1", "-2", "0", ""])).map(":".join),
)
brackets = st.lists(selectors, min_size=1, max_size=3).map(lambda chosen: f"[{','.join(chosen)}]")
queries = st.tuples(
    st.lists(brackets, max_size=3).map("".join),
    st.sampled_from(["", ".."]),
    st.lists(brackets, min_size=1, max_size=2).map("".join),
).map(lambda parts: "$" + "".join(parts))


@given(queries, documents)
def test_the_walker_finds_what_the_library_finds(query: str, document: object) -> None:
    ours = [json.loads(match) for match in found(query, json.dumps(document))]
    assert ours == LIBRARY.findall(query, document)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["", "id", "$.", "$['a'", "$.a b", "$[01]", "$ .a |", "$.a~", "$^", "$[1e5]", "$[?@.a>1e999]"],
)
def test_what_is_no_path_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadPath):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "$[?@.a > 1]",
        "$[?length(@.a) > 1]",
        "$.a[?match(@.b, '(a*)*b')]",
        "$..a..b",
        "$." + "a" * 1000,
    ],
)
def test_what_has_no_useful_bound_is_refused(text: str) -> None:
    with pytest.raises(Unbounded):
        parse(text)


def test_a_walk_gives_up_after_ten_thousand_nodes() -> None:
    with pytest.raises(Unresolved, match="10000 nodes"):
        found("$..*", json.dumps([[i] for i in range(6000)]))


def test_a_deep_document_is_read_only_so_far() -> None:
    """Each of 500 levels holds all that is below it, so a descent would read 500 times 1 MB."""
    document = '{"a":' * 500 + f'"{"x" * 1_000_000}"' + "}" * 500
    with pytest.raises(Unresolved, match="too much"):
        found("$..b", document)


def test_paths_into_one_document_read_each_level_once() -> None:
    walker = Walker(('{"a": {"b": 1}, "pad": "%s"}' % ("x" * 2_000_000)).encode())
    assert all(walker.matches(parse("$.a.b")) == [b"1"] for _ in range(100))


def test_all_paths_into_one_document_have_one_budget() -> None:
    walker = Walker(json.dumps([{"a": 1}] * 900).encode())
    fine = [walker.matches(parse(f"$[0:{900 - i}].a")) for i in range(20)]
    assert [len(matches) for matches in fine] == list(range(900, 880, -1))
    more = (walker.matches(parse(f"$..['a','b{i}']")) for i in range(100))
    with pytest.raises(Unresolved, match="100000 steps"):
        list(more)
