"""A request as everybody inside sees it: aiohttp's, with what is asked of every one at hand.

aiohttp finds these out when it is first asked for them, which costs a call each. What it knows
beside (`query`, `post` and so on) is not there: nobody here asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

if TYPE_CHECKING:
    from gateway.server.client import Client


class Request(web.BaseRequest):
    __slots__ = (
        "_headers",
        "_payload",
        "content",
        "headers",
        "keep_alive",
        "method",
        "protocol",
        "raw_headers",
        "raw_path",
        "remote",
        "scheme",
        "secure",
        "version",
    )

    def __init__(self, message: RawRequestMessage, content: StreamReader, client: Client) -> None:
        self.method = message.method
        self.raw_path = message.path
        self.version = message.version
        self.headers = self._headers = message.headers
        self.raw_headers = message.raw_headers
        self.keep_alive = not message.should_close
        self.content = self._payload = content
        self.protocol = client  # type: ignore[misc]  # a slot here
        self.remote = client.remote
        self.secure = client.secure
        self.scheme = "https" if client.secure else "http"
