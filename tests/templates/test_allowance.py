"""What filling in may take."""

from __future__ import annotations

import pytest

from gateway.errors import Exhausted, Unresolved
from gateway.templates.allowance import BYTES, MORE_BYTES, MORE_STEPS, STEPS, Allowance


def test_a_text_has_a_bound_of_its_own() -> None:
    text = Allowance().of_text(100)
    text.make(60)
    text.make(40)
    with pytest.raises(Unresolved, match="more than 100 bytes"):
        text.make(1)


def test_all_texts_of_a_batch_have_one_together() -> None:
    batch = Allowance()
    batch.of_text().make(BYTES)
    text = batch.of_text()
    text.make(2 * MORE_BYTES)
    most = BYTES + 2 * MORE_BYTES
    with pytest.raises(Exhausted, match=f"more than {most} bytes with those before it"):
        text.make(1)


def test_what_one_text_is_short_of_others_may_still_have() -> None:
    """One long value in a loop is no reason to give up on the others."""
    text = Allowance().of_text(100)
    for take, much in ((text.make, 101), (text.look, STEPS + 1)):
        with pytest.raises(Unresolved) as short:
            take(much)
        assert not isinstance(short.value, Exhausted)


def test_of_short_texts_there_may_be_any_number() -> None:
    batch = Allowance()
    batch.of_text().make(BYTES)
    batch.of_text().look(STEPS)
    for _ in range(10_000):
        text = batch.of_text()
        text.make(MORE_BYTES)
        text.look(MORE_STEPS)


def test_a_loop_has_room_for_sixty_fields_of_each_record() -> None:
    """`{{resources.contacts.name}}` looks at three values."""
    batch = Allowance()
    for _ in range(10_000):
        batch.of_text().look(60 * 3)


def test_what_is_refused_takes_nothing_from_others() -> None:
    batch = Allowance()
    for _ in range(3):
        with pytest.raises(Unresolved):
            batch.of_text().make(BYTES + 1)
        with pytest.raises(Unresolved, match="too many steps"):
            batch.of_text().look(STEPS + 1)
    text = batch.of_text()
    text.make(BYTES)
    text.look(STEPS)
