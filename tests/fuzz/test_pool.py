"""The pool against a model of its ledger, with owners and a backend that do anything in any order.

Connections are real, sockets are not, so that every step is over when the event loop has gone
round. What only time brings (deadlines, age, rests) is tested in tests/upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.batch import Call, Failure, Reply
from gateway.config import Limits, Upstream
from gateway.upstream import Exchange
from tests.fuzz.wires import HOST, Origin, Owner, Wire, pool, turns

STOPPED = Failure("proxy_internal_response", "stopped")
METHODS = st.sampled_from(["GET", "GET", "POST", "PUT"])
SAFE_TO_REPEAT = ("GET",)


class Stream:
    """A passed-through request, and what its client saw."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.exchange: Exchange
        self.heads = 0
        self.body = b""
        self.ends: list[Failure | None] = []
        self.aborted = False

    def received(self, head: Reply | None, data: bytes, last: bool) -> None:
        assert not self.ends
        assert not self.aborted
        self.heads += head is not None
        assert self.heads == 1
        self.body += data
        if last:
            self.ends.append(None)

    def failed(self, failure: Failure) -> None:
        assert not self.ends
        assert not self.aborted
        self.ends.append(failure)


def _whole(target: str, *fields: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(target)}", *fields, "", target]
    return "\r\n".join(lines).encode()


def _chunked(target: str) -> bytes:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return f"{head}{len(target):x}\r\n{target}\r\n0\r\n\r\n".encode()


ANSWERS: dict[str, Callable[[str], bytes]] = {
    "whole": _whole,
    "chunked": _chunked,
    "last": lambda target: _whole(target, "Connection: close"),
    "hinted": lambda target: b"HTTP/1.1 103 Early Hints\r\n\r\n" + _whole(target),
    "doubled": lambda target: _whole(target) + _whole("forged"),
    "garbled": lambda target: b"\x16\x03\x01 nonsense",
    "without length": lambda target: f"HTTP/1.1 200 OK\r\n\r\n{target}".encode(),
}


class Pooling(RuleBasedStateMachine):
    """Every call has its own target, which is what the backend answers it with."""

    @initialize(connections=st.integers(1, 3), waiting=st.integers(0, 6), winds_down=st.booleans())
    def begin(self, connections: int, waiting: int, winds_down: bool) -> None:
        self.runner = asyncio.Runner()
        self.winds_down = winds_down
        """At the end another pool takes its place."""
        self.limit = connections
        self.origin = Origin(at_once=False)
        self.owners: list[Owner] = []
        self.calls: dict[str, tuple[Owner, Call]] = {}
        self.streams: list[Stream] = []
        self.closed: set[Owner] = set()
        self.rest: dict[Wire, bytes] = {}
        """What a backend has begun to say and not finished; perhaps only the end is missing."""
        self.last: dict[Wire, str] = {}
        """What was asked of those that said they will close."""
        self.faults: list[dict[str, Any]] = []
        self.runner.run(self._begin(Upstream(connections=connections, waiting=waiting)))

    async def _begin(self, upstream: Upstream) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: self.faults.append(fault))
        self.pool = pool(self.origin, upstream, Limits())
        self.owners = [Owner(self.pool), Owner(self.pool)]

    def _do(self, act: Callable[..., object], *args: object) -> None:
        """Something happens, and everything that follows from it."""

        async def happen() -> None:
            act(*args)
            await turns()

        self.runner.run(happen())

    # --- owners ----------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), methods=st.lists(METHODS, min_size=1, max_size=3))
    def submit(self, which: int, methods: list[str]) -> None:
        owner = self.owners[which]
        for method in methods:
            call = Call(method, f"/{len(self.calls)}", HOST, None if method == "GET" else b"{}")
            self.calls[call.target] = owner, call
            self._do(owner.lane.submit, call)

    @rule(which=st.integers(0, 1), how=st.sampled_from(["takes", "stops", "stops reads", "closes"]))
    def have_enough(self, which: int, how: str) -> None:
        """An owner takes what it has, stops its calls, or is done, and another one comes."""
        owner = self.owners[which]
        match how:
            case "takes":
                self._let_go(owner)
            case "stops":
                self._do(owner.lane.stop, lambda call: STOPPED)
            case "stops reads":
                self._do(owner.lane.stop, lambda call: STOPPED if call.safe else None)
            case "closes":
                self.closed.add(owner)
                self._do(owner.lane.close)
                self.owners[which] = Owner(self.pool)

    def _let_go(self, owner: Owner) -> None:
        for _, reply in owner.replies:
            owner.lane.release(reply.held)
            reply.held = 0

    @rule(method=METHODS)
    def stream(self, method: str) -> None:
        stream = Stream(Call(method, f"/stream/{len(self.streams)}", HOST))
        self.streams.append(stream)

        def opens() -> None:
            stream.exchange = self.pool.open(stream.call, stream)

        self._do(opens)

    @precondition(lambda self: self._streaming())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A client hangs up."""
        stream = data.draw(st.sampled_from(self._streaming()))
        stream.aborted = True
        self._do(stream.exchange.abort)

    # --- the backend -----------------------------------------------------------------------------

    @precondition(lambda self: self.origin.attempts)
    @rule(error=st.sampled_from([None, None, None, "connection_refused", "dns_error"]))
    def connect(self, error: str | None) -> None:
        if error is None:
            self._do(self.origin.succeed)
        else:
            self._do(self.origin.fail, error)

    @precondition(lambda self: self._open())
    @rule(
        data=st.data(), how=st.sampled_from(sorted(ANSWERS)), cut=st.sampled_from([999, 999, 1, 40])
    )
    def answer(self, data: st.DataObject, how: str, cut: int) -> None:
        """The answer to what was asked last, or the first bytes of it, or what was left of it.
        Where nothing is asked it is one that nobody waits for."""
        wire = data.draw(st.sampled_from(self._busy() or self._open()))
        self._answer(wire, ANSWERS[how], cut)

    @rule(rounds=st.integers(1, 3))
    def serve(self, rounds: int) -> None:
        """A while in which all is well."""
        for _ in range(rounds):
            self._serve()

    def _serve(self) -> bool:
        """Whether anybody wanted anything."""
        if self.origin.attempts:
            self._do(self.origin.succeed)
        elif busy := self._busy():
            self._answer(busy[0], _whole)
        else:
            return False
        return True

    def _answer(self, wire: Wire, answer: Callable[[str], bytes], cut: int = 999) -> None:
        asked, call = self._asked(wire), wire.connection.call
        said = self.rest.pop(wire, None)
        if said == b"":
            self._do(wire.end)
            return
        said = said or answer(asked)
        if cut < len(said):
            self.rest[wire] = said[cut:]
        elif b"close" in said:
            self.last[wire] = asked
        self._do(wire.say, said[:cut])
        if wire.connection.call is call:
            self.rest.setdefault(wire, b"")  # the end is all that is missing
        else:
            # What came later would be the next answer: HTTP/1.1 cannot tell.
            self.rest.pop(wire, None)

    @precondition(lambda self: self._open())
    @rule(data=st.data(), clean=st.booleans())
    def hang_up(self, data: st.DataObject, clean: bool) -> None:
        wire = data.draw(st.sampled_from([*self._busy(), *self._open()]))
        self._do(wire.end if clean else wire.reset)

    def _open(self) -> list[Wire]:
        return [wire for wire in self.origin.wires if not wire.closing]

    def _busy(self) -> list[Wire]:
        return [wire for wire in self._open() if wire.connection.lane is not None]

    def _asked(self, wire: Wire) -> str:
        targets = wire.targets
        return targets[-1] if targets else "/unasked"

    def _streaming(self) -> list[Stream]:
        return [stream for stream in self.streams if not (stream.ends or stream.aborted)]

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def nothing_goes_wrong_in_secret(self) -> None:
        assert not self.faults

    @invariant()
    def connections_are_bounded_and_used(self) -> None:
        connections = self.pool.connections
        assert len(connections) + self.pool.connecting <= self.limit
        assert {*self.pool.idle} == {c for c in connections if c.lane is None}
        assert all(connection.alive for connection in connections)
        assert {w.connection for w in self._open()} == connections | self.pool.detached
        waiting = self.pool.waiting + len(self.pool._again)
        assert not waiting or self.pool.busy or self.pool.connecting
        assert not (self.pool.waiting and self.pool.idle)

    @invariant()
    def every_call_is_in_one_place(self) -> None:
        told = [call.target for owner in {*self.owners, *self.closed} for call, _ in owner.replies]
        assert len(told) == len({*told})
        carried = [c.call.target for c in self.pool.connections if c.call is not None]
        again = [call.target for _, call in self.pool._again]
        waiting = [call.target for lane in self.pool.turns for call in lane.waiting]
        places = [*carried, *again, *waiting, *told]
        assert len(places) == len({*places})
        assert len(waiting) == self.pool.waiting
        expected = {target for target, (owner, _) in self.calls.items() if owner not in self.closed}
        assert expected <= {*places}
        assert {stream.call.target for stream in self._streaming()} <= {*places}

    @invariant()
    def nothing_is_sent_twice_that_must_not_be(self) -> None:
        sent = [target for wire in self.origin.wires for target in wire.targets]
        for target, (_, call) in self.calls.items():
            assert sent.count(target) <= (2 if call.method in SAFE_TO_REPEAT else 1)

    @invariant()
    def nothing_is_asked_of_a_backend_that_wants_to_close(self) -> None:
        assert all(self._asked(wire) == last for wire, last in self.last.items())

    @invariant()
    def every_reply_is_its_calls_own(self) -> None:
        sent = {target for wire in self.origin.wires for target in wire.targets}
        for owner in self.owners:
            for call, reply in owner.replies:
                assert reply.call is call
                if reply.failure is None:
                    assert reply.body == call.target.encode()
                else:
                    assert reply.failure.sent == (call.target in sent)
        for stream in self.streams:
            assert stream.call.target.encode().startswith(stream.body)
            if stream.ends == [None]:
                assert stream.body == stream.call.target.encode()

    @invariant()
    def memory_is_what_replies_and_half_answers_hold(self) -> None:
        reading = {connection.lane for connection in self.pool.connections}
        for owner in self.owners:
            replies = sum(reply.held for _, reply in owner.replies)
            assert owner.lane.held == replies or owner.lane in reading
            assert owner.lane.held >= replies
        assert self.pool.memory.held == sum(owner.lane.held for owner in self.owners)

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            try:
                self._all_is_well()
            finally:
                self.runner.close()

    def _all_is_well(self) -> None:
        """A backend that answers everything: then everybody has heard, and nothing is left."""
        if self.winds_down:
            self._do(self.pool.wind_down)
        most = 3 * (len(self.calls) + len(self.streams) + self.limit)
        assert any(not self._serve() for _ in range(most + 1))
        self.every_call_is_in_one_place()
        for owner in self.owners:
            assert len(owner.replies) == sum(o is owner for o, _ in self.calls.values())
            self._let_go(owner)
        assert not self._streaming()
        assert self.pool.memory.held == 0
        self.runner.run(self.pool.close())
        assert not self.pool.connections | self.pool.detached
        assert not self.pool.connecting
        assert not self._open()


TestPooling = Pooling.TestCase
