"""Combinations that cannot work. Each rule names the settings it is about: it is silent when one of
them is wrong in itself, and its mistake is reported where one of them was given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from gateway.config.settings import Listener, Settings

Broken = tuple[tuple[str, ...], str]
"""The settings involved, the one to blame first, and what is wrong."""


def broken(settings: Settings) -> Iterator[Broken]:
    yield from _listeners(settings)
    yield from _workers(settings)
    yield from _upstream(settings)
    yield from _endpoints(settings)
    yield from _bounds(settings)
    yield from _browsers(settings)


def _listeners(settings: Settings) -> Iterator[Broken]:
    if not settings.listen:
        yield ("listen",), "needs at least one address"
    for n, listener in enumerate(settings.listen):
        here = f"listen[{n}]"
        if _clash(listener, settings.ops):
            yield ("ops", here, "listen"), f"is the traffic port too ({here})"
        for m, other in enumerate(settings.listen[:n]):
            if _clash(listener, other):
                yield (here, f"listen[{m}]", "listen"), f"is the same as listen[{m}]"


def _clash(one: Listener, other: Listener) -> bool:
    if one.unix or other.unix:
        return one.unix == other.unix
    wildcards = {"0.0.0.0", "::", "*"}
    same_host = one.host == other.host or bool({one.host, other.host} & wildcards)
    return same_host and one.port == other.port != 0


def _workers(settings: Settings) -> Iterator[Broken]:
    for path, shared in (
        ("upstream.connections", settings.upstream.connections),
        ("limits.batches", settings.limits.batches),
        ("client.connections", settings.client.connections),
    ):
        if shared < settings.workers:
            yield (path, "workers"), f"must be at least workers ({settings.workers}): they share it"
    limits = settings.limits
    if limits.request_bytes <= limits.buffer_bytes < limits.request_bytes * settings.workers:
        yield (
            ("limits.buffer_bytes", "limits.request_bytes", "workers"),
            f"must be at least limits.request_bytes times workers ({settings.workers}): they share"
            " it",
        )


def _upstream(settings: Settings) -> Iterator[Broken]:
    upstream = settings.upstream
    tls = upstream.tls
    if tls.cert and not tls.key:
        yield ("upstream.tls.cert", "upstream.tls.key"), "needs upstream.tls.key"
    if tls.key and not tls.cert:
        yield ("upstream.tls.key", "upstream.tls.cert"), "needs upstream.tls.cert"
    if not upstream.url.startswith("https:"):
        for field in fields(tls):
            if getattr(tls, field.name) != field.default:
                path = f"upstream.tls.{field.name}"
                yield (path, "upstream.url"), "needs an https:// upstream.url"
    if upstream.host == "upstream" and upstream.url.startswith("unix:"):
        yield ("upstream.host", "upstream.url"), "a unix socket has no name; give one"
    if upstream.timeouts.idle > upstream.timeouts.age:
        yield (
            ("upstream.timeouts.idle", "upstream.timeouts.age"),
            "must be at most upstream.timeouts.age",
        )
    if upstream.probe.timeout > upstream.probe.interval:
        yield (
            ("upstream.probe.timeout", "upstream.probe.interval"),
            "must be at most upstream.probe.interval",
        )


def _endpoints(settings: Settings) -> Iterator[Broken]:
    seen: dict[str, int] = {}
    for n, endpoint in enumerate(settings.endpoints):
        first = seen.setdefault(endpoint.path, n)
        if first != n:
            yield (
                (f"endpoints[{n}].path", "endpoints"),
                f"never reached: endpoints[{first}] has the same path",
            )
    if not settings.endpoints and not settings.passthrough.enabled:
        yield (
            ("endpoints", "passthrough.enabled"),
            "without endpoints and pass-through there is nothing to do",
        )


def _bounds(settings: Settings) -> Iterator[Broken]:
    limits, drain = settings.limits, settings.drain
    if limits.buffer_bytes < limits.batch_buffer_bytes:
        yield (
            ("limits.buffer_bytes", "limits.batch_buffer_bytes"),
            "must be at least limits.batch_buffer_bytes",
        )
    if limits.buffer_bytes < limits.request_bytes:
        yield (
            ("limits.buffer_bytes", "limits.request_bytes"),
            "must be at least limits.request_bytes",
        )
    if drain.delay >= drain.timeout:
        yield ("drain.delay", "drain.timeout"), "must be less than drain.timeout"
    if not settings.paths.methods:
        yield ("paths.methods",), "needs at least one method"


def _browsers(settings: Settings) -> Iterator[Broken]:
    cors = settings.cors
    if cors and not cors.origins:
        yield ("cors.origins",), "needs at least one origin"
    if cors and cors.credentials and "*" in cors.origins:
        yield ("cors.credentials", "cors.origins"), "not with the origin *: browsers refuse it"
