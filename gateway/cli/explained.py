"""A plan as a person wants to see it: what is sent when, and why then; what each call carries."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import click
import msgspec

from gateway.batch import Headers
from gateway.config import Settings, did_you_mean
from gateway.errors import Refused
from gateway.explain import Explanation, Planned, explain
from gateway.reception import Reception
from gateway.telemetry.lines import ranges
from gateway.terminal import Ink, columns, printable, shortened

BODY = 300
"""Characters shown of a body with something to be filled in."""


def shown(
    settings: Settings, dialect: str, path: str, fields: Headers, body: bytes, as_json: bool
) -> int:
    """Prints the plan of a call, or why there is none."""
    reception = Reception(settings, settings.name or "bulk-gateway-<drawn>")
    try:
        found = explain(reception, dialect, path, fields, body)
    except KeyError:
        known = sorted({desk.dialect.name for desk in reception.desks})
        hint = did_you_mean(dialect, known)
        raise click.UsageError(f"the endpoints speak {', '.join(known)}{hint}") from None
    except Refused as refused:
        raise click.ClickException(f"no plan: {refused.message}") from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        click.echo("\n".join(drawn(found, Ink(sys.stdout))))
    return 0


def drawn(found: Explanation, ink: Ink) -> Iterator[str]:
    """The whole page, line by line."""
    yield f"{ink('bold', found.dialect)}  as if sent to POST {found.target}"
    for line in _summary(found):
        yield ink("dim", line)
    yield ""
    yield from _plan(found, ink)
    yield ""
    yield ink("bold", "Header fields of every subrequest")
    common = [*found.headers, ("X-Request-Id", "<id>.<#>")]
    yield from columns(common, indent=2)
    yield ""
    yield ink("bold", "Limits in force")
    limits = ((name, limit.written, limit.help) for name, limit in found.limits.items())
    yield from columns(limits, indent=2)


def _summary(found: Explanation) -> Iterator[str]:
    sent = sum(map(len, found.waves))
    total = _several(len(found.subrequests), "subrequest")
    some = f", {sent} to send" if sent < len(found.subrequests) else ""
    waves = _several(len(found.waves), "wave")
    yield f"{total}{some}, in {waves} of at most {found.limits['batch.width'].written}."
    if found.gated:
        yield "If the first answer is 401, it becomes the answer to the whole call."
    if found.delivery != tuple(range(len(found.delivery))):
        yield f"Results leave in the order {', '.join(map(str, found.delivery))}."
    yield "Nothing was sent."


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


# --- the plan ------------------------------------------------------------------------------------


def _plan(found: Explanation, ink: Ink) -> Iterator[str]:
    """A wave is what starts when the one before it has ended. Children stand below their parent."""
    rows: list[tuple[str, str, str]] = [("wave", "#", "call")]
    colours = ["bold"]
    depths: dict[int, int] = {}
    for each in found.subrequests:
        depth = depths[each.index] = depths[each.parent] + 1 if each.parent >= 0 else 0
        branch = "  " * (depth - 1) + "└ " if depth else ""
        wave = str(each.wave) if each.wave else "-"
        rows.append((wave, str(each.index), branch + _call(each)))
        colours.append("yellow" if each.unsent else "")
        for note in _notes(each, found):
            rows.append(("", "", "  " * (depth + 1) + note))
            colours.append("dim")
    widths = [max(len(row[n]) for row in rows) for n in (0, 1)]
    for (wave, number, text), colour in zip(rows, colours, strict=True):
        line = f"  {wave:>{widths[0]}}  {number:>{widths[1]}}  {printable(text)}"
        yield ink(colour, line) if colour else line


def _call(each: Planned) -> str:
    if each.target:
        return f"{each.method:<6} {each.target}"
    if each.unsent:
        return each.where
    return "an expression" if each.expressions else "a bulk call of its own"


def _notes(each: Planned, found: Explanation) -> Iterator[str]:
    if each.unsent:
        status, reason = each.unsent.status, each.unsent.reason
        yield f"not sent: {each.unsent.message} ({status} {reason})"
    yield from _identity(each)
    if not each.unsent:
        yield from _order(each, found.subrequests)
        yield from _repetition(each)
        yield from _contents(each)
        yield from _fields(each, found.headers)


def _identity(each: Planned) -> Iterator[str]:
    if name := _name(each):
        yield f"named {name}"
    if each.key is not None:
        yield f"answered under {each.key}"
    if each.quiet:
        yield "read by others, not part of the answer"


def _name(each: Planned) -> str:
    """The client's own name for it: a place or a number was made up."""
    given = each.name or ""
    return "" if given in (each.where, f"#{each.index}") else given


def _order(each: Planned, others: Sequence[Planned]) -> Iterator[str]:
    for index in each.reads.values():
        name = _name(others[index])
        yield f"reads the result of {index}{name and ', '}{name}"
    if each.needs:
        yield f"skipped if {_listed(each.needs)} fails"
    waits = set(each.follows) - set(each.reads.values())
    if waits:
        yield f"after {_listed(waits)}"
    if each.barrier:
        yield "if it fails, nothing after it is sent"


def _listed(indexes: Iterable[int]) -> str:
    return (ranges(indexes) or "").replace(" ", ", ")


def _repetition(each: Planned) -> Iterator[str]:
    for expression in each.expressions:
        yield f"works out {shortened(expression.text, BODY)}"
    if each.loops:
        elements = " and ".join(each.loops)
        yield f"once for each {elements}, at most {each.most_runs} times"
    if each.recursion:
        condition = each.recursion.when
        yield f"again for its records where {condition}, at most {each.most_runs} times"
    if each.paging:
        pages = each.paging
        yield f"page after page by {pages.parameter}, at most {pages.most_pages} pages"


def _contents(each: Planned) -> Iterator[str]:
    if each.body is None:
        return
    kind = next((value for name, value in each.headers if name.lower() == _TYPE), "")
    yield f"body of {_several(each.body.bytes, 'byte')}{kind and ', '}{kind}"
    if each.body.text:
        yield f"to be filled in: {shortened(each.body.text, BODY)}"


_TYPE = "content-type"


def _fields(each: Planned, common: Headers) -> Iterator[str]:
    """What differs from the common ones and was not told yet."""
    for name, value in each.headers:
        if (name, value) not in common and name.lower() not in (_TYPE, "x-request-id"):
            yield f"{name}: {value}"
    if each.headers:
        own = {name.lower() for name, _ in each.headers}
        yield from (f"without {name}" for name, _ in common if name.lower() not in own)
