"""What one set of settings makes of requests: made whole, and never changed.

When settings change, another service takes the next request. Every request keeps the one it began
with, so no two of its steps can disagree about what holds.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import cache, partial
from typing import Any

from aiohttp import web

from gateway.admission import Admission
from gateway.answer import ClientAnswer, Done
from gateway.batch import Failure
from gateway.config import Probe, Settings
from gateway.cors import Cors
from gateway.endpoint import BulkEndpoint, about
from gateway.execution import Execution, Guard, Terms
from gateway.proxy import Proxy
from gateway.quotas import Bucket, Quotas
from gateway.reception import Desk, Outer, Reception
from gateway.target import Endpoints, Pattern
from gateway.upstream import Pool


class Service:
    def __init__(
        self,
        reception: Reception,
        pool: Pool,
        execution: Execution,
        admission: Admission,
        quotas: Quotas | None,
    ) -> None:
        settings = reception.settings
        self.reception = reception
        self.pool = pool
        self.quotas = quotas
        self._execution = execution
        self._admission = admission
        self._cors = None if settings.cors is None else Cors(settings.cors)
        self._endpoints = Endpoints(
            (Pattern(desk.path), self._endpoint(desk)) for desk in reception.desks
        )
        passing = settings.passthrough
        self._proxy = Proxy(
            pool,
            reception.manners,
            execution.recorder,
            admission,
            enabled=passing.enabled,
            rules=reception.paths if passing.enforce_paths else None,
        )

    @classmethod
    def of(
        cls,
        settings: Settings,
        name: str,
        execution: Execution,
        admission: Admission,
        former: Service | None = None,
    ) -> Service:
        """Raises OSError or ValueError for settings that cannot be had.

        What they say nothing new about is taken over from the former one: warm connections, and
        what clients have left of their quotas."""
        reception = Reception(settings, name)
        if former is not None and former._agrees(settings, _piping):
            pool = former.pool
        else:
            pool = Pool(settings.upstream, settings.limits)
        limit = settings.rate_limit
        if former is not None and former._agrees(settings, _metering):
            quotas = former.quotas
        else:
            quotas = None if limit is None else Quotas(limit, reception.manners.proxies)
        return cls(reception, pool, execution, admission, quotas)

    def handle(self, request: web.BaseRequest) -> Coroutine[Any, Any, ClientAnswer]:
        """1. POST to a bulk endpoint: a bulk call.
        2. OPTIONS there: the endpoint tells what it takes, and whom `cors` lets in. A browser's
           question is the backend's to answer where `cors` leaves it to that.
        3. Everything else passes through.
        """
        if request.method in ("POST", "OPTIONS"):
            found = self._endpoints.route(request.raw_path)
            if found is not None:
                endpoint, params, path = found
                if request.method == "POST":
                    return endpoint.answer(request, path, params)
                if self._cors is not None or ASKED not in request.headers:
                    return endpoint.options(request)
        return self._proxy.answer(request)

    def begin(self, request: web.BaseRequest, done: Done) -> bool:
        """Most requests that are complete need no task of their own. `done` may be told the answer
        before this returns. False: this one needs `handle`."""
        if request.method in ("POST", "OPTIONS"):
            found = self._endpoints.route(request.raw_path)
            if found is not None:
                endpoint, params, path = found
                return request.method == "POST" and endpoint.begin(request, path, params, done)
        return self._proxy.begin(request, done)

    def _agrees(self, settings: Settings, about: Callable[[Settings], object]) -> bool:
        return about(self.reception.settings) == about(settings)

    def _endpoint(self, desk: Desk) -> BulkEndpoint:
        settings = self.reception.settings
        terms = Terms(
            width=desk.batch.width,
            flush_seconds=desk.batch.flush.time,
            flush_bytes=desk.batch.flush.bytes,
            batch_seconds=settings.limits.batch_time,
            gone_grace=settings.client.gone_grace,
            gate=desk.entry.gate,
        )
        return BulkEndpoint(
            desk,
            self.pool,
            self._execution,
            terms,
            self._guard,
            self._admission,
            self._cors,
            cache(partial(about, desk, settings)),
        )

    def _guard(self, outer: Outer) -> Guard:
        """What each call of a batch has to pass: the rules, and then what its client has left."""
        rules = self.reception.refusal
        if self.quotas is None:
            return rules
        return partial(_charged, rules, self.quotas.bucket(outer))


ASKED = "Access-Control-Request-Method"
"""What makes an OPTIONS request a browser's question, a preflight."""


def _piping(settings: Settings) -> object:
    """What a pool is made of: not how the backend is called, nor how it is asked about itself."""
    upstream = replace(settings.upstream, host="", probe=Probe())
    return upstream, settings.limits


def _metering(settings: Settings) -> object:
    return settings.rate_limit, settings.headers.trusted_proxies


def _charged(rules: Guard, bucket: Bucket, method: str, target: str) -> Failure | None:
    return rules(method, target) or bucket.refusal()
