"""A batch as a graph of steps: what waits for what, and in which order results are written.

Two orders exist (DESIGN part 4). In an `ordered` batch the list is the law: a write follows
everything before it and everything after it follows the write, so only reads between two writes
may overlap, and nobody can tell. In a `graph` batch only names matter. Both become the same edges:

    needs     must have ended well, else the step is skipped
    follows   must have ended, however

Whatever is wrong with names is found here, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

from gateway.batch import SAFE_METHODS, Batch, Step, Subrequest
from gateway.errors import Refused
from gateway.planning.nouns import Plan


def plan(batch: Batch) -> Plan:
    """The plan of a batch. Raises `Refused` for names used twice, unknown needs and cycles."""
    if batch.order == "ordered" and _is_free(batch.subrequests):
        steps = tuple([Step(index=i, subrequest=s) for i, s in enumerate(batch.subrequests)])
        return Plan(batch, steps, tuple(range(len(steps))), free=True)
    flat = list(_flatten(batch.subrequests))
    names = _names(flat)
    if batch.order == "ordered":
        steps = tuple(_ordered(flat, names))
        return Plan(batch, steps, tuple(range(len(steps))))
    steps = tuple(_graph(flat, names))
    return Plan(batch, steps, _delivery(steps))


def _is_free(subrequests: tuple[Subrequest, ...]) -> bool:
    """Reads that know nothing of each other: what most batches are, so they take a short way."""
    for one in subrequests:
        if one.children or one.name or one.needs or one.reads or one.barrier or one.recipe:
            return False
        if one.body or type(one.target) is not str or one.method not in SAFE_METHODS:
            return False
    return True


Flat = tuple[Subrequest, int, int]
"""A subrequest, its parent's index or -1, and the size of its subtree."""


def _flatten(subrequests: Sequence[Subrequest]) -> Iterator[Flat]:
    """Depth first, without recursion: nesting is the client's to choose."""
    index = 0
    stack = [(subrequest, -1) for subrequest in reversed(subrequests)]
    while stack:
        subrequest, parent = stack.pop()
        if subrequest.children:
            yield subrequest, parent, _size(subrequest)
            stack.extend((child, index) for child in reversed(subrequest.children))
        else:
            yield subrequest, parent, 1
        index += 1


def _size(subrequest: Subrequest) -> int:
    size, stack = 0, [subrequest]
    while stack:
        size += 1
        stack.extend(stack.pop().children)
    return size


def _names(flat: list[Flat]) -> dict[str, int]:
    names: dict[str, int] = {}
    for index, (subrequest, _, _) in enumerate(flat):
        if subrequest.name is None:
            continue
        if subrequest.name in names:
            first = flat[names[subrequest.name]][0].where
            raise Refused("bad_reference", f"{subrequest.where}.name: already taken by {first}")
        names[subrequest.name] = index
    return names


# --- ordered -------------------------------------------------------------------------------------


def _ordered(flat: list[Flat], names: dict[str, int]) -> Iterator[Step]:
    """Edges that keep every write where it stands.

    `fence` is what everything later follows; `reads` are the steps since, which only the next
    write follows. So there is at most one edge per step and one per read: linear, not square.
    No ordered format has `needs`: a skipped fence would let pass what follows it alone.
    """
    fence: tuple[int, ...] = ()
    reads: list[int] = []
    for index, (subrequest, parent, size) in enumerate(flat):
        sources = _sources(subrequest, names, before=index) if subrequest.reads else ()
        follows = fence
        if subrequest.refusal is not None or subrequest.target == "":
            pass  # a refused entry and a mere group have no effect, so they order nothing
        elif subrequest.method not in SAFE_METHODS:
            follows = (*reads, *fence) if reads else fence
            fence, reads = (index,), []
        elif subrequest.barrier:
            fence = (index,)
            reads.append(index)
        else:
            reads.append(index)
        if sources:
            follows = tuple(sorted({*follows, *(step for _, step in sources)}))
        yield Step(
            index=index,
            subrequest=subrequest,
            follows=follows,
            needs=_needs(subrequest, names) if subrequest.needs else (),
            sources=sources,
            parent=parent,
            size=size,
        )


def _sources(
    subrequest: Subrequest, names: dict[str, int], before: int
) -> tuple[tuple[str, int], ...]:
    """The earlier steps whose results it reads. A later or unknown name stays unresolved (D-A6)."""
    found = ((name, names.get(name, before)) for name in dict.fromkeys(subrequest.reads))
    return tuple((name, step) for name, step in found if step < before)


def _needs(subrequest: Subrequest, names: dict[str, int]) -> tuple[int, ...]:
    for name in subrequest.needs:
        if name not in names:
            raise Refused("bad_reference", f"{subrequest.where}: depends on a name nobody has")
    return tuple(sorted({names[name] for name in subrequest.needs}))


# --- graph ---------------------------------------------------------------------------------------


def _graph(flat: list[Flat], names: dict[str, int]) -> Iterator[Step]:
    for index, (subrequest, parent, size) in enumerate(flat):
        if not (subrequest.needs or subrequest.reads):
            yield Step(index=index, subrequest=subrequest, parent=parent, size=size)
            continue
        needs = _needs(subrequest, names)
        read = dict.fromkeys(subrequest.reads)
        sources = tuple((name, names[name]) for name in read if name in names)
        yield Step(
            index=index,
            subrequest=subrequest,
            needs=needs,
            follows=tuple(sorted({step for _, step in sources}.difference(needs))),
            sources=sources,
            parent=parent,
            size=size,
        )


def _delivery(steps: tuple[Step, ...]) -> tuple[int, ...]:
    """Topological order, ties in client order; steps that share a key stand together (D-T15)."""
    order = _topological(steps)
    by_key: dict[str | int, list[int]] = {}
    for index in order:
        key = steps[index].subrequest.key
        by_key.setdefault(index if key is None else key, []).append(index)
    return tuple(index for group in by_key.values() for index in group)


def _topological(steps: tuple[Step, ...]) -> list[int]:
    waiting = [len(step.needs) + len(step.follows) for step in steps]
    if not any(waiting):
        return list(range(len(steps)))
    dependents: dict[int, list[int]] = {}
    for step in steps:
        for before in (*step.needs, *step.follows):
            dependents.setdefault(before, []).append(step.index)
    ready = [index for index, count in enumerate(waiting) if not count]
    heapify(ready)
    order: list[int] = []
    while ready:
        index = heappop(ready)
        order.append(index)
        for dependent in dependents.get(index, ()):
            waiting[dependent] -= 1
            if not waiting[dependent]:
                heappush(ready, dependent)
    if len(order) < len(steps):
        raise Refused("bad_reference", _cycle(steps, {i for i, n in enumerate(waiting) if n}))
    return order


def _cycle(steps: tuple[Step, ...], stuck: set[int]) -> str:
    """Names one ring: every stuck step waits for a stuck one, so walking back must meet itself."""
    path: list[int] = []
    index = min(stuck)
    while index not in path:
        path.append(index)
        before = (*steps[index].needs, *steps[index].follows)
        index = next(step for step in before if step in stuck)
    ring = [steps[step].subrequest.where for step in path[path.index(index) :]]
    return f"{ring[0]}: depends on itself" + (
        f" through {' and '.join(ring[1:])}" if len(ring) > 1 else ""
    )
