"""The way of a real call as far as the first byte, and no further."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from gateway.batch import Call, Failure, Headers, Recipe, Step, Template
from gateway.config.limits import of_call
from gateway.errors import Refused
from gateway.explain.explanation import (
    Contents,
    Evaluation,
    Explanation,
    Planned,
    Recursion,
    Unsent,
)
from gateway.explain.masks import masked_fields, masked_json, masked_target
from gateway.planning import expand
from gateway.planning.nouns import Context, Plan
from gateway.planning.schedule import Schedule, Skip
from gateway.reception import Desk, Outer, Reception
from gateway.target import Pattern

ID = "<id>"
"""Stands for the call's id, which is drawn when it comes."""
PEER = "<client>"
"""Stands for the client's address. It is nobody whose word is taken."""


def explain(
    reception: Reception, dialect: str, target: str, fields: Headers, body: bytes
) -> Explanation:
    """The plan of a call to `target`, or, if that is empty, to the dialect's plainest endpoint.

    Raises `Refused` for what the endpoint itself would refuse, KeyError for a dialect that no
    endpoint speaks.
    """
    target = target or _plainest(reception, dialect)
    desk, params, path = _taker(reception, dialect, target)
    outer = Outer(target, fields, PEER, "http", reception.manners)
    outer.id = ID
    plan = desk.plan(outer, path, params, body)
    return _Explainer(reception, desk, plan, desk.context(outer)).explanation(target)


def _plainest(reception: Reception, dialect: str) -> str:
    patterns = [Pattern(desk.path) for desk in reception.desks if desk.dialect.name == dialect]
    if not patterns:
        raise KeyError(dialect)
    plainest = min(patterns, key=lambda pattern: len(pattern.names))
    path = plainest.text.replace("{prefix}", "").replace("{version}", "v10")
    return re.sub(r"[{}]", "", path)


def _taker(reception: Reception, dialect: str, target: str) -> tuple[Desk, Mapping[str, str], str]:
    if all(desk.dialect.name != dialect for desk in reception.desks):
        raise KeyError(dialect)
    found = reception.endpoints.route(target)
    if found is None or found[0].dialect.name != dialect:
        raise Refused("bad_target", "path: no endpoint of this dialect takes it")
    return found


class _Explainer:
    """One plan, being explained."""

    def __init__(self, reception: Reception, desk: Desk, plan: Plan, context: Context) -> None:
        self._reception = reception
        self._desk = desk
        self._plan = plan
        self._context = context
        self._unsent = {
            step.index: unsent for step in plan.steps if (unsent := self._refusal(step)) is not None
        }
        self._waves, skips = _waves(plan, desk.batch.width, frozenset(self._unsent))
        for skip in skips:
            self._unsent[skip.step] = _skipped(plan.steps[skip.because])
        self._wave = {index: n for n, wave in enumerate(self._waves, 1) for index in wave}

    def explanation(self, target: str) -> Explanation:
        desk, plan = self._desk, self._plan
        return Explanation(
            dialect=desk.dialect.name,
            endpoint=desk.path,
            target=masked_target(target),
            order=plan.batch.order,
            gated=plan.batch.gated if desk.entry.gate is None else desk.entry.gate,
            waves=self._waves,
            delivery=plan.delivery,
            headers=self._masked(self._context.headers),
            subrequests=tuple(self._planned(step) for step in plan.steps),
            limits=of_call(self._reception.settings, desk.batch, desk.dialect),
        )

    def _refusal(self, step: Step) -> Unsent | None:
        failure = step.subrequest.refusal
        if failure is not None:
            return _as_unsent(failure, "format")
        denied = self._denied(step)
        return None if denied is None else _as_unsent(denied, "rules")

    def _denied(self, step: Step) -> Failure | None:
        """Of an address that is still open only the method can be judged."""
        method, target = step.subrequest.method, step.subrequest.target
        if not target:
            return None
        if isinstance(target, str):
            return self._reception.refusal(method, target)
        denied = self._reception.refusal(method, "/")
        return denied if denied is not None and denied.details == "method_denied" else None

    def _planned(self, step: Step) -> Planned:
        subrequest, recipe = step.subrequest, step.subrequest.recipe or _ONE_CALL
        call = expand.sketch(step, self._context)
        sent = bool(call.target)
        return Planned(
            index=step.index,
            where=subrequest.where,
            name=subrequest.name,
            key=subrequest.key,
            parent=step.parent,
            wave=self._wave.get(step.index, 0),
            method=call.method if sent else "",
            target=masked_target(call.target),
            headers=self._masked(_sent(call)) if sent else (),
            body=_contents(subrequest.body),
            filled_in=tuple(_open(target=subrequest.target, body=subrequest.body)),
            reads=dict(step.sources),
            needs=step.needs,
            follows=step.follows,
            barrier=subrequest.barrier,
            loops=tuple(loop.text for loop in recipe.loops),
            expressions=tuple(Evaluation(e.name, e.text) for e in recipe.expressions),
            paging=recipe.paging,
            recursion=_recursion(recipe),
            most_runs=recipe.most_runs if recipe.loops or recipe.recurse else 0,
            quiet=recipe.quiet,
            unsent=self._unsent.get(step.index),
        )

    def _masked(self, fields: Headers) -> Headers:
        return masked_fields(fields, self._context.rules.credentials)


_ONE_CALL = Recipe()


def _waves(
    plan: Plan, width: int, unsent: frozenset[int]
) -> tuple[tuple[tuple[int, ...], ...], list[Skip]]:
    """What starts together when everything that runs ends together, and what never starts."""
    schedule = Schedule(plan, width)
    waves: list[tuple[int, ...]] = []
    skips: list[Skip] = []
    starts = schedule.begin()
    while starts:
        wave = []
        for index in starts:  # grows as it is read: what sends nothing ends at once
            if index in unsent or _is_group(plan.steps[index]):
                more, skipped = schedule.finish(index, failed=index in unsent)
                starts += more
                skips += skipped
            else:
                wave.append(index)
        waves += [tuple(wave)] if wave else []
        starts = [next for index in wave for next in schedule.finish(index, failed=False)[0]]
    return tuple(waves), skips


def _is_group(step: Step) -> bool:
    return not step.subrequest.target and step.subrequest.recipe is None


def _as_unsent(failure: Failure, by: Literal["format", "rules"]) -> Unsent:
    said = failure.message or failure.details.replace("_", " ")
    return Unsent(failure.code, by, failure.details, said)


def _skipped(because: Step) -> Unsent:
    reason = "onfail_abort" if because.subrequest.barrier else "dependency_failed"
    return Unsent(424, "plan", reason, f"{because.subrequest.where} fails, so this is skipped")


def _sent(call: Call) -> Headers:
    return (*call.own, *call.headers, *call.extra, ("X-Request-Id", call.request_id))


def _contents(body: bytes | Template | None) -> Contents | None:
    if body is None:
        return None
    if isinstance(body, bytes):
        return Contents(len(body))
    return Contents(len(body.text.encode()), masked_json(body.text))


def _open(**parts: str | bytes | Template | None) -> list[str]:
    return [name for name, part in parts.items() if not isinstance(part, str | bytes | None)]


def _recursion(recipe: Recipe) -> Recursion | None:
    recurse = recipe.recurse
    return None if recurse is None else Recursion(recurse.when.text, recurse.target.text)
