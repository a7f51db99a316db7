"""New settings for a process that runs."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway import reloads
from gateway.config import ConfigErrors, Settings
from gateway.config.watched import Watched
from gateway.reloads import Reloads
from tests.support.rings import uncollected


def written(path: Path, width: int) -> None:
    """Replaces the file, as editors and `mv` do."""
    new = path.with_suffix(".new")
    new.write_text(f"batch: {{width: {width}}}\n")
    new.replace(path)


def spoil(path: Path) -> None:
    path.write_text("batch: {width: none}\nworker: 3\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    written(path, 2)
    return path


# --- the file ------------------------------------------------------------------------------------


def test_environment_and_flags_lie_over_the_file_every_time(file: Path) -> None:
    environ, flags = {"GATEWAY_WORKERS": "3"}, {"upstream.url": "http://b:1"}
    watched = Watched(str(file), environ, flags)
    environ["GATEWAY_WORKERS"] = "4"
    for width in (2, 5):
        written(file, width)
        settings = watched.load()
        assert (settings.batch.width, settings.workers) == (width, 3)
        assert settings.upstream.url == "http://b:1"


def test_a_change_is_seen_once_it_has_settled_and_until_it_is_loaded(file: Path) -> None:
    watched = Watched(str(file))
    assert not watched.changed()
    written(file, 3)
    assert not watched.changed()  # it may still be being written
    assert watched.changed()
    watched.load()
    assert not watched.changed()


def test_a_file_that_is_written_in_pieces_is_left_alone_until_it_is_whole(file: Path) -> None:
    watched = Watched(str(file))
    with file.open("w") as pieces:
        for piece in ("paths:\n", "  allow: [/a]\n", "  deny: [/a/b]\n"):
            pieces.write(piece)
            pieces.flush()
            assert not watched.changed()
    watched.changed()
    assert watched.changed()


def test_what_changes_before_it_is_first_loaded_is_seen(file: Path) -> None:
    watched = Watched(str(file))
    written(file, 3)
    watched.changed()
    assert watched.changed()


def test_kubernetes_swaps_a_link_on_the_way_to_the_file(tmp_path: Path) -> None:
    for name, width in (("one", 2), ("two", 3)):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "gateway.yaml", width)
        os.utime(tmp_path / name / "gateway.yaml", (0, 0))
    data, file = tmp_path / "..data", tmp_path / "gateway.yaml"
    data.symlink_to("one")
    file.symlink_to("..data/gateway.yaml")
    watched = Watched(str(file))
    assert watched.load().batch.width == 2
    swapped = tmp_path / "..data_tmp"
    swapped.symlink_to("two")
    swapped.replace(data)
    watched.changed()
    assert watched.changed()
    assert watched.load().batch.width == 3


def test_a_file_that_is_gone_has_changed_and_cannot_be_loaded(file: Path) -> None:
    watched = Watched(str(file))
    file.unlink()
    watched.changed()
    assert watched.changed()
    with pytest.raises(ConfigErrors, match="cannot be read"):
        watched.load()
    assert not watched.changed()  # told once


def test_without_a_file_nothing_changes() -> None:
    watched = Watched(None, {"GATEWAY_WORKERS": "2"})
    assert not watched.changed()
    assert watched.load().workers == 2


# --- taking over ---------------------------------------------------------------------------------


class Process:
    """Takes settings over, and keeps what it is told."""

    def __init__(self, file: Path) -> None:
        self.settings: list[Settings] = []
        self.told: asyncio.Queue[Sequence[str]] = asyncio.Queue()
        self.refuses: Exception | None = None
        self.reloads = Reloads(Watched(str(file)), self.take_over, self.told.put_nowait)

    def take_over(self, settings: Settings) -> None:
        if self.refuses:
            raise self.refuses
        self.settings.append(settings)


@asynccontextmanager
async def running(file: Path) -> AsyncIterator[Process]:
    process = Process(file)
    try:
        async with asyncio.timeout(20):
            yield process
    finally:
        await process.reloads.close()


async def test_a_signal_has_the_settings_read_again(file: Path) -> None:
    async with running(file) as process:
        written(file, 7)
        process.reloads.now()
        assert await process.told.get() == ()
        assert [settings.batch.width for settings in process.settings] == [7]


async def test_a_changed_file_is_found_by_looking_now_and_then(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloads, "LOOK", 0.001)
    async with running(file) as process:
        written(file, 7)
        assert await process.told.get() == ()
        written(file, 8)
        assert await process.told.get() == ()
        assert [settings.batch.width for settings in process.settings] == [7, 8]


async def test_settings_with_mistakes_are_not_taken_over_and_every_mistake_is_told(
    file: Path,
) -> None:
    async with running(file) as process:
        spoil(file)
        process.reloads.now()
        mistakes = await process.told.get()
        assert [mistake.partition(": ")[0] for mistake in mistakes] == [f"{file}:1", f"{file}:2"]
        assert process.settings == []
        written(file, 4)
        process.reloads.now()
        assert await process.told.get() == ()


async def test_what_reading_leaves_in_cycles_does_not_lie_until_the_calm_collector_comes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    left: list[weakref.ref[Cycle]] = []

    def load(watched: Watched) -> Settings:
        left.append(weakref.ref(Cycle()))
        return Settings()

    monkeypatch.setattr(Watched, "load", load)
    async with running(file) as process:
        with uncollected():
            process.reloads.now()
            assert await process.told.get() == ()
            assert [cycle() for cycle in left] == [None]


@pytest.mark.parametrize(
    "refuses", [FileNotFoundError(2, "No such file"), ValueError("does not fit")]
)
async def test_settings_that_cannot_be_had_are_told(file: Path, refuses: Exception) -> None:
    async with running(file) as process:
        process.refuses = refuses
        process.reloads.now()
        (mistake,) = await process.told.get()
        assert type(refuses).__name__ in mistake


async def test_signals_that_come_together_are_one_and_one_that_comes_meanwhile_is_another(
    file: Path,
) -> None:
    async with running(file) as process:
        for _ in range(5):
            process.reloads.now()
        await asyncio.sleep(0)  # the attempt has begun
        for _ in range(5):
            process.reloads.now()
        await process.told.get()
        await process.told.get()
        process.reloads.now()
        await process.told.get()
        assert len(process.settings) == 3


async def test_nothing_is_taken_over_after_the_end(file: Path) -> None:
    async with running(file) as process:
        process.reloads.now()
    assert process.settings == []
    assert process.told.empty()


async def test_a_signal_after_the_end_does_nothing(file: Path) -> None:
    async with running(file) as process:
        pass
    process.reloads.now()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_bug_is_loud_and_the_next_attempt_is_made(file: Path) -> None:
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with running(file) as process:
        process.refuses = KeyError("x")
        process.reloads.now()
        assert await process.told.get() == ["KeyError"]
        assert [type(context["exception"]) for context in said] == [KeyError]
        process.refuses = None
        process.reloads.now()
        assert await process.told.get() == ()
