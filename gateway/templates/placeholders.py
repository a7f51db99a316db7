"""Placeholders of Truto: `{{path}}`, `{{path:cast}}`, `{{a|b:cast}}`, `{{path?:default:cast}}`.

The grammar is that of npm's `@truto/replace-placeholders`, with which tests compare this. It
differs on purpose where that would be unsafe or would lose digits:

- one pass: what is put in is not scanned again, and `$&` in it means nothing;
- a path finds members, elements and an array's `length`, never what JavaScript objects inherit;
- regular expressions as paths (`/a?/`), empty paths and unknown casts are mistakes of the
  template, found before anything runs;
- numbers stay as they are written: a long id keeps its digits, `1.10` its zero.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from gateway.errors import Unresolved
from gateway.templates import values
from gateway.templates.allowance import Allowance
from gateway.templates.scope import BadPlaceholder, Layer, Path, path

# --- reading a template --------------------------------------------------------------------------

_BLANKS = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""JavaScript's white space."""

_PLACEHOLDER = re.compile(r"\{\{(?!\{)([\w\-./|:?" + _BLANKS + r"]++)\}\}", re.ASCII)
"""No brace can stand inside, so however a text is made, it is read once; of a run of braces only
the last two are tried."""
_PLAIN = re.compile(r"[A-Za-z_]\w*+(?:\.[A-Za-z_]\w*+)*+", re.ASCII)
"""Inside of one that is a path of names and nothing else."""
_CAST = re.compile(r":(?=[\w" + _BLANKS + "])", re.ASCII)

CASTS = frozenset(
    {"str", "int", "num", "bool", "json", "any", "null", "undefined", "ignore-empty-str"}
)


class Placeholder(msgspec.Struct, frozen=True):
    source: str
    """As it stands in the template."""
    choices: tuple[tuple[Path, str], ...]
    """The first path that leads anywhere holds."""
    default: tuple[str, str] | None
    missing: Literal["kept", "undefined", "null"]
    """What it becomes when nothing is found: itself, nothing, or null."""
    ignores_empty: bool
    """An empty text counts as not found."""


Parts = tuple[str | Placeholder, ...]


_ANOTHER = 4
"""Steps that another choice, way or cast costs, in the time that reading it takes."""


class Meter:
    """How much of one batch's placeholders is still read: each step of a path costs something
    when it is read, and again in every run. So does each value that stands beside them, and each
    byte around them once for every level of nesting."""

    __slots__ = ("_bytes", "_left", "_most", "_most_bytes", "_most_values", "_values")

    def __init__(
        self, most: int = 5_000, values: int = 20_000, bytes: int = 16 * 1024 * 1024
    ) -> None:
        self._left = self._most = most
        self._values = self._most_values = values
        self._bytes = self._most_bytes = bytes

    def read(self, inside: str) -> None:
        self._left -= 1 + inside.count(".") + _ANOTHER * sum(map(inside.count, ("|", " ", ":")))
        if self._left < 0:
            raise BadPlaceholder(f"more than {self._most} steps in all placeholders together")

    def look(self, raw: bytes) -> None:
        """A value with placeholders in it may be taken apart; if there are that many commas, not
        even to see how many values they part."""
        self._bytes -= len(raw)
        if self._bytes < 0:
            raise BadPlaceholder(f"more than {self._most_bytes} bytes around it, level by level")
        if raw.count(b",") > 5 * self._most_values:
            self.apart(self._most_values + 1)

    def apart(self, count: int) -> None:
        """An array or an object with placeholders in it is taken apart."""
        self._values -= count
        if self._values < 0:
            raise BadPlaceholder(f"more than {self._most_values} values around it")


def parts(text: str, meter: Meter) -> Parts:
    """A text as what stands between placeholders, and these. Raises BadPlaceholder."""
    found: list[str | Placeholder] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        meter.read(match[1])
        found += (text[end : match.start()], _placeholder(match[0], match[1]))
        end = match.end()
    return (*found, text[end:])


def _placeholder(source: str, inside: str) -> Placeholder:
    if _PLAIN.fullmatch(inside):
        way = Path((tuple(inside.split(".")),))
        return Placeholder(source, ((way, "str"),), None, "kept", ignores_empty=False)
    wanted, *defaults = inside.split("?:")
    choices = wanted.split("|")
    missing: Literal["kept", "undefined", "null"] = "kept"
    if any(":null" in choice for choice in choices):
        missing = "null"
    if any(":undefined" in choice for choice in choices):
        missing = "undefined"
    return Placeholder(
        source,
        tuple(map(_choice, choices)),
        _default(defaults[0]) if defaults and defaults[0] else None,
        missing,
        any(":ignore-empty-str" in choice for choice in choices),
    )


def _choice(text: str) -> tuple[Path, str]:
    words = _CAST.split(text)
    cast = words[1].strip(_BLANKS) if len(words) > 1 else "str"
    return path(words[0].strip(_BLANKS)), _cast(cast)


def _default(text: str) -> tuple[str, str]:
    words = _CAST.split(text)
    return words[0], _cast(words[1] if len(words) > 1 else "str")


def _cast(name: str) -> str:
    if name not in CASTS:
        raise BadPlaceholder("an unknown cast")
    return name


# --- casts ---------------------------------------------------------------------------------------


def _found(placeholder: Placeholder, scope: Layer, whole: bool) -> bytes | None:
    """The value of a placeholder; None when it has none."""
    for way, cast in placeholder.choices:
        node = way.find(scope)
        value = b"" if node is None else bytes(node.value)
        if value and not (placeholder.ignores_empty and value == b'""'):
            scope.allowance.make(len(value))
            return _as(value, cast, whole, scope.allowance)
    if placeholder.default is not None:
        default, cast = placeholder.default
        return _as(values.quoted(default), cast, whole, scope.allowance)
    return b"null" if placeholder.missing == "null" else None


def _as(value: bytes, cast: str, whole: bool, allowance: Allowance) -> bytes:
    """The value cast as npm's does it; what does not fit the cast stays what it was."""
    if value == b"null":
        return value
    if cast == "str":
        if values.kind(value) == "string":
            return value
        return values.quoted(_text(value, allowance, null="null"))
    if values.kind(value) == "string":
        value = values.quoted(values.text(value).strip(_BLANKS))
    match cast:
        case "int":
            return _leading(_INTEGER, value, allowance)
        case "num":
            return value if values.kind(value) == "number" else _leading(_DECIMAL, value, allowance)
        case "bool":
            return _BOOLEANS.get(value, value)
        case "json":
            return _parsed(value) if whole else value
        case "null":
            return b"null" if value == b'"null"' else value if whole else b'"null"'
    return value


_BOOLEANS = {b'"true"': b"true", b'"false"': b"false"}

_INTEGER = re.compile(r"(?P<sign>[+-]?)(?:0[xX](?P<hex>[0-9a-fA-F]{1,1000})|(?P<whole>[0-9]+))")
_DECIMAL = re.compile(
    r"(?P<sign>[+-]?)(?=\.?[0-9])(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?"
    r"(?P<power>[eE][+-]?[0-9]+)?"
)


def _leading(form: re.Pattern[str], value: bytes, allowance: Allowance) -> bytes:
    """The number that the value's text begins with, digit for digit, in JSON's spelling."""
    found = form.match(_text(value, allowance).strip(_BLANKS))
    if found is None:
        return value
    part = found.groupdict("")
    digits = str(int(part["hex"], 16)) if part.get("hex") else part["whole"].lstrip("0") or "0"
    if part.get("fraction"):
        digits += "." + part["fraction"]
    sign = "-" if part["sign"] == "-" and digits != "0" else ""
    return f"{sign}{digits}{part.get('power', '')}".encode()


def _parsed(value: bytes) -> bytes:
    if values.kind(value) != "string":
        return value
    try:
        return values.document(values.text(value).encode()) or value
    except UnicodeEncodeError:
        return value


_DEEPEST = 64


def _text(value: values.Value, allowance: Allowance, null: str = "", depth: int = 0) -> str:
    """The value as JavaScript makes a text of it. `null` is what a null inside an array becomes."""
    match values.kind(value):
        case "object":
            return "[object Object]"
        case "array":
            if depth == _DEEPEST:
                raise Unresolved("a list is nested too deeply")
            items = values.items(value)
            allowance.look(len(items))
            inner = (
                null if values.kind(item) == "null" else _text(item, allowance, null, depth + 1)
                for item in items
            )
            return ",".join(inner)
    return values.text(value)


# --- a text --------------------------------------------------------------------------------------


class Text(msgspec.Struct, frozen=True):
    """A string with placeholders in it."""

    parts: Parts

    def fill(self, scope: Layer) -> bytes | None:
        whole = self._whole()
        if whole is None:
            return values.quoted(self.said(scope))
        found = _found(whole, scope, True)
        if found is None:
            return None if whole.missing == "undefined" else values.quoted(whole.source)
        return found

    def said(self, scope: Layer) -> str:
        """The text itself."""
        return "".join(part if isinstance(part, str) else _said(part, scope) for part in self.parts)

    def sure(self, scope: Layer) -> str:
        """The text itself, where a hole would do harm. Raises Unresolved."""
        return "".join(part if isinstance(part, str) else _sure(part, scope) for part in self.parts)

    def _whole(self) -> Placeholder | None:
        """The placeholder that is all there is."""
        before, *rest = self.parts
        if len(rest) == 2 and not before and not rest[1] and isinstance(rest[0], Placeholder):
            return rest[0]
        return None


def _said(placeholder: Placeholder, scope: Layer) -> str:
    found = _found(placeholder, scope, False)
    if found is None:
        return "" if placeholder.missing == "undefined" else placeholder.source
    return _text(found, scope.allowance)


def _sure(placeholder: Placeholder, scope: Layer) -> str:
    found = _found(placeholder, scope, False)
    if found is None and placeholder.missing == "undefined":
        return ""
    if found is None or values.kind(found) in ("object", "null"):
        raise Unresolved("a placeholder finds nothing that can stand here")
    return _text(found, scope.allowance)
