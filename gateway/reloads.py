"""New settings for a process that runs: when they are read again, and what comes of it.

At SIGHUP, and when the settings file has changed. What is wrong is told and changes nothing.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence

from gateway.config import ConfigErrors, Settings
from gateway.config.watched import Watched
from gateway.telemetry.logs import Logs
from gateway.telemetry.metrics import Metrics

LOOK = 2.0
"""Seconds between two looks at the file."""


class Reloads:
    def __init__(
        self,
        watched: Watched,
        take_over: Callable[[Settings], Awaitable[None] | None],
        told: Callable[[Sequence[str]], None],
    ) -> None:
        """`take_over` raises OSError or ValueError for settings that cannot be had; `told` is
        called with the mistakes of every attempt, none when it went well."""
        self._watched = watched
        self._take_over = take_over
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._closed = False
        self._look = self._loop.call_later(LOOK, self.look)

    def look(self) -> None:
        """Has the file changed?"""
        if self._watched.changed() and self._task is None:  # else it may be the one being read
            self.now()
        self._look.cancel()
        self._look = self._loop.call_later(LOOK, self.look)

    def now(self) -> None:
        """Reads the settings again; if that is being done, once more after it."""
        self._again = True
        if self._task is None and not self._closed:
            self._task = self._loop.create_task(self._reload())

    async def close(self) -> None:
        self._closed = True
        self._look.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _reload(self) -> None:
        try:
            while self._again:
                self._again = False
                self._told(await self._attempt())
                gc.collect()  # reading leaves cycles, for which a calm collector takes hours
        finally:
            self._task = None

    async def _attempt(self) -> Sequence[str]:
        try:
            # In a thread: parsing takes a long file tens of milliseconds.
            taking_over = self._take_over(await asyncio.to_thread(self._watched.load))
            if taking_over is not None:
                await taking_over
        except ConfigErrors as errors:
            return errors.mistakes
        except (OSError, ValueError) as error:
            return [f"{type(error).__name__}: {error}"]
        except Exception as error:
            # A bug of ours: loud, but the settings in force go on.
            self._loop.call_exception_handler({"message": "a bug in a reload", "exception": error})
            return [type(error).__name__]
        return ()


def record(metrics: Metrics, logs: Logs, file: str | None) -> Callable[[Sequence[str]], None]:
    """Counts and logs what `Reloads` tells."""

    def told(mistakes: Sequence[str]) -> None:
        metrics.count("gateway_config_reloads_total", "failed" if mistakes else "ok")
        metrics.set("gateway_config_last_reload_successful", not mistakes)
        if mistakes:
            logs.error("settings_not_reloaded", file=file, mistakes=mistakes)
        else:
            logs.info("settings_reloaded", file=file)

    return told
