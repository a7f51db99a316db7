"""Agendize's rules where a table says them better than a case folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import headers, target
from gateway.batch import Batch, BulkCall, Headers, Subrequest
from gateway.dialects.agendize import MOST_REFERENCES, RULES, Agendize
from gateway.errors import Refused
from gateway.headers import HeaderPolicy
from gateway.planning.graph import plan
from gateway.target import LONGEST


def parse(*requests: dict[str, Any], version: Any = "2.3", most: int = 100) -> Batch:
    body = json.dumps({"requests": requests}).encode()
    return Agendize(version).parse(BulkCall("/api/2.3/batch", "", (), body, max_subrequests=most))


def refused(*requests: dict[str, Any], most: int = 100) -> Refused:
    with pytest.raises(Refused) as caught:
        plan(parse(*requests, most=most))
    return caught.value


# --- order ----------------------------------------------------------------------------------------


def test_a_request_comes_before_its_children_and_they_before_its_sibling() -> None:
    """D-A1. The plan follows writes; reads between two writes may overlap."""
    write = {"method": "POST", "path": "/w"}
    nested = {**write, "requests": [{"path": "/r"}, {"path": "/s", "requests": [write]}]}
    steps = plan(parse(nested, write)).steps
    assert [step.subrequest.where for step in steps] == [
        "requests[0]",
        "requests[0].requests[0]",
        "requests[0].requests[1]",
        "requests[0].requests[1].requests[0]",
        "requests[1]",
    ]
    assert [sorted(step.follows) for step in steps] == [[], [0], [0], [0, 1, 2], [3]]


def test_a_reader_follows_what_it_reads_even_where_reads_overlap() -> None:
    steps = plan(parse({"path": "/a", "name": "a"}, {"path": "/b/${result=a:$.id}"})).steps
    assert steps[1].sources == (("a", 0),)
    assert steps[1].follows == (0,)


def test_children_are_counted_like_any_others() -> None:
    nested = {"path": "/a", "requests": [{"path": "/b"}, {"path": "/c"}]}
    assert refused(nested, {"path": "/d"}, most=3).reason == "too_many_subrequests"
    assert len(plan(parse(nested, {"path": "/d"}, most=4)).steps) == 4


def test_a_batch_holds_only_so_many_references() -> None:
    body = ["${result=a:$.id}"] * (MOST_REFERENCES + 1)
    mistake = refused({"path": "/a", "name": "a"}, {"path": "/b", "method": "POST", "body": body})
    assert mistake.reason == "bad_reference"
    assert mistake.message.startswith("requests[1].body: more than")


# --- credentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.0", "2.3"])
@pytest.mark.parametrize("mark", ["", "{"])
def test_an_outer_key_counts_as_part_of_the_address(version: Any, mark: str) -> None:
    tail = "?apiKey=key"
    longest = "/" + mark + "a" * (LONGEST - 1 - len(target.segment(mark)) - len(tail))
    for path in (longest, longest + "a"):
        body = json.dumps({"requests": [{"path": path}]}).encode()
        call = BulkCall("/api/2.3/batch", "apiKey=key", (), body)
        if path == longest:
            (subrequest,) = Agendize(version).parse(call).subrequests
            assert target.normalise(str(subrequest.target)) == subrequest.target
        else:
            with pytest.raises(Refused, match=r"requests\[0\]\.path: the address is longer than"):
                Agendize(version).parse(call)


NAMES = ("token", "apiKey", "Authorization")
spellings = st.sampled_from(["token", "Token", "apiKey", "APIKEY", "Authorization", "Accept"])
fields = st.dictionaries(spellings, st.just("own"), max_size=4)


@given(st.lists(fields, min_size=1, max_size=4), st.sets(st.sampled_from(NAMES)))
def test_no_part_is_ever_of_two_identities(parts: list[dict[str, str]], outer: set[str]) -> None:
    """D-A9: all outer credentials, or the part's own and none beside; whatever came before it."""
    inherited = headers.inherit(
        tuple((name, "outer") for name in sorted(outer)), RULES, HeaderPolicy(), trusted=False
    )
    try:
        batch = parse(*({"path": "/a", "headers": own} for own in parts))
    except Refused:  # two spellings of one name
        return
    for own, subrequest in zip(parts, batch.subrequests, strict=True):
        sent = _credentials(headers.merge(inherited, subrequest.headers, RULES))
        claimed = _credentials(tuple(own.items()))
        assert sent == (claimed or {(name.lower(), "outer") for name in outer})


def _credentials(pairs: Headers) -> set[tuple[str, str]]:
    return {(name.lower(), value) for name, value in pairs if name.lower() in RULES.credentials}


# --- the older format -----------------------------------------------------------------------------


def reads(*requests: dict[str, Any]) -> list[str]:
    """The places of the requests that the last one reads."""
    steps = plan(parse(*requests, version="2.0")).steps
    return [steps[source].subrequest.where for _, source in steps[-1].sources]


def test_a_property_is_the_parents_else_the_previous_results() -> None:
    """D-A10."""
    assert reads({"path": "/a"}, {"path": "/b"}, {"path": "/c/{id}"}) == ["requests[1]"]
    assert reads({"path": "/a", "requests": [{"path": "/b"}, {"path": "/c/{id}"}]}) == [
        "requests[0]"
    ]
    assert reads({"path": "/a", "requests": [{"path": "/b"}]}, {"path": "/c/{id}"}) == [
        "requests[0].requests[0]"
    ]


@pytest.mark.parametrize(
    ("path", "type"),
    [
        ("/api/2.1/scheduling/companies", "company"),
        ("/api/2.1/scheduling/companies/12", "company"),
        ("/api/2.1/scheduling/companies/12/services?x=/staff", "service"),
        ("/addresses", "address"),
        ("/staff", "staff"),
        ("/Boxes/{id}", "box"),
    ],
)
def test_a_typed_property_is_of_the_latest_result_of_that_collection(path: str, type: str) -> None:
    earlier = ({"path": path}, {"path": path}, {"path": "/other"})
    assert reads(*earlier, {"path": "/x/{%s.id}" % type}) == ["requests[1]"]  # noqa: UP031


def test_names_and_headers_mean_nothing_in_the_older_format() -> None:
    twice = {"path": "/a", "name": "a", "headers": {"token": "t"}}
    batch = parse(twice, twice, version="2.0")
    assert [part.headers for part in batch.subrequests] == [(), ()]
    assert plan(batch).steps


def test_an_update_is_a_put_in_the_older_format_alone() -> None:
    update = {"path": "/a", "method": "UPDATE"}
    assert _methods(parse(update, version="2.0").subrequests) == ["PUT"]
    assert _methods(parse(update).subrequests) == ["UPDATE"]


def _methods(subrequests: tuple[Subrequest, ...]) -> list[str]:
    return [subrequest.method for subrequest in subrequests]


# --- what it costs when nobody refers to anything -------------------------------------------------


def test_a_request_without_references_is_a_plain_one() -> None:
    """It takes the short way: no expansion, no result kept."""
    batch = parse({"path": "/a", "name": "a", "body": {"x": "$ { result"}, "method": "POST"})
    assert batch.subrequests[0].plain


def test_jsonpaths_are_parsed_up_to_a_bound() -> None:
    """Once each, however often they stand there."""
    often = [{"path": "/a", "name": "a"}]
    often += [{"path": f"/b/${{result=a:$.{'x' * 900}}}"} for _ in range(50)]
    assert len(plan(parse(*often)).steps) == 51
    many = [{"path": f"/b/${{result=a:$.{'x' * 900}{i}}}"} for i in range(50)]
    assert "characters of JSONPath" in refused(often[0], *many).message


def test_the_library_that_reads_references_is_imported_before_the_first_call() -> None:
    code = """
import sys
from gateway.dialects import create
assert "jsonpath" not in sys.modules
create("agendize", {})
assert "jsonpath" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
