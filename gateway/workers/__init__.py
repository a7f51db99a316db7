"""Several processes that are one gateway.

The parent binds every address, once for each worker, and keeps the sockets for as long as it lives:
a connection that was dealt to a worker which then died waits in the kernel for its successor, where
closing the socket would reset it. Workers are started anew (`exec`) rather than forked, since the
parent has an event loop and threads, and needs a successor at any time. Parent and worker talk over
a socketpair (`channel`); its end is how a worker learns that its parent is gone.

The parent serves the operators and speaks for all. It reads settings, and deals out those in force,
so that workers never disagree about them; limits that are the whole gateway's are split (`shares`).
"""

from __future__ import annotations

from gateway import server
from gateway.app import App
from gateway.config import Settings
from gateway.config.watched import Watched
from gateway.workers import parent


def run(settings: Settings, watched: Watched) -> int:
    """Serves until a signal, in as many processes as the settings say; the exit status.

    Raises `CannotListen` or `CannotTrace` before anything is served."""
    if settings.workers == 1:
        return server.run(settings, lambda settings: App(settings, watched))
    return parent.run(settings, watched)
