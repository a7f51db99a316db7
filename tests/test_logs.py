"""Log lines: their fields, what never gets into one, and that nobody waits for them."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.batch import BatchRecord, PassRecord, RefusedRecord
from gateway.telemetry import lines
from gateway.telemetry.lines import listed, mask_query, ranges
from gateway.telemetry.logs import LINES_A_MINUTE, Logs

SECRET = "Bearer-s3cr3t"


class Journal:
    """Logs into a file, and the lines of it."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.now = 0.0
        self._path = path
        self._stream = path.open("wb")
        self.logs = Logs(fd=self._stream.fileno(), clock=lambda: self.now, **settings)

    def text(self) -> str:
        self.logs.close()
        self._stream.close()
        return self._path.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


Open = Callable[..., Journal]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Open]:
    opened: list[Journal] = []

    def open_one(**settings: Any) -> Journal:
        opened.append(Journal(tmp_path / f"{len(opened)}.log", **settings))
        return opened[-1]

    yield open_one
    for one in opened:
        one.text()


def batch(**fields: Any) -> BatchRecord:
    return BatchRecord(id="b1", dialect="sugarcrm", endpoint="/bulk", client="10.0.0.1", **fields)


# --- lines and fields ----------------------------------------------------------------------------


def test_a_batch_is_one_line_of_json_with_time_level_and_event_first(journal: Open) -> None:
    log = journal()
    record = batch(ok=2, failed=1, seconds=0.1234567891, first_byte=0.01, bytes_in=10)
    record.parts = [(2, "POST", 0, "connection_refused", 0.004)]
    record.writes_sent, record.writes_unsent = [1], [2]
    log.logs.batch(record, "partial")
    (line,) = log.lines()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "batch",
        "id": "b1",
        "dialect": "sugarcrm",
        "endpoint": "/bulk",
        "client": "10.0.0.1",
        "status": 200,
        "outcome": "partial",
        "ok": 2,
        "failed": 1,
        "skipped": 0,
        "seconds": 0.123457,
        "first_byte": 0.01,
        "bytes_in": 10,
        "bytes_out": 0,
        "writes_sent": "1",
        "writes_unsent": "2",
        "parts": "2:POST:000:0.004:connection_refused",
    }


@pytest.mark.parametrize("outcome", ["cut", "deadline"])
def test_a_batch_that_did_not_end_well_is_a_warning(journal: Open, outcome: str) -> None:
    log = journal(level="warning")
    log.logs.batch(batch(), "ok")
    log.logs.batch(batch(), outcome)
    assert [line["outcome"] for line in log.lines()] == [outcome]


def test_a_step_of_many_calls_is_among_the_sent_if_one_of_them_was(journal: Open) -> None:
    log = journal()
    log.logs.batch(batch(writes_sent=[3, 3], writes_unsent=[3, 4, 4]), "partial")
    (line,) = log.lines()
    assert (line["writes_sent"], line["writes_unsent"]) == ("3", "4")


def test_a_very_long_list_of_parts_says_how_many_it_leaves_out(journal: Open) -> None:
    log = journal()
    record = batch()
    record.parts = [(index, "GET", 404, "", 0.001) for index in range(lines.PARTS + 5)]
    log.logs.batch(record, "failed")
    (line,) = log.lines()
    assert line["parts"].count(" ") == lines.PARTS - 1
    assert line["parts_left_out"] == 5


def test_a_refused_batch_says_why_and_where(journal: Open) -> None:
    log = journal()
    log.logs.refused(
        RefusedRecord(
            id="b1",
            dialect="truto",
            reason="bad_shape",
            status=400,
            message="resources[3].method: expected str",
        )
    )
    (line,) = log.lines()
    assert line["event"] == "refused"
    assert (line["reason"], line["status"]) == ("bad_shape", 400)
    assert line["message"] == "resources[3].method: expected str"


def test_a_passed_request_is_logged_without_the_values_of_its_query(journal: Open) -> None:
    log = journal()
    target = f"/a/b?token={SECRET}&{SECRET}&x=1"
    log.logs.passthrough(PassRecord(id="r1", method="GET", target=target, status=200))
    (line,) = log.lines()
    assert line["path"] == "/a/b?token=*&*&x=*"


@pytest.mark.parametrize(
    ("target", "masked"),
    [
        ("/a", "/a"),
        ("/a?", "/a?"),
        ("/a?b=c=d", "/a?b=*"),
        ("/a?b=&&c", "/a?b=*&&*"),
        ("http://user:word@host/a?b=c", "/a?b=*"),
        ("/a?u=http://host/x", "/a?u=*"),
        ("*", "*"),
    ],
)
def test_a_target_loses_what_may_be_secret(target: str, masked: str) -> None:
    assert mask_query(target) == masked


@pytest.mark.parametrize(
    ("indexes", "text"),
    [(set(), None), ({7}, "7"), ({0, 1, 2, 5, 7, 8}, "0-2 5 7-8")],
)
def test_indexes_are_written_as_ranges(indexes: set[int], text: str | None) -> None:
    assert ranges(indexes) == text


def test_parts_are_one_string() -> None:
    assert listed([]) is None
    assert listed([(0, "GET", 200, "", 0.0123), (1, "PUT", 404, "", 2.0)]) == (
        "0:GET:200:0.012 1:PUT:404:2.000"
    )


# --- what never gets into a line -----------------------------------------------------------------


def test_control_bytes_and_surrogates_never_reach_a_line(journal: Open) -> None:
    for form in ("json", "console"):
        log = journal(format=form)
        nasty = 'a\r\n{"event":"forged"}\x1b[31m\x00\ud800\u2028\x85b'
        log.logs.refused(RefusedRecord(id=nasty, dialect="d", reason="bad_json", status=400))
        text = log.text()
        assert text.count("\n") == 1
        assert "".join(text.split("\n")).isprintable()


def test_fields_that_are_not_listed_are_named_but_not_written(journal: Open) -> None:
    log = journal()
    log.logs.info("started", listen=":8080", authorization=SECRET)
    text = log.text()
    assert SECRET not in text
    assert json.loads(text)["unlisted"] == ["authorization"]


def test_text_from_outside_is_cut_to_a_bounded_length(journal: Open) -> None:
    log = journal()
    log.logs.refused(RefusedRecord(id="x" * 100_000, dialect="d", reason="r", status=400))
    assert len(log.text()) < 1000


def test_a_bug_is_logged_with_its_places_and_without_its_text(journal: Open) -> None:
    log = journal()
    try:
        int(SECRET)
    except ValueError:
        log.logs.bug("render", batch())
    text = log.text()
    line = json.loads(text)
    assert SECRET not in text
    assert (line["level"], line["error"], line["reason"], line["id"]) == (
        "error",
        "ValueError",
        "render",
        "b1",
    )
    assert line["where"][-1].startswith("tests/test_logs.py:")


def test_a_library_is_heard_without_what_it_quotes(journal: Open) -> None:
    log = journal()
    log.logs.take_over()
    library = logging.getLogger("some.library")
    library.warning("cannot reach %s", SECRET)
    library.error(f"bad header {SECRET}")
    library.info("not worth a line")
    text = log.text()
    warned, failed = map(json.loads, text.splitlines())
    assert SECRET not in text
    assert (warned["level"], warned["message"]) == ("warning", "cannot reach %s")
    assert "message" not in failed
    assert failed["logger"] == "some.library"
    assert failed["where"][0].startswith("tests/test_logs.py:")


def test_the_loggers_of_aiohttp_are_silent_until_the_log_closes(journal: Open) -> None:
    log = journal()
    log.logs.take_over()
    logging.getLogger("aiohttp.server").error("Error handling request %s", SECRET)
    assert log.text() == ""
    assert not logging.getLogger("aiohttp.server").disabled


def test_others_log_through_structlog_at_the_level_in_force(journal: Open) -> None:
    other = structlog.get_logger("elsewhere")
    log = journal(level="warning")
    log.logs.take_over()
    other.info("one")
    log.logs.set_level("info")
    other.info("two", worker=3)
    log.logs.close()
    (line,) = log.lines()
    assert (line["event"], line["worker"]) == ("two", 3)
    assert not structlog.is_configured()


def test_last_words_are_written_though_nobody_closes_the_log() -> None:
    program = (
        "import structlog; from gateway.telemetry.logs import Logs\n"
        "Logs(format='json').take_over(); structlog.get_logger().info('stopped', clean=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(done.stderr)["clean"] is True
    assert done.stdout == b""


# --- how many ------------------------------------------------------------------------------------


def test_after_fifty_lines_a_minute_of_a_kind_the_rest_are_a_number(journal: Open) -> None:
    log = journal()
    for _ in range(LINES_A_MINUTE + 50):
        log.logs.malformed(400, "bad_request", "unix")
    log.logs.refused(RefusedRecord(id="b", dialect="d", reason="bad_json", status=400))
    log.now = 61
    log.logs.malformed(400, "bad_request", "unix")
    log.logs.malformed(400, "bad_request", "unix")
    assert log.logs.dropped()["rate"] == 50
    events = log.lines()
    assert len(events) == LINES_A_MINUTE + 3
    assert events[LINES_A_MINUTE]["event"] == "refused"
    assert events[-2]["suppressed"] == 50
    assert "suppressed" not in events[-1]


def test_every_batch_has_its_line_however_many_there_are(journal: Open) -> None:
    log = journal()
    for _ in range(LINES_A_MINUTE * 3):
        log.logs.batch(batch(), "client_gone")
    assert len(log.lines()) == LINES_A_MINUTE * 3


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        ("client_gone", 0, ""),
        ("cut", 200, ""),
        ("cut", 200, "http_response_incomplete"),
        ("failed", 502, "connection_terminated"),
        ("failed", 504, "http_response_timeout"),
    ],
)
def test_every_passed_write_without_an_answer_has_its_line(
    journal: Open, outcome: str, status: int, error: str
) -> None:
    log = journal(sample=0.0)
    for method in ("GET", "POST"):
        for _ in range(LINES_A_MINUTE * 2):
            lost = PassRecord(
                id="r", method=method, target="/", outcome=outcome, status=status, error=error
            )
            log.logs.passthrough(lost)
    methods = [line["method"] for line in log.lines()]
    assert methods.count("POST") == LINES_A_MINUTE * 2
    assert methods.count("GET") == LINES_A_MINUTE


@pytest.mark.parametrize("status", [400, 408, 503, 508])
def test_refusals_are_bounded_for_writes_too(journal: Open, status: int) -> None:
    log = journal()
    for _ in range(LINES_A_MINUTE * 2):
        refused = PassRecord(
            id="r", method="POST", target="/", outcome="failed", status=status, error="refused"
        )
        log.logs.passthrough(refused)
    assert len(log.lines()) == LINES_A_MINUTE


def test_sampling_leaves_out_exactly_its_share_of_what_went_well(journal: Open) -> None:
    log = journal(sample=0.25)
    for _ in range(80):
        log.logs.passthrough(PassRecord(id="r", method="GET", target="/", status=200))
    log.logs.passthrough(PassRecord(id="r", method="GET", target="/", status=500))
    log.logs.passthrough(PassRecord(id="r", method="GET", target="/", error="connection_refused"))
    seen = [(line.get("status"), line["level"]) for line in log.lines()]
    assert seen == [(200, "info")] * 20 + [(500, "info"), (None, "warning")]


@pytest.mark.parametrize(
    ("setting", "wanted"), [("failed", [404]), ("all", [200, 404]), ("none", [])]
)
def test_the_setting_says_which_subrequests_are_listed(
    journal: Open, setting: str, wanted: list[int]
) -> None:
    log = journal(subrequests=setting)
    assert [status for status in (200, 404) if status >= log.logs.listed_from] == wanted


# --- levels and forms ----------------------------------------------------------------------------


def test_the_level_changes_while_running(journal: Open) -> None:
    log = journal(level="warning")
    log.logs.info("one")
    log.logs.set_level("info")
    log.logs.info("two")
    assert log.logs.level == "info"
    assert [line["event"] for line in log.lines()] == ["two"]


def test_an_unknown_level_is_refused_and_changes_nothing(journal: Open) -> None:
    log = journal()
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        log.logs.set_level("loud")
    assert log.logs.level == "info"


def test_a_terminal_gets_text_and_anything_else_json() -> None:
    parent, child = pty.openpty()
    logs = Logs(fd=child)
    logs.info("started", listen=":8080")
    logs.close()
    text = os.read(parent, 4096).decode()
    os.close(child)
    os.close(parent)
    assert "started" in text
    assert not text.startswith("{")
