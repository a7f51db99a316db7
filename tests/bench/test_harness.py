"""The pure parts of the benchmark suite: nothing here is timed, and nothing is started."""

from __future__ import annotations

import math

import pytest

from tests.bench.backend import SIZES, records
from tests.bench.formats import FORMATS
from tests.bench.framing import Framing
from tests.bench.plot import svg
from tests.bench.report import Report, Table, Verdict, number
from tests.bench.stats import geometric_mean, percentile
from tests.bench.workload import Workload, WrongAnswer

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n"
)


def test_a_percentile_lies_between_its_neighbours() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([7.0], 0.99) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_twice_and_half_come_out_even() -> None:
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_an_answer_ends_where_it_ends_however_it_is_cut(answer: bytes, step: int) -> None:
    framing = Framing(keep=True)
    for _ in range(2):
        framing.begin()
        pieces = [answer[start : start + step] for start in range(0, len(answer), step)]
        ends = [framing.feed(bytearray(piece), len(piece)) for piece in pieces]
        assert ends == [False] * (len(pieces) - 1) + [True]
        assert (framing.status, bytes(framing.body)) == (200, b"hello")


@pytest.mark.parametrize("length", SIZES.values())
def test_pages_have_the_size_they_claim(length: int) -> None:
    assert len(records(length)) == pytest.approx(length, abs=1)


@pytest.mark.parametrize("name", FORMATS)
def test_an_answer_with_too_few_results_is_wrong(name: str) -> None:
    empty = {"truto": b'{"result":{},"errors":{}}'}
    listed = b"[]" if name in ("sugarcrm", "pipeline", "bassmaster") else b'{"responses":[]}'
    with pytest.raises(WrongAnswer, match="0 results for 2 subrequests"):
        Workload(2).check(name, empty.get(name, listed))


def test_results_in_the_wrong_order_are_wrong() -> None:
    seen = '{"uri":"/rest/v11_3/page-200B-0ms/1","method":"GET","records":[1]}'
    answer = f'[{{"status":200,"contents":{seen}}}]'
    with pytest.raises(WrongAnswer, match="page-200B-0ms/0"):
        Workload(1).check("sugarcrm", answer.encode())


def test_a_value_that_is_not_there_keeps_no_target() -> None:
    assert Verdict("x", 0.5, most=0.6).holds
    assert not Verdict("x", 0.7, most=0.6).holds
    assert not Verdict("x", math.nan, most=0.6).holds
    assert not Verdict("x", 1.6, least=1.7).holds
    assert Verdict("x", 1.6).holds is None


def test_a_report_says_what_holds_and_what_does_not() -> None:
    report = Report({"processor": "one"}, [Verdict("a", 1.0, " ms", most=2.0)])
    report.verdicts.append(Verdict("b", 3.0, least=4.0))
    report.tables.append(Table("T", ("x", "y"), [("r", 1234.5)]))
    text = report.markdown()
    assert "| a | 1 ms | at most 2 ms | holds |" in text
    assert "| b | 3 | at least 4 | **does not hold** |" in text
    assert "| r | 1234 |" in text


def test_numbers_keep_three_digits() -> None:
    assert [number(value) for value in (0.1234, 12.34, 123.4, 0.0, math.nan)] == [
        "0.123",
        "12.3",
        "123",
        "0",
        "-",
    ]


def test_a_plot_draws_every_line() -> None:
    picture = svg("t", "x", "y", {"one": [(1.0, 2.0), (10.0, 3.0)], "<two>": [(5.0, 9.0)]})
    assert picture.count("<polyline") == 2
    assert "&lt;two&gt;" in picture
