"""A step of many calls, as a dialogue: this came back, so these go out, and that is handed on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import (
    Call,
    Evaluate,
    Expression,
    Failure,
    HeaderRules,
    Outcome,
    Paging,
    Recipe,
    Recurse,
    Reply,
    Scope,
    Step,
    Subrequest,
    failed,
)
from gateway.errors import Exhausted, TooMany, Unresolved
from gateway.planning import expand
from gateway.planning.expand import Expansion
from gateway.planning.nouns import Context, Kept

RULES = HeaderRules(credentials=frozenset({"authorization"}))
CONTEXT = Context("b", (("Authorization", "outer"), ("Via", "1.1 gw")), RULES)
GONE = failed(Failure("connection_refused", "connection_refused"))


# --- a small format of its own --------------------------------------------------------------------


class Fill(msgspec.Struct, frozen=True):
    """`/{x}`: the name's last value, as it is written."""

    text: str

    def fill(self, scope: Scope) -> str:
        before, _, rest = self.text.partition("{")
        name, closed, after = rest.partition("}")
        if not closed:
            return self.text
        if not scope.get(name):
            raise Unresolved(f"requests[0]: nothing is called {name}")
        return before + bytes(scope[name][-1]).decode() + after


class Each(msgspec.Struct, frozen=True):
    """One run per value of a name."""

    text: str

    def scopes(self, scope: Scope) -> Iterator[Scope]:
        if self.text not in scope:
            raise Unresolved(f"requests[0]: nothing is called {self.text}")
        for value in scope[self.text]:
            yield {**scope, self.text: (value,)}


class Items(msgspec.Struct, frozen=True):
    """Keeps the elements of a page."""

    def pick(self, reply: Reply) -> Sequence[bytes]:
        if reply.failed:
            return ()
        return [json.dumps(item).encode() for item in json.loads(reply.body)["items"]]


PAGING = Paging(
    cursor=("next",), parameter="c", records=("items",), most_pages=5, most_records=1000
)


def step(index: int = 0, *, sources: tuple[tuple[str, int], ...] = (), **members: Any) -> Step:
    members.setdefault("target", "/t")
    return Step(index=index, subrequest=Subrequest(where="requests[0]", **members), sources=sources)


def begun(of: Step, context: Context = CONTEXT, **kept: list[str]) -> tuple[Expansion, list[Any]]:
    """An expansion of a step that reads these values, and what it wants first."""
    values = {i: Kept([v.encode() for v in texts]) for i, texts in enumerate(kept.values())}
    outcomes = {i: Outcome(value=value) for i, value in values.items()}
    of = msgspec.structs.replace(of, sources=tuple((name, i) for i, name in enumerate(kept)))
    expansion = expand.start(of, context, outcomes)
    return expansion, list(expansion.begin(1000))


def page(*items: Any, next: str | None = None) -> Reply:
    return Reply(200, body=json.dumps({"items": items, "next": next}).encode(), held=10)


def targets(works: Sequence[Call | Evaluate]) -> list[str]:
    return [work.target if isinstance(work, Call) else work.expression for work in works]


def handed(expansion: Expansion) -> list[str]:
    """What is handed on: bodies, or why there is none."""
    return [
        reply.failure.details if reply.failure else reply.body.decode()
        for reply in expansion.deliver()
    ]


# --- one call -------------------------------------------------------------------------------------


def test_a_plain_step_is_one_call_and_shares_the_batchs_fields() -> None:
    """Identity matters: the common fields become bytes once per batch."""
    call = expand.call(step(3), CONTEXT)
    assert (call.method, call.target, call.body, call.step) == ("GET", "/t", None, 3)
    assert call.request_id == "b.3"
    assert call.headers is CONTEXT.headers
    assert call.extra == ()


def test_bodies_without_a_type_of_their_own_are_json_and_share_their_fields() -> None:
    first, second = (expand.call(step(i, method="POST", body=b"{}"), CONTEXT) for i in (0, 1))
    assert first.headers == (("Content-Type", "application/json"), *CONTEXT.headers)
    assert first.headers is second.headers


def test_own_fields_hide_inherited_ones_and_an_own_type_stands() -> None:
    own = (("authorization", "own"), ("content-type", "text/plain"))
    call = expand.call(step(method="PUT", body=b"x", headers=own), CONTEXT)
    assert (call.own, call.headers, call.extra) == (own, (("Via", "1.1 gw"),), ())


def test_calls_whose_own_fields_differ_in_their_values_share_all_others() -> None:
    first, second = (expand.call(step(i, headers=(("X", str(i)),)), CONTEXT) for i in (0, 1))
    assert (first.own, second.own) == ((("X", "0"),), (("X", "1"),))
    assert first.headers is second.headers is CONTEXT.headers


@pytest.mark.parametrize(("runs", "key"), [(False, "k-2"), (True, "k-2-0")])
def test_an_idempotency_key_names_the_step_and_where_asked_for_the_run(
    runs: bool, key: str
) -> None:
    context = Context("b", (), HeaderRules(runs=runs), idempotency_key="k")
    assert expand.call(step(2), context).extra == (("Idempotency-Key", key),)


def test_an_own_idempotency_key_stands() -> None:
    context = Context("b", (), RULES, idempotency_key="k")
    call = expand.call(step(headers=(("idempotency-key", "mine"),)), context)
    assert call.extra == ()


def test_a_sketch_shows_what_is_still_open() -> None:
    sketch = expand.sketch(step(target=Fill("/{x}"), body=Fill("[{y}]")), CONTEXT)
    assert (sketch.target, sketch.body) == ("/{x}", b"[{y}]")


# --- references -----------------------------------------------------------------------------------


def test_what_was_read_is_filled_in() -> None:
    expansion, works = begun(step(target=Fill("/x/{a}"), body=Fill("[{a}]")), a=["1", "2"])
    assert targets(works) == ["/x/2"]
    assert works[0].body == b"[2]"
    assert works[0].request_id == "b.0"
    assert not expansion.took(works[0], Reply(201, body=b"ok"))
    assert expansion.done
    assert handed(expansion) == ["ok"]
    assert expansion.outcome() == Outcome()


def test_a_reference_to_nothing_sends_nothing() -> None:
    expansion, works = begun(step(target=Fill("/x/{a}")), a=[])
    assert works == []
    assert expansion.done
    (reply,) = expansion.deliver()
    assert reply.status == 424
    assert reply.failure is not None
    assert reply.failure.message == "requests[0]: nothing is called a"
    assert expansion.outcome().failed


def test_a_source_that_was_skipped_has_no_values() -> None:
    of = step(target=Fill("/x/{a}"), sources=(("a", 7),))
    assert list(expand.start(of, CONTEXT, {7: Outcome(failed=True)}).begin(1000)) == []


def test_a_value_cannot_lead_the_target_astray() -> None:
    """What is filled in is checked like what a client writes."""
    expansion, works = begun(step(target=Fill("/x/{a}")), a=["../admin"])
    assert works == []
    (reply,) = expansion.deliver()
    assert reply.status == 400
    assert reply.failure is not None
    assert reply.failure.details == "dot_segment"


# --- loops ----------------------------------------------------------------------------------------


def test_each_element_is_a_run_and_replies_are_handed_on_in_their_order() -> None:
    of = step(target=Fill("/{a}"), recipe=Recipe(loops=(Each("a"),)))
    expansion, works = begun(of, a=["1", "2", "3"])
    assert targets(works) == ["/1", "/2", "/3"]
    assert [work.request_id for work in works] == ["b.0", "b.0.1", "b.0.2"]
    expansion.took(works[2], Reply(200, body=b"three"))
    assert handed(expansion) == []
    expansion.took(works[0], Reply(200, body=b"one"))
    assert handed(expansion) == ["one"]
    assert not expansion.done
    expansion.took(works[1], GONE)
    assert handed(expansion) == ["connection_refused", "three"]
    assert expansion.done
    assert expansion.outcome() == Outcome(flawed=True)


def test_runs_are_not_made_before_their_turn() -> None:
    """A thousand bodies at once would be a thousand times the memory of one."""
    filled: list[str] = []

    class Noted(Fill, frozen=True):
        def fill(self, scope: Scope) -> str:
            filled.append(super().fill(scope))
            return filled[-1]

    of = step(target=Noted("/{a}"), recipe=Recipe(loops=(Each("a"),)))
    context = Context("b", (), RULES, width=2)
    expansion, works = begun(of, context, a=[str(n) for n in range(5)])
    assert filled == ["/0", "/1"]
    assert targets(expansion.took(works[1], GONE)) == ["/2"]
    works = [works[0], *works[2:]]
    assert targets(expansion.took(works[0], GONE)) == ["/3"]
    assert filled == ["/0", "/1", "/2", "/3"]


def test_runs_that_end_at_once_make_room_for_others_in_and_outside_the_batch() -> None:
    of = step(target=Fill("{a}"), recipe=Recipe(loops=(Each("a"),)))
    texts = ["not/rooted"] * 500 + ["/ok"]
    expansion, works = begun(of, Context("b", (), RULES, width=1), a=texts)
    turns = 0
    while expansion.resting:
        assert works == []
        works = list(expansion.resume())
        turns += 1
    assert turns == 500 // expand.AT_ONCE
    assert targets(works) == ["/ok"]
    assert not expansion.took(works[0], Reply(200, body=b"1"))
    assert handed(expansion) == ["not_rooted"] * 500 + ["1"]


class Full(Fill, frozen=True):
    def fill(self, scope: Scope) -> str:
        raise Exhausted("there is no room")


def test_where_there_is_no_room_for_one_run_no_other_is_begun() -> None:
    of = step(target=Full("/{a}"), recipe=Recipe(loops=(Each("a"),)))
    expansion, works = begun(of, Context("b", (), RULES, width=2), a=["1", "2", "3", "4", "5"])
    assert works == []
    assert expansion.done
    (why,) = expansion.deliver()
    assert why.failure is not None
    assert why.failure.message == "requests[0]: there is no room; 4 more runs are not begun"


def test_loops_multiply() -> None:
    recipe = Recipe(loops=(Each("a"), Each("b")))
    _, works = begun(step(target=Fill("/{b}"), recipe=recipe), a=["1", "2"], b=["x", "y"])
    assert targets(works) == ["/x", "/y", "/x", "/y"]


def test_no_elements_are_no_runs_and_no_failure() -> None:
    expansion, works = begun(step(recipe=Recipe(loops=(Each("a"),))), a=[])
    assert works == []
    assert expansion.done
    assert handed(expansion) == []
    assert expansion.outcome() == Outcome()


@pytest.mark.parametrize("count", [3, 4])
def test_more_runs_than_there_may_be_are_none(count: int) -> None:
    """Not the first few: a fan-out of writes is done or it is not."""
    of = step(target=Fill("/{a}"), recipe=Recipe(loops=(Each("a"), Each("a")), most_runs=3))
    expansion, works = begun(of, a=[str(n) for n in range(count)])
    assert len(works) == (3 if count == 3 else 0)
    assert handed(expansion) == ([] if count == 3 else ["too_many_runs"])


def test_the_runs_of_one_step_have_keys_of_their_own() -> None:
    """D-T9; and a further page is another request."""
    context = Context("b", (), HeaderRules(runs=True), idempotency_key="k")
    of = step(5, target=Fill("/{a}"), recipe=Recipe(loops=(Each("a"),), paging=PAGING))
    expansion, works = begun(of, context, a=["1", "2"])
    works += expansion.took(works[1], page(next="n"))
    assert [work.extra[0][1] for work in works] == ["k-5-0", "k-5-1", "k-5-1.1"]
    assert [work.request_id for work in works] == ["b.5", "b.5.1", "b.5.1.1"]


# --- pages ----------------------------------------------------------------------------------------


def test_a_list_is_followed_to_its_end() -> None:
    expansion, works = begun(step(target="/t?c=old&x=1", recipe=Recipe(paging=PAGING)))
    assert targets(works) == ["/t?c=old&x=1"]
    works = list(expansion.took(works[0], page(1, next="a/b")))
    assert targets(works) == ["/t?x=1&c=a%2Fb"]
    assert len(handed(expansion)) == 1
    works = list(expansion.took(works[0], page(2, next="")))
    assert works == []
    assert expansion.done
    assert len(handed(expansion)) == 1


@pytest.mark.parametrize("cursor", [7, 0, "x"])
def test_a_cursor_is_a_text_or_a_number(cursor: Any) -> None:
    expansion, works = begun(step(recipe=Recipe(paging=PAGING)))
    assert targets(expansion.took(works[0], page(next=cursor))) == [f"/t?c={cursor}"]


@pytest.mark.parametrize("cursor", [None, "", {}, [], True])
def test_whatever_else_stands_there_ends_the_list(cursor: Any) -> None:
    expansion, works = begun(step(recipe=Recipe(paging=PAGING)))
    assert not expansion.took(works[0], page(next=cursor))
    assert expansion.done


def test_a_page_that_fails_ends_its_list_and_keeps_what_there_was() -> None:
    """D-T7."""
    expansion, works = begun(step(recipe=Recipe(paging=PAGING)))
    works = list(expansion.took(works[0], page(1, next="n")))
    assert not expansion.took(works[0], GONE)
    assert [reply.status for reply in expansion.deliver()] == [200, 502]
    assert not expansion.outcome().failed


@pytest.mark.parametrize(
    ("paging", "reason"),
    [
        (msgspec.structs.replace(PAGING, most_pages=2), "too_many_pages"),
        (msgspec.structs.replace(PAGING, most_records=4), "too_many_records"),
        (PAGING, "cursor_repeats"),
    ],
)
def test_a_list_without_an_end_is_cut_with_a_word_on_it(paging: Paging, reason: str) -> None:
    expansion, works = begun(step(recipe=Recipe(paging=paging)))
    works = list(expansion.took(works[0], page(1, 2, next="n")))
    assert not expansion.took(works[0], page(3, 4, next="m" if paging is not PAGING else "n"))
    assert expansion.done
    assert handed(expansion)[2:] == [reason]
    assert not expansion.outcome().failed


def test_a_page_that_is_no_json_is_a_failure_and_its_bytes_are_let_go() -> None:
    expansion, works = begun(step(recipe=Recipe(paging=PAGING)))
    assert not expansion.took(works[0], Reply(200, body=b"<p>", held=3))
    assert handed(expansion) == ["not_json"]
    assert expansion.shed() == 3
    assert expansion.outcome().failed


# --- what others read -----------------------------------------------------------------------------


def test_what_is_kept_is_all_that_outlives_a_page() -> None:
    expansion, works = begun(step(recipe=Recipe(paging=PAGING, keep=Items(), quiet=True)))
    works = list(expansion.took(works[0], page(1, 2, next="n")))
    assert expansion.shed() == 10
    expansion.took(works[0], page(3))
    assert expansion.shed() == 10
    assert expansion.shed() == 0
    assert handed(expansion) == []
    kept = expansion.outcome().value
    assert kept.values == [b"1", b"2", b"3"]


def test_a_quiet_step_still_tells_of_its_failures() -> None:
    expansion, works = begun(step(recipe=Recipe(quiet=True)))
    expansion.took(works[0], GONE)
    assert handed(expansion) == ["connection_refused"]


def test_what_is_more_than_may_be_kept_is_not_half_kept() -> None:
    """Its readers say so; the step itself is none the worse."""
    expansion, works = begun(step(recipe=Recipe(keep=Items(), most_kept=200)))
    expansion.took(works[0], page(*range(50)))
    outcome = expansion.outcome()
    assert not outcome.failed
    reader = expand.start(step(1, target=Fill("/{a}"), sources=(("a", 0),)), CONTEXT, {0: outcome})
    assert list(reader.begin(1000)) == []
    (reply,) = reader.deliver()
    assert reply.failure is not None
    assert "more than may be kept" in reply.failure.message


# --- expressions ----------------------------------------------------------------------------------


def test_a_run_goes_on_when_its_expressions_have_values() -> None:
    expressions = (
        Expression(name="q", text="first", context=Fill("[{a}]")),
        Expression(name="r", text="second", context=Fill("[{q}]")),
    )
    of = step(target=Fill("/{r}"), recipe=Recipe(expressions=expressions))
    expansion, works = begun(of, a=["1"])
    assert targets(works) == ["first"]
    assert works[0].context == b"[1]"
    works = list(expansion.took(works[0], Reply(200, body=b"2")))
    assert works[0].context == b"[2]"
    works = list(expansion.took(works[0], Reply(200, body=b"3")))
    assert targets(works) == ["/3"]


def test_an_expression_that_fails_is_its_runs_result() -> None:
    of = step(recipe=Recipe(expressions=(Expression(name="q", text="e", context=Fill("{}")),)))
    expansion, works = begun(step(recipe=of.subrequest.recipe), **{"": ["1"]})
    assert not expansion.took(works[0], GONE)
    assert handed(expansion) == ["connection_refused"]
    assert expansion.outcome().failed


def test_a_step_without_a_target_gives_what_was_worked_out() -> None:
    expression = Expression(name="v", text="e", context=Fill("[{a}]"))
    of = step(target="", recipe=Recipe(expressions=(expression,), keep=Items()))
    expansion, works = begun(of, a=["1"])
    assert not expansion.took(works[0], page("x"))
    assert expansion.outcome().value.values == [b'"x"']
    assert len(handed(expansion)) == 1


def test_a_step_without_target_and_expression_gives_its_body() -> None:
    expansion, works = begun(step(target="", body=Fill("[{a}]"), recipe=Recipe()), a=["1"])
    assert works == []
    assert expansion.done
    assert handed(expansion) == ["[1]"]


# --- recursion ------------------------------------------------------------------------------------


class Big(msgspec.Struct, frozen=True):
    """Holds for records above ten."""

    text: str = "> 10"

    def fill(self, scope: Scope) -> str:
        return "true" if int(scope["r"][-1]) > 10 else "false"


RECURSE = Recipe(
    paging=PAGING,
    recurse=Recurse(name="r", records=Items(), when=Big(), target=Fill("/sub/{r}")),
    most_runs=4,
)


def test_records_that_a_condition_holds_for_are_asked_about_a_generation_at_a_time() -> None:
    expansion, works = begun(step(recipe=RECURSE))
    works = list(expansion.took(works[0], page(1, 20, 30)))
    assert targets(works) == ["/sub/20", "/sub/30"]
    assert [work.request_id for work in works] == ["b.0.0-0", "b.0.0-1"]
    expansion.took(works[1], page(3))
    (deeper,) = expansion.took(works[0], page(40))
    assert deeper.target == "/sub/40"
    assert not expansion.done
    expansion.took(deeper, page(4))
    assert expansion.done
    items = [json.loads(body)["items"] for body in handed(expansion)]
    assert items == [[1, 20, 30], [40], [3], [4]]


class TooMuch(msgspec.Struct, frozen=True):
    def pick(self, reply: Reply) -> Sequence[bytes]:
        raise TooMany("finds too much")


def test_what_is_too_much_to_be_picked_is_too_much_to_be_kept() -> None:
    expansion, works = begun(step(recipe=Recipe(keep=TooMuch())))
    expansion.took(works[0], page(1))
    kept = expansion.outcome().value
    assert isinstance(kept, Kept)
    assert kept.full


class Lost(msgspec.Struct, frozen=True):
    """Finds nothing."""

    text: str = "?"

    def fill(self, scope: Scope) -> str:
        raise Unresolved("what it asks for is nowhere")


def test_a_condition_that_cannot_be_worked_out_ends_its_run_with_the_page_that_came() -> None:
    lost = Recurse(name="r", records=Items(), when=Lost(), target=Fill("/sub/{r}"))
    expansion, works = begun(step(recipe=Recipe(paging=PAGING, recurse=lost)))
    assert not list(expansion.took(works[0], page(1)))
    assert expansion.done
    first, why = expansion.deliver()
    assert first.status == 200
    assert why.failure is not None
    assert why.failure.message == "requests[0]: what it asks for is nowhere"


def test_a_page_of_too_many_records_is_not_asked_about_one_by_one() -> None:
    expansion, works = begun(step(recipe=RECURSE))
    expansion.took(works[0], page(*range(2_001)))
    assert expansion.done
    *_, why = expansion.deliver()
    assert why.failure is not None
    assert why.failure.message == "requests[0].recurse: more than 2000 records in a page"


def test_a_recursion_without_an_end_is_cut() -> None:
    expansion, works = begun(step(recipe=RECURSE))
    while works:
        works = [w for work in works for w in expansion.took(work, page(11, 12))]
    assert expansion.done
    bodies = handed(expansion)
    assert len(bodies) == 4
    assert bodies[-1] == "too_many_runs"


def test_when_there_are_too_many_records_to_go_below_no_further_one_is_looked_at() -> None:
    """A list of ten thousand pages has millions of them."""
    expansion, works = begun(step(recipe=RECURSE))
    works = list(expansion.took(works[0], page(*[20] * 60, next="2")))
    works = list(expansion.took(works[0], page("no number")))  # which its condition would not bear
    assert works == []
    assert handed(expansion)[-1] == "too_many_runs"


def test_records_to_go_below_have_a_size() -> None:
    recipe = msgspec.structs.replace(RECURSE, most_runs=1000, most_kept=10)
    expansion, works = begun(step(recipe=recipe))
    works = list(expansion.took(works[0], page(*[20] * 6)))
    assert targets(works) == ["/sub/20"] * 5
    *_, why = expansion.deliver()
    assert why.failure is not None
    assert why.failure.message == "requests[0].recurse: reads more than may be kept"


def test_a_loop_with_more_runs_than_are_left_for_its_batch_has_none() -> None:
    of = step(target=Fill("/{a}"), sources=(("a", 0),), recipe=Recipe(loops=(Each("a"),)))
    outcomes = {0: Outcome(value=Kept([b"1", b"2", b"3"]))}
    assert len(expand.start(of, CONTEXT, outcomes).begin(3)) == 3
    for room in (2, 0):
        expansion = expand.start(of, CONTEXT, outcomes)
        assert not expansion.begin(room)
        (why,) = expansion.deliver()
        assert why.failure is not None
        left = f"more than the {room} runs that are left for its batch"
        assert why.failure.message == f"requests[0]: {left}"


def test_what_is_too_much_to_be_kept_is_not_picked_again() -> None:
    expansion, works = begun(step(recipe=Recipe(keep=Items(), paging=PAGING, most_kept=100)))
    works = list(expansion.took(works[0], page(1, 2, next="2")))
    expansion.took(works[0], Reply(200, body=b'{"items":null}'))  # would be a TypeError
    kept = expansion.outcome().value
    assert isinstance(kept, Kept)
    assert kept.full


# --- timing ---------------------------------------------------------------------------------------


class Numbers(Items, frozen=True):
    def pick(self, reply: Reply) -> Sequence[bytes]:
        return [item for item in super().pick(reply) if item.isdigit()]


def answer(target: str) -> Reply:
    """What there is at a target: numbers, perhaps a next page, or nobody."""
    dice = random.Random(target)
    if dice.random() < 0.2:
        return GONE
    following = str(dice.randrange(100)) if dice.random() < 0.4 else None
    return page(target, *(dice.randrange(15) for _ in range(3)), next=following)


def carried_out(order: random.Random, width: int, most_runs: int) -> tuple[list[str], Outcome]:
    recipe = Recipe(
        loops=(Each("a"),),
        paging=PAGING,
        recurse=Recurse(name="r", records=Numbers(), when=Big(), target=Fill("/sub/{r}")),
        keep=Numbers(),
        most_runs=most_runs,
    )
    expansion, works = begun(
        step(target=Fill("/{a}"), recipe=recipe), a=[str(n) for n in range(width)]
    )
    out = handed(expansion)
    while works:
        work = works.pop(order.randrange(len(works)))
        works += expansion.took(work, answer(work.target))
        out += handed(expansion)
    assert expansion.done
    return out, expansion.outcome()


@given(st.integers(), st.integers(1, 6), st.integers(3, 40))
def test_what_is_handed_on_does_not_depend_on_when_it_came(
    seed: int, width: int, most_runs: int
) -> None:
    """Runs, pages, recursion, failures and caps: the same replies in the same order."""
    assert carried_out(random.Random(seed), width, most_runs) == carried_out(
        random.Random(0), width, most_runs
    )
