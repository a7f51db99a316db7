"""What the settings of this process were made from, to be read again when it has changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gateway.config.loading import load
from gateway.config.settings import Settings

Stamp = tuple[int, int, int]


class Watched:
    """The file, and the environment and flags that were laid over it when the process began."""

    def __init__(
        self,
        path: str | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
    ) -> None:
        """To be made before the settings are first loaded, for no change to be missed."""
        self.path = path
        self._environ = dict(environ or {})
        self._flags = dict(flags or {})
        self._loaded = self._looked = self._stamp()

    def load(self) -> Settings:
        """Raises ConfigErrors."""
        # Stamped before it is read: what changes while it is read will be seen as a change.
        self._loaded = self._stamp()
        return load(self.path, self._environ, self._flags)

    def changed(self) -> bool:
        """Whether the file is another one than was loaded; to be asked every few seconds.

        It says so when the file has been the same for two looks: half of one that is still being
        written may be valid, and mean something else."""
        stamp, before = self._stamp(), self._looked
        self._looked = stamp
        return stamp == before != self._loaded

    def _stamp(self) -> Stamp | None:
        """Of the file at the end of all links: Kubernetes swaps a link on the way to it."""
        if self.path is None:
            return None
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
