"""What happened, one line each: a batch, a refusal, a passed request, a fault of ours, a change of
the process's state.

A line holds only fields of `lines.FIELDS`, and no control bytes. Bodies and headers never get to
this module, and the values of a query end here. What a client can cause at will is written
fifty times a minute and then counted; but a batch, and a write that found no answer, always.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Literal

import structlog

from gateway.batch import SAFE_METHODS, BatchRecord, PassRecord, RefusedRecord
from gateway.config import Log
from gateway.telemetry import lines
from gateway.telemetry.sink import Sink

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
LISTED_FROM = {"all": 0, "failed": 400, "none": 1000}
"""The setting `log.subrequests` -> the least status that it lists."""
LINES_A_MINUTE = 50
"""Of a kind. Whoever sends what is malformed makes two: requests that are none, documents that are
refused."""
SILENCED = ("aiohttp.access", "aiohttp.client", "aiohttp.server", "aiohttp.web")
"""They write bytes of requests, and tracebacks with them, for every malformed one."""


class Throttle:
    """At most so many lines of a kind in a minute."""

    def __init__(self, limit: int = LINES_A_MINUTE, clock: Callable[[], float] = time.monotonic):
        self.refused = 0
        self._limit = limit
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}

    def admit(self, kind: str) -> dict[str, int] | None:
        """None: not this one. Else a field for it, if lines were suppressed before it."""
        now = self._clock()
        began, seen = self._windows.get(kind, (now, 0))
        suppressed = 0
        if now - began >= 60:
            suppressed = max(0, seen - self._limit)
            began, seen = now, 0
        self._windows[kind] = (began, seen + 1)
        if seen >= self._limit:
            self.refused += 1
            return None
        return {"suppressed": suppressed} if suppressed else {}


class Logs:
    """The log of one process, whose lines a thread writes."""

    def __init__(
        self,
        *,
        format: Literal["auto", "json", "console"] = "auto",
        level: str = "info",
        subrequests: Literal["failed", "all", "none"] = "failed",
        sample: float = 1.0,
        fd: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.listed_from = LISTED_FROM[subrequests]
        """A batch's line lists its subrequests from this status on."""
        self.sample = sample
        """The part of passed requests that went well which get a line."""
        self._sampled = 0.0
        self._sink = Sink(fd)
        self._throttle = Throttle(clock=clock)
        self._terminal = os.isatty(fd)
        self._foreign = _Foreign(self)
        self._in_charge = False
        self._level = level
        self.set_format(format)

    @property
    def level(self) -> str:
        return self._level

    def set_format(self, format: Literal["auto", "json", "console"]) -> None:
        console = format == "console" or (format == "auto" and self._terminal)
        self._render = lines.renderer(console, colors=self._terminal)
        self._processors = (lines.shaped, lambda _, __, line: self._render(line))
        self.set_level(self._level)

    def set_level(self, level: str) -> None:
        """Raises ValueError."""
        if level not in LEVELS:
            raise ValueError(f"expected one of {', '.join(LEVELS)}")
        self._level = level
        # structlog makes a class for each level, with empty methods below it.
        self._wrapper = structlog.make_filtering_bound_logger(LEVELS[level])
        self._log = structlog.wrap_logger(
            self._sink, processors=self._processors, wrapper_class=self._wrapper
        ).bind()
        if self._in_charge:
            self._configure()

    def follow(self, wanted: Log, former: Log) -> None:
        """The settings have changed."""
        self.listed_from, self.sample = LISTED_FROM[wanted.subrequests], wanted.sample
        if wanted.level != former.level:  # else an operator's wish holds
            self.set_level(wanted.level)
        if wanted.format != former.format:
            self.set_format(wanted.format)

    def dropped(self) -> Mapping[str, float]:
        """Lines not written, by reason."""
        return {
            "queue_full": self._sink.queue_full,
            "write_failed": self._sink.write_failed,
            "rate": self._throttle.refused,
        }

    def take_over(self) -> None:
        """What is logged through structlog or the standard library comes here from now on."""
        self._in_charge = True
        self._configure()
        for name in SILENCED:
            logging.getLogger(name).disabled = True
        logging.getLogger().addHandler(self._foreign)
        atexit.register(self.close)

    def close(self) -> None:
        """Last of all, at the latest when the process exits: others still have last words."""
        if self._in_charge:
            self._in_charge = False
            atexit.unregister(self.close)
            structlog.reset_defaults()
            for name in SILENCED:
                logging.getLogger(name).disabled = False
            logging.getLogger().removeHandler(self._foreign)
        self._sink.close()

    def _configure(self) -> None:
        structlog.configure(
            processors=self._processors,
            wrapper_class=self._wrapper,
            logger_factory=lambda *_: self._sink,
        )

    # --- the process -----------------------------------------------------------------------------

    def info(self, event: str, **fields: object) -> None:
        self._log.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        self._log.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        self._log.error(event, **fields)

    def bug(self, where: str, record: BatchRecord | None = None) -> None:
        """The exception being handled: its class and its places. Its text may quote a client."""
        admitted = self._throttle.admit("bug")
        if admitted is not None:
            exc = sys.exception()
            self._log.error(
                "bug",
                reason=where,
                id=record.id if record else None,
                error=type(exc).__name__ if exc else None,
                where=lines.places(exc),
                **admitted,
            )

    # --- what clients cause ----------------------------------------------------------------------

    def batch(self, record: BatchRecord, outcome: str) -> None:
        """The one line that is not told through structlog: a batch may have one subrequest, and
        then the way there would be a tenth of what it costs."""
        level = "warning" if outcome in ("cut", "deadline") else "info"
        if LEVELS[level] < LEVELS[self._level]:
            return
        line = lines.begun(level, "batch") | {
            "id": lines.clean(record.id),
            "dialect": record.dialect,
            "endpoint": record.endpoint,
            "client": record.client,
            "status": record.status,
            "outcome": outcome,
            "ok": record.ok,
            "failed": record.failed,
            "skipped": record.skipped,
            "seconds": lines.micro(record.seconds),
            "bytes_in": record.bytes_in,
            "bytes_out": record.bytes_out,
        }
        if record.first_byte is not None:
            line["first_byte"] = lines.micro(record.first_byte)
        if record.trace is not None:
            line["trace_id"] = record.trace.id
        if record.writes_sent or record.writes_unsent or record.parts:
            line |= _subrequests(record)
        self._sink.write(self._render(line))

    def refused(self, record: RefusedRecord) -> None:
        admitted = self._throttle.admit("refused")
        if admitted is not None:
            self._log.info(
                "refused",
                id=record.id,
                trace_id=record.trace.id if record.trace else None,
                dialect=record.dialect,
                endpoint=record.endpoint,
                client=record.client,
                reason=record.reason,
                status=record.status,
                message=record.message or None,
                **admitted,
            )

    def passthrough(self, record: PassRecord) -> None:
        admitted = self._admit_passed(record)
        if admitted is None:
            return
        level = self._log.warning if record.error else self._log.info
        level(
            "request",
            id=record.id,
            trace_id=record.trace.id if record.trace else None,
            client=record.client,
            method=record.method,
            path=lines.mask_query(record.target),
            status=record.status or None,
            outcome=record.outcome,
            error=record.error or None,
            sent=None if record.outcome in ("ok", "tunnel") else record.sent,
            seconds=lines.micro(record.seconds),
            bytes_in=record.bytes_in,
            bytes_out=record.bytes_out,
            **admitted,
        )

    def malformed(self, status: int, reason: str, client: str) -> None:
        """A request that is not one, answered by the server before anybody looked at it."""
        admitted = self._throttle.admit("malformed")
        if admitted is not None:
            self._log.info("malformed", status=status, reason=reason, client=client, **admitted)

    def library(self, record: logging.LogRecord) -> None:
        admitted = self._throttle.admit(record.name)
        if admitted is not None:
            level = self._log.error if record.levelno >= logging.ERROR else self._log.warning
            kind = record.exc_info[0] if record.exc_info else None
            level(
                "library",
                logger=record.name,
                # Without arguments the text may be one that was already filled in.
                message=str(record.msg) if record.args else None,
                error=kind.__name__ if kind else None,
                where=[f"{lines.short(record.pathname)}:{record.lineno} {record.funcName}"],
                **admitted,
            )

    def _admit_passed(self, record: PassRecord) -> dict[str, int] | None:
        if record.error or record.status >= 500 or record.outcome in _LEFT_OPEN:
            return {} if _lost_write(record) else self._throttle.admit("request")
        # Every so many, rather than at random: the share is exact and nothing is drawn.
        self._sampled += self.sample
        if self._sampled < 1:
            return None
        self._sampled -= 1
        return {}


def _lost_write(record: PassRecord) -> bool:
    """It was for the backend, and its client cannot tell what came of it. What was refused never
    was: a mistake of the client's, an overload."""
    if record.method in SAFE_METHODS:
        return False
    return record.outcome in _LEFT_OPEN or bool(record.error and record.status in (502, 504))


_LEFT_OPEN = ("client_gone", "cut")
"""Outcomes of which the client did not get to see the end."""


def _subrequests(record: BatchRecord) -> dict[str, str | int]:
    """What a batch's line says of single ones."""
    sent, unsent, parts = set(record.writes_sent), set(record.writes_unsent), record.parts
    told = {
        "writes_sent": lines.ranges(sent),
        "writes_unsent": lines.ranges(unsent - sent),
        "parts": lines.listed(parts),
        "parts_left_out": max(0, len(parts) - lines.PARTS),
    }
    return {name: value for name, value in told.items() if value}


class _Foreign(logging.Handler):
    """The standard library's records, without their arguments."""

    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.WARNING)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        self._logs.library(record)
