"""Every setting, once: its name, type, default and help.

The loader, `bulk-gateway settings`, `config/gateway.yaml`, the JSON Schema and README's table all
read this declaration. Inside, durations are seconds, sizes bytes and percentages fractions.
"""
# ruff: noqa: RUF009 - `setting` and `required` make fields, which is what the rule asks for

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from gateway.config import notations
from gateway.config.notations import Count, Duration, Rate, Share, Size
from gateway.dialects import DIALECTS

KIB = 2**10
MIB = 2**20

Seconds = Annotated[float, Duration()]
SecondsOrZero = Annotated[float, Duration(zero=True)]
Bytes = Annotated[int, Size()]
Portion = Annotated[float, Share()]
Several = Annotated[int, Count(1)]
OrNone = Annotated[int, Count(0)]
Address = Annotated[str, notations.Address()]
FieldName = Annotated[str, notations.FIELD_NAME]
PathTemplate = Annotated[str, notations.PathPattern()]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Repeatable = Literal["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
FilePath = Annotated[str, notations.FILE_PATH]


def setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


def required(help: str, example: Any = None) -> Any:
    return field(metadata={"help": help, "example": example})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerTls:
    """A listener's own certificate; it is read again when the files change."""

    cert: FilePath = required("certificate chain, PEM")
    key: FilePath = required("its private key, PEM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where to listen: an address, or {address, tls: {cert, key}}."""

    SHORT = "address"
    """A lone text in the file stands for this setting."""

    address: Address = required("host:port, [ipv6]:port or unix:/path; port 0 takes a free one")
    tls: ListenerTls | None = setting(None, "speak TLS with this certificate")

    @property
    def unix(self) -> str | None:
        """The socket's path, or None for TCP."""
        return self.address.removeprefix("unix:") if self.address.startswith("unix:") else None

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Deadlines towards the backend."""

    connect: Seconds = setting(2.0, "to open a connection, TLS included")
    response: Seconds = setting(
        15.0, "a subrequest from sent to last byte; pass-through until the head"
    )
    stall: Seconds = setting(60.0, "pass-through without a byte either way; not for event streams")
    idle: Seconds = setting(4.0, "close a kept-alive connection; keep it below the backend's own")
    age: Seconds = setting(60.0, "renew a connection, so that changes of DNS are seen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Repeating a call, once, that cannot have had an effect."""

    methods: tuple[Repeatable, ...] = setting(
        ("GET", "HEAD", "OPTIONS"), "what may be repeated when a kept-alive connection was closed"
    )
    budget: Portion = setting(0.1, "of the calls of the last 10 s may be repeats; at least 3")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTls:
    """TLS towards an https backend."""

    ca: FilePath | None = setting(None, "trusted certificates, PEM; null: the system's")
    cert: FilePath | None = setting(None, "client certificate chain, PEM")
    key: FilePath | None = setting(None, "its private key, PEM")
    server_name: str | None = setting(None, "name to ask for and to verify; null: the URL's")
    verify: bool = setting(True, "verify the backend's certificate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Asking the backend how it is; readiness follows."""

    path: Annotated[str, notations.PATH] | None = setting(None, "GET this path; null: no probe")
    interval: Seconds = setting(5.0, "between two probes")
    timeout: Seconds = setting(2.0, "for the probe's answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The backend."""

    url: Annotated[str, notations.BackendUrl()] = setting(
        "http://127.0.0.1:8000", "http://host:port, https://host:port or unix:/path"
    )
    host: Annotated[str, notations.HOST_NAME] = setting(
        "preserve", "Host it sees: preserve (the client's), upstream (the URL's) or a name"
    )
    connections: Several = setting(64, "most connections to it; shared by all workers")
    waiting: OrNone = setting(256, "pass-through requests that wait for one, 1 s at most; shared")
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    tls: UpstreamTls = UpstreamTls()
    probe: Probe = Probe()

    @property
    def authority(self) -> str:
        """The URL's host and port, as `Host` has them."""
        if self.url.startswith("unix:"):
            return "localhost"
        url = urlsplit(self.url)
        name = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname or ""
        usual = 443 if url.scheme == "https" else 80
        return name if url.port in (None, usual) else f"{name}:{url.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush:
    """When results that are ready leave; small ones coalesce into few writes."""

    time: SecondsOrZero = setting(0.020, "at the latest this long after they were ready")
    bytes: Bytes = setting(64 * KIB, "at once when this much is ready")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How a bulk call runs; each endpoint may set its own."""

    width: Several = setting(8, "subrequests of one bulk call at a time; 1: strictly in sequence")
    flush: Flush = Flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFlush:
    """An endpoint's own `batch.flush`; null takes over `batch.flush`'s."""

    time: SecondsOrZero | None = setting(None, "this endpoint's batch.flush.time")
    bytes: Bytes | None = setting(None, "this endpoint's batch.flush.bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A path that takes bulk calls (POST), with its dialect's options beside these settings."""

    path: PathTemplate = required(
        "{prefix}: any segments; {version}: v10, v11_3; {name}: one segment",
        "/bulk",
    )
    dialect: str = required("the format spoken there; its options stand beside it", "sugarcrm")
    width: Several | None = setting(None, "this endpoint's batch.width")
    flush: OwnFlush = OwnFlush()
    gate: bool | None = setting(
        None, "a first answer 401 becomes the whole one; null: as the dialect does"
    )
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"derived": True})
    """The dialect's own, checked; written beside `path` in the file."""


def _endpoint(path: str, dialect: str, **options: Any) -> Endpoint:
    return Endpoint(path=path, dialect=dialect, options=options)


ENDPOINTS = tuple(
    endpoint
    for endpoint in (
        _endpoint("/api/2.3/batch", "agendize"),
        _endpoint("/api/2.0/batch", "agendize", version="2.0"),
        _endpoint("/batch-request", "truto"),
        _endpoint("{prefix}/{version}/bulk", "sugarcrm"),
        _endpoint("{prefix}/rest/bulk", "sugarcrm"),
        _endpoint("/bulk", "sugarcrm"),
        _endpoint("{prefix}/rest/{api}/{major}/batch", "guidewire"),
        _endpoint("/batch", "guidewire"),
    )
    if endpoint.dialect in DIALECTS  # a format that is not spoken has no place by default either
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Which subrequests may run."""

    allow: tuple[PathTemplate, ...] = setting(
        (), "subrequests may reach only these paths; empty: all"
    )
    deny: tuple[PathTemplate, ...] = setting((), "not these, even if allowed")
    methods: tuple[Method, ...] = setting(
        ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"), "only these methods"
    )
    encoded_slash: Literal["auto", "keep", "refuse"] = setting(
        "auto", "%2F in a path: keep, refuse, or auto: refuse if path rules are set"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderLists:
    """Header names kept from subrequests, beyond the built-in rules; case, - _ . do not matter."""

    never_inherit: tuple[FieldName, ...] = setting(
        (), "no subrequest gets these fields from the bulk call"
    )
    never_from_subrequest: tuple[FieldName, ...] = setting(
        (), "no subrequest may bring these fields"
    )
    odd_names: tuple[FieldName, ...] = setting(
        (), "fields with _ or . in their names, allowed all the same"
    )
    trusted_proxies: tuple[Annotated[str, notations.Proxy()], ...] = setting(
        (), "peers believed about X-Forwarded-* and identity: networks, unix"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that are counted while reading. Shared ones are split among workers."""

    request_bytes: Bytes = setting(4 * MIB, "body of a bulk call")
    depth: Several = setting(64, "nesting of a bulk call's JSON")
    subrequests: Several = setting(
        100, "entries of one bulk call; loops and pages have their own bounds"
    )
    response_bytes: Bytes = setting(16 * MIB, "one subrequest's answer, decoded")
    batch_buffer_bytes: Bytes = setting(32 * MIB, "held for one bulk call")
    buffer_bytes: Bytes = setting(96 * MIB, "held for all bulk calls; shared")
    batch_time: Seconds = setting(60.0, "a whole bulk call; unfinished subrequests become 504")
    batches: Several = setting(256, "bulk calls at a time, 503 beyond; shared")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket per client; every subrequest takes a token, without one it is a 429."""

    per_second: Annotated[float, Rate()] = required(
        "tokens that come back each second; shared by all workers", 50.0
    )
    burst: Several = required("tokens a client can save up; shared", 200)
    key: FieldName = setting("address", "who a client is: address, or the name of a header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shed:
    """Marks above which new requests get 503 with Retry-After."""

    lag: Seconds | None = setting(None, "event loop lag above which new requests get 503")
    memory: Bytes | None = setting(
        None, "resident memory of a process above which new requests get 503"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Deadlines and bounds towards clients."""

    header: Seconds = setting(15.0, "to receive a request's head")
    body_stall: Seconds = setting(30.0, "most time without a byte of a request's body")
    write_stall: Seconds = setting(60.0, "most time without the client taking a byte of the answer")
    idle: Seconds = setting(75.0, "most time between two requests of a connection")
    gone_grace: SecondsOrZero = setting(
        10.0, "for writes in flight when it has gone; reads are closed at once"
    )
    connections: Several = setting(1024, "clients connected at a time; shared")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Cross-origin access to bulk endpoints; null leaves it to the backend."""

    origins: tuple[Annotated[str, notations.ORIGIN], ...] = required(
        "who may call; * for everybody", ("https://app.example",)
    )
    headers: tuple[FieldName, ...] = setting((), "request headers they may send")
    credentials: bool = setting(False, "whether cookies and credentials may come along")


@dataclass(frozen=True, slots=True, kw_only=True)
class PassThrough:
    """All requests that are no bulk calls."""

    enabled: bool = setting(True, "send other requests to the backend; otherwise they get 404")
    enforce_paths: bool = setting(False, "apply `paths` to other requests too")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is written to standard error."""

    format: Literal["auto", "json", "console"] = setting("auto", "auto: console on a terminal")
    level: Literal["debug", "info", "warning", "error"] = setting("info", "least level written")
    subrequests: Literal["failed", "all", "none"] = setting(
        "failed", "which ones a bulk call's line lists: failed, all, none"
    )
    sample: Portion = setting(
        0.0, "of passed requests that went well, the part that gets a line; the others all do"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """What SIGTERM begins: readiness falls at once."""

    delay: SecondsOrZero = setting(5.0, "new requests are still served, for balancers to notice")
    timeout: Seconds = setting(20.0, "so long after SIGTERM all has ended, `delay` included")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole file."""

    name: Annotated[str, notations.Matching("a name for Via", notations.TOKEN)] | None = setting(
        None, "in Via; null: bulk-gateway-<8 hex digits drawn at start>"
    )
    listen: tuple[Listener, ...] = setting(
        (Listener(address="0.0.0.0:8080"),),
        "an address, {address, tls: {cert, key}} or a list of them",
    )
    ops: Listener = setting(
        Listener(address="0.0.0.0:8081"), "/livez /readyz /metrics; never on the traffic port"
    )
    ops_write: Literal["off", "loopback", "all"] = setting(
        "loopback", "who may use /explain, /drain and log level: off, loopback, all"
    )
    workers: Several = setting(1, "processes; each gets its part of limits that are shared")
    upstream: Upstream = Upstream()
    endpoints: tuple[Endpoint, ...] = setting(
        ENDPOINTS, "which paths take bulk calls; POST only, first match wins"
    )
    batch: Batch = Batch()
    routes: tuple[PathTemplate, ...] = setting(
        ("/rest/{version}/{module}/{id}",), "names for metric labels; anything else is _other"
    )
    paths: Paths = Paths()
    headers: HeaderLists = HeaderLists()
    limits: Limits = Limits()
    rate_limit: RateLimit | None = setting(None, "a bucket of tokens per client; null: none")
    shed: Shed = Shed()
    client: Client = Client()
    cors: Cors | None = setting(None, "cross-origin access to bulk endpoints; null: the backend's")
    passthrough: PassThrough = PassThrough()
    log: Log = Log()
    drain: Drain = Drain()

    def batch_for(self, endpoint: Endpoint) -> Batch:
        """`batch` with the endpoint's own wishes laid over it."""
        own = endpoint.flush
        flush = Flush(
            time=self.batch.flush.time if own.time is None else own.time,
            bytes=self.batch.flush.bytes if own.bytes is None else own.bytes,
        )
        return Batch(width=endpoint.width or self.batch.width, flush=flush)
