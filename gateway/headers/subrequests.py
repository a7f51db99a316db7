"""The fields of a subrequest: some of the outer call's, and its own over them.

common = inherit(outer, ...) + managed(outer, ...)     once per batch
own(pairs, ...)                                        once per subrequest that brings some
kept, void = beneath(common, names of own, ...)        once per set of such names in a batch
holding(own, void) + kept                              once per call

`merge` is the last two in one, for whoever does it once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from gateway.batch import HeaderRules, Headers
from gateway.errors import BadHeader
from gateway.headers.connection import options, removed_by
from gateway.headers.names import Kind, disguised, kind, normal, odd
from gateway.headers.policy import HeaderPolicy

_INHERITED = (Kind.PLAIN, Kind.TRACE)


def inherit(outer: Headers, rules: HeaderRules, policy: HeaderPolicy, *, trusted: bool) -> Headers:
    """What every subrequest of a batch has from the outer call; `trusted` is its peer."""
    passes = _inherits(rules, policy, trusted)
    kept, names_some = [], False
    for field in outer:
        verdict = passes(field[0])
        if verdict:
            kept.append(field)
        elif verdict is None:
            names_some = True
    if names_some:
        gone = removed_by(options(outer), policy, rules.credentials)
        kept = [field for field in kept if normal(field[0]) not in gone]
    return tuple(kept)


@lru_cache(maxsize=64)  # one or two for each endpoint, and for those of former settings
def _inherits(
    rules: HeaderRules, policy: HeaderPolicy, trusted: bool
) -> Callable[[str], bool | None]:
    """Whether fields of a name are inherited, as long as `Connection` does not name them; None:
    that is `Connection`, which is not."""
    besides = {name for name in rules.also_inherited if kind(name) is Kind.OUTER}
    never = policy.never_inherit | rules.never_inherited

    @lru_cache(maxsize=256)
    def verdict(spelling: str) -> bool | None:
        name = normal(spelling)
        if name == "connection":
            return None
        if name in never or policy.poses(spelling):
            return False
        if kind(name) is Kind.IDENTITY:
            return trusted and policy.believes(spelling)
        return kind(name) in _INHERITED or name in besides

    return verdict


def untraced(fields: Headers) -> Headers:
    """Without the fields of a trace, for where the gateway writes its own."""
    return tuple([field for field in fields if not _of_a_trace(field[0])])


@lru_cache(maxsize=256)
def _of_a_trace(spelling: str) -> bool:
    return kind(normal(spelling)) is Kind.TRACE


# --- own fields ----------------------------------------------------------------------------------

MOST_OWN = 64
_LONGEST_NAME = 128
_LONGEST_VALUE = 8192
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\xa0-\xff]*")
_NOT_ITS_OWN = (Kind.NEVER, Kind.IDENTITY, Kind.TRACE)


def own(pairs: Iterable[tuple[str, str]], policy: HeaderPolicy) -> Headers:
    """A subrequest's own fields, checked. Raises BadHeader for what must not be sent.

    Left out without a word, since real clients send them and mean no harm: framing, `Host`,
    `Accept-Encoding`, and whatever only the gateway or a trusted peer may say.
    """
    kept: list[tuple[str, str]] = []
    spellings: dict[str, str] = {}
    for count, (name, value) in enumerate(pairs):
        if count == MOST_OWN:
            raise BadHeader("too_many_headers", f"more than {MOST_OWN} header fields")
        compared = _own_name(name, policy)
        if len(value) > _LONGEST_VALUE or _VALUE.fullmatch(value) is None:
            raise _bad_value(value)
        if compared is None:
            continue
        if spellings.setdefault(compared, name) != name:
            raise BadHeader("two_spellings", "two spellings of one header name")
        kept.append((name, value.strip(" \t")))
    return tuple(kept)


@lru_cache(maxsize=512)  # names come from clients
def _own_name(name: str, policy: HeaderPolicy) -> str | None:
    """The name of an own field in normal form; None: the field is left out. Raises BadHeader."""
    if len(name) > _LONGEST_NAME:
        raise BadHeader("bad_header_name", f"a header name is longer than {_LONGEST_NAME} bytes")
    if _TOKEN.fullmatch(name) is None:
        raise BadHeader("bad_header_name", "a header name is no token")
    compared = normal(name)
    if kind(compared) in _NOT_ITS_OWN or compared in policy.never_from_subrequest:
        return None
    # The backend may take `_` and `.` for `-`, and then two fields for one.
    if odd(name) and compared not in policy.odd_names:
        raise BadHeader("bad_header_name", "a header name holds `_` or `.`")
    return compared


def _bad_value(value: str) -> BadHeader:
    if len(value) > _LONGEST_VALUE:
        return BadHeader(
            "bad_header_value", f"a header value is longer than {_LONGEST_VALUE} bytes"
        )
    return BadHeader("bad_header_value", "a header value holds a character that is not allowed")


# --- both together -------------------------------------------------------------------------------


def merge(inherited: Headers, own: Headers, rules: HeaderRules) -> Headers:
    """`own` (checked) over `inherited`, which may end in managed fields: they stay last.

    It is `inherited` itself when nothing differs, so that its bytes are made once per batch.
    """
    kept, void = beneath(inherited, tuple([name for name, _ in own]), rules)
    own = holding(own, void)
    return own + kept if own else kept


def beneath(
    inherited: Headers, names: tuple[str, ...], rules: HeaderRules
) -> tuple[Headers, frozenset[str]]:
    """What stays of `inherited` beneath own fields of these names, and which of those are void
    (normal form). No value matters, so it holds for every call that brings the same names.

    It is `inherited` itself when all of it stays.
    """
    own = frozenset(map(normal, names))
    if not rules.own_allowed:
        return inherited, own
    over, void = own, frozenset[str]()
    theirs = [normal(name) for name, _ in inherited]
    if not own.isdisjoint(rules.credentials):
        # Identities never mix: of two callers, all fields of one hold and none of the other.
        if rules.precedence == "own":
            over |= rules.credentials
        elif not rules.credentials.isdisjoint(theirs):
            void = own & rules.credentials
            over -= void
    if over.isdisjoint(theirs):
        return inherited, void
    kept = zip(inherited, theirs, strict=True)
    return tuple([field for field, name in kept if name not in over]), void


def holding(own: Headers, void: frozenset[str]) -> Headers:
    """Own fields without the void ones."""
    if not void:
        return own
    return tuple([field for field in own if normal(field[0]) not in void])


# --- single fields -------------------------------------------------------------------------------

_JSON: Headers = (("Content-Type", "application/json"),)


def body_type(own: Headers) -> Headers:
    """What a subrequest with a body needs besides: its own type stands, else it is JSON."""
    return _JSON if first(own, "content-type") is None else ()


def first(headers: Headers, name: str) -> str | None:
    """The first value of a name (normal form)."""
    for spelling, value in headers:
        if normal(spelling) == name:
            return value
    return None


def by_name(headers: Headers) -> dict[str, list[str]]:
    """All values of each name (normal form), for whoever asks about more than one; without those
    that are disguised."""
    values: dict[str, list[str]] = {}
    for spelling, value in headers:
        if not disguised(spelling):
            values.setdefault(normal(spelling), []).append(value)
    return values
