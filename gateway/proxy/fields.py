"""Header fields of requests and answers that pass through.

`headers` has the rules; here they are asked once per name, or per sequence of names, and
remembered, since in most messages no field's fate hangs on another one. Where one's does
(`Connection` names it, say), they are asked about the whole message.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from itertools import compress
from operator import itemgetter
from typing import NamedTuple, TypeVar

from aiohttp import web

from gateway import headers
from gateway.batch import Headers, RawHeaders, Trace
from gateway.reception import Manners
from gateway.upstream import checked, encode

KNOWN = 1024
"""Most names, and most sets of our own fields, to remember: strangers choose them."""
LAYOUTS = 128
"""Most sequences of names to remember; a backend has few, and one that has many may have long
ones."""
LONGEST_NAME = 255
"""Of a host whose fields are remembered; DNS knows no longer one."""

_Named = TypeVar("_Named", bound=Hashable)
_Fate = TypeVar("_Fate")


class Upward:
    """A request's fields on their way up, as they stand in its head."""

    def __init__(self, manners: Manners, *, overrides: bool) -> None:
        self._manners = manners
        self._overrides = overrides
        self._beginnings = {
            (trusted, traced): _Known(partial(self._beginning, trusted, traced)).__getitem__
            for trusted in (False, True)
            for traced in (False, True)
        }
        self._heard = _Known(_is_heard).__getitem__
        self._usual = lru_cache(KNOWN)(self._managed)

    def fields(
        self, request: web.BaseRequest, trace: Trace | None, upgrade: bool, hops: int | None
    ) -> str:
        """Raises ValueError for one that must not be sent."""
        trusted = self._manners.proxies.trusted(request.remote)
        written, (host, *ours) = self._written(request, trusted)
        named = "Connection" in request.headers and _names_others(request)
        if upgrade or named or hops is not None:
            outer = headers.text(request.raw_headers)
            fields = self._forward(outer, written, trusted, upgrade, hops)
            return encode(fields if trace is None else headers.untraced(fields))
        beginning_of = self._beginnings[trusted, trace is not None]
        kept = [
            beginning + value
            for name, value in request.raw_headers
            if (beginning := beginning_of(name))
        ]
        return checked([host, *kept, *ours])

    def _beginning(self, trusted: bool, traced: bool, raw: bytes) -> bytes:
        """How a field of this name goes up: `Name: `, or nothing if it does not."""
        field = (raw.decode("latin-1"), "")
        written, _ = self._managed("gateway", "peer", False, "1.1")
        goes = self._forward((field,), written, trusted, False, None)
        if len(goes) == len(written) or (traced and not headers.untraced((field,))):
            return b""
        return encode((field,)).removesuffix("\r\n").encode("latin-1")

    def _written(
        self, request: web.BaseRequest, trusted: bool
    ) -> tuple[Headers, tuple[bytes, ...]]:
        """The gateway's own fields, and the same as lines. They are those of all of a client's
        requests, unless a proxy before us has said something."""
        to, host = request.raw_path, request.headers.get("Host") or ""
        if to[0] != "/":
            host = _authority(to) or host
        version = "1.1" if request.version >= (1, 1) else "1.0"
        if trusted or "Via" in request.headers:
            said = tuple([field for field in request.raw_headers if self._heard(field[0])])
            peer, secure = request.remote, request.secure
            return self._managed(host, peer, secure, version, headers.text(said), trusted)
        managed = self._usual if len(host) <= LONGEST_NAME else self._managed
        return managed(host, request.remote, request.secure, version)

    def _managed(
        self,
        host: str,
        peer: str | None,
        secure: bool,
        version: str,
        said: Headers = (),
        trusted: bool = False,
    ) -> tuple[Headers, tuple[bytes, ...]]:
        fields = headers.managed(
            headers.by_name((("Host", host), *said)),
            host=self._manners.host,
            authority=self._manners.authority,
            peer=peer,
            trusted=trusted,
            scheme="https" if secure else "http",
            via=self._manners.name,
            version=version,
            bulk=False,
        )
        return fields, tuple([f"{name}: {value}".encode("latin-1") for name, value in fields])

    def _forward(
        self, outer: Headers, written: Headers, trusted: bool, upgrade: bool, hops: int | None
    ) -> Headers:
        return headers.forward_request(
            outer,
            written,
            self._manners.policy,
            trusted=trusted,
            overrides=self._overrides,
            upgrade=upgrade,
            hops=hops,
        )


def _is_heard(name: bytes) -> bool:
    """Whether the gateway's own fields hang on what this one says."""
    return headers.normal(name.decode("latin-1")) in headers.HEARD


class Downward:
    """An answer's fields on their way down."""

    def __init__(self, name: str) -> None:
        self._via = f"1.1 {name}".encode("latin-1")
        self._added = ((b"Via", self._via),)
        self._layout = _Known(_layout, LAYOUTS).__getitem__

    def fields(self, raw: RawHeaders) -> tuple[RawHeaders, bool]:
        """The fields, and whether a Content-Length is among them."""
        layout = self._layout(tuple(map(_name, raw)))
        for place in layout.connections:
            if raw[place][1].lower() not in _NAMING_NOBODY:
                return headers.forward_response(raw, via=self._via), layout.declares
        return (*compress(raw, layout.kept), *self._added), layout.declares

    def switching(self, raw: RawHeaders) -> RawHeaders:
        """Those of a 101."""
        return headers.forward_response(raw, via=self._via, upgrade=True)


class _Layout(NamedTuple):
    """What the names of an answer's fields tell, as long as `Connection` names nobody. A backend
    has few layouts."""

    kept: tuple[bool, ...]
    """Whether the field at that place goes down."""
    connections: tuple[int, ...]
    """The places of `Connection`."""
    declares: bool
    """There is a Content-Length."""


def _layout(names: tuple[bytes, ...]) -> _Layout:
    lower = [name.lower() for name in names]
    return _Layout(
        kept=tuple(bool(headers.forward_response(((name, b""),))) for name in names),
        connections=tuple(i for i, name in enumerate(lower) if name == b"connection"),
        declares=b"content-length" in lower,
    )


_name = itemgetter(0)


class _Known(dict[_Named, _Fate]):
    """What is known of names, all of it forgotten when it is too much. To be asked by its
    `__getitem__`: a subscript costs several times that."""

    def __init__(self, decide: Callable[[_Named], _Fate], most: int = KNOWN) -> None:
        super().__init__()
        self._decide = decide
        self._most = most

    def __missing__(self, name: _Named) -> _Fate:
        if len(self) >= self._most:
            self.clear()
        fate = self[name] = self._decide(name)
        return fate


_NAMING_NOBODY = frozenset({b"keep-alive", b"close", b""})
"""Values of `Connection` that speak of no other field."""


def _names_others(request: web.BaseRequest) -> bool:
    """Whether `Connection`, in whatever spelling, may speak of other fields."""
    said = request.headers.getall("Connection")
    return any(value.lower().encode("latin-1", "replace") not in _NAMING_NOBODY for value in said)


def _authority(target: str) -> str | None:
    """RFC 9112 3.2.2: a target in absolute form says it, and `Host` does not."""
    scheme, mark, rest = target.partition("://")
    return rest.partition("/")[0].partition("?")[0] if mark and scheme.isalpha() else None
