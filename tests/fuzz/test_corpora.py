"""The part of the fuzzing that `make test` does: all that was kept, and a thousand more of each
subject, the same every time."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz import corpus
from tests.fuzz.hunt import Hunt
from tests.fuzz.subjects import SUBJECTS

MORE = 1000

every_subject = pytest.mark.parametrize("name", SUBJECTS)


@every_subject
def test_what_was_kept_breaks_no_promise(name: str) -> None:
    for data in corpus.kept(name):
        SUBJECTS[name].run(data)


@every_subject
def test_what_is_made_of_it_breaks_none_either(name: str) -> None:
    hunt = Hunt(name, SUBJECTS[name], Random(name))
    hunt.replay()
    try:
        for _ in range(MORE):
            hunt.go_on()
    except Exception as error:
        pytest.fail(f"{hunt.broken()!r}: {error!r}")


def test_every_file_of_the_corpus_is_a_subjects() -> None:
    assert {path.stem for path in corpus.FOLDER.iterdir()} == {*SUBJECTS}
    assert all(corpus.kept(name) for name in SUBJECTS)
