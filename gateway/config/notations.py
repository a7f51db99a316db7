"""How single settings are written: `2s`, `4MiB`, `10%`, addresses, names.

A notation reads what stands in the file and writes a value back as a person would have written it,
so that documentation and defaults never disagree. `read` raises ValueError with the whole message.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.headers import TrustedProxies
from gateway.target import Pattern

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 5.6.2."""

UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
UNIT_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}


def shown(value: object) -> str:
    """A value as it may stand in a message: JSON, cut to a length that keeps the line readable."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def expected(what: str, value: object) -> ValueError:
    return ValueError(f"expected {what}, got {shown(value)}")


def is_number(value: object) -> bool:
    """Python's True is an int; in a settings file it is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Notation(ABC):
    """One way to write a value. The base writes values as they are."""

    @abstractmethod
    def read(self, value: Any) -> Any: ...

    def write(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        """JSON Schema of what `read` accepts, as far as a schema can say it."""
        return {"type": "string"}


@dataclass(frozen=True)
class Count(Notation):
    """A whole number within bounds."""

    low: int = 0
    high: int | None = None

    def read(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise expected("a whole number", value)
        if value < self.low:
            raise ValueError(f"must be at least {self.low}")
        if self.high is not None and value > self.high:
            raise ValueError(f"must be at most {self.high}")
        return value

    def schema(self) -> dict[str, Any]:
        high = {} if self.high is None else {"maximum": self.high}
        return {"type": "integer", "minimum": self.low, **high}


@dataclass(frozen=True)
class Rate(Notation):
    """A number more than 0."""

    def read(self, value: Any) -> float:
        if not is_number(value):
            raise expected("a number", value)
        if value <= 0:
            raise ValueError("must be more than 0")
        return float(value)

    def write(self, value: float) -> float | int:
        return int(value) if value.is_integer() else value

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "exclusiveMinimum": 0}


@dataclass(frozen=True)
class Duration(Notation):
    """`2s`, `500ms`, `1m30s`; seconds inside. A bare number is refused: it does not say of what."""

    zero: bool = False
    """Whether 0 is allowed."""

    pattern = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")
    part = re.compile(r"([\d.]+)(ms|s|m|h)")

    def read(self, value: Any) -> float:
        if value == 0 and is_number(value):
            seconds = 0.0
        elif isinstance(value, str) and self.pattern.fullmatch(value):
            seconds = sum(float(n) * UNIT_SECONDS[unit] for n, unit in self.part.findall(value))
        else:
            raise expected("a duration such as 2s or 500ms", value)
        if not seconds and not self.zero:
            raise ValueError("must be more than 0s")
        return seconds

    def write(self, value: float) -> str:
        return f"{value:g}s" if not value or value >= 1 else f"{value * 1000:g}ms"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.pattern.pattern}$"}


@dataclass(frozen=True)
class Size(Notation):
    """`64KiB`, `4MiB`, `1MB`, or a number of bytes."""

    pattern = re.compile(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB|KiB|MiB|GiB)")

    def read(self, value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            size = value
        elif isinstance(value, str) and (match := self.pattern.fullmatch(value)):
            size = int(float(match[1]) * UNIT_BYTES[match[2]])
        else:
            raise expected("a size such as 64KiB or 4MiB", value)
        if size <= 0:
            raise ValueError("must be more than 0")
        return size

    def write(self, value: int) -> int | str:
        for unit in ("GiB", "MiB", "KiB"):
            if value % UNIT_BYTES[unit] == 0:
                return f"{value // UNIT_BYTES[unit]}{unit}"
        return value

    def schema(self) -> dict[str, Any]:
        text = {"type": "string", "pattern": f"^{self.pattern.pattern}$"}
        return {"oneOf": [{"type": "integer", "minimum": 1}, text]}


@dataclass(frozen=True)
class Share(Notation):
    """`10%`; a fraction of 1 inside."""

    pattern = re.compile(r"(\d+(?:\.\d+)?)%")

    def read(self, value: Any) -> float:
        if isinstance(value, str) and (match := self.pattern.fullmatch(value)):
            share = float(match[1]) / 100
        elif is_number(value) and 0 <= value <= 1:
            share = float(value)
        else:
            raise expected("a percentage such as 10%", value)
        if share > 1:
            raise ValueError("must be at most 100%")
        return share

    def write(self, value: float) -> str:
        return f"{value * 100:g}%"

    def schema(self) -> dict[str, Any]:
        text = {"type": "string", "pattern": f"^{self.pattern.pattern}$"}
        return {"oneOf": [{"type": "number", "minimum": 0, "maximum": 1}, text]}


@dataclass(frozen=True)
class Matching(Notation):
    """Text of a certain form."""

    what: str
    pattern: re.Pattern[str]

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not self.pattern.fullmatch(value):
            raise expected(self.what, value)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^(?:{self.pattern.pattern})$"}


class Address(Notation):
    """Where to listen: `host:port`, `[::1]:port` or `unix:/path`."""

    pattern = re.compile(r"unix:/.+|(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}")

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not self.pattern.fullmatch(value):
            raise expected("an address such as 0.0.0.0:8080 or unix:/path", value)
        if not value.startswith("unix:") and int(value.rpartition(":")[2]) > 65535:
            raise ValueError("the port must be at most 65535")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^(?:{self.pattern.pattern})$"}


class BackendUrl(Notation):
    """`http://host:port`, `https://host:port` or `unix:/path`.

    Its text is never shown in a message: somebody may have written a password into it.
    """

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise expected("http://host:port, https://host:port or unix:/path", value)
        if value.startswith("unix:/") and len(value) > len("unix:/"):
            return value
        return self._http(value)

    def _http(self, text: str) -> str:
        try:
            url = urlsplit(text)
            host, _ = url.hostname, url.port
        except ValueError:
            raise ValueError("not a valid URL") from None
        if url.scheme not in ("http", "https") or not host:
            raise ValueError("expected http://host:port, https://host:port or unix:/path")
        if "@" in url.netloc:
            raise ValueError("must not hold a user name or password")
        if url.path not in ("", "/") or url.query or url.fragment:
            raise ValueError("must end after the port: paths go to the backend as they come")
        if re.search(r"[\s\\]", text):
            raise ValueError("not a valid URL")
        return f"{url.scheme}://{url.netloc}"


class PathPattern(Notation):
    """`/rest/{version}/bulk`: a template of paths."""

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise expected("a path template such as /rest/{version}/bulk", value)
        Pattern(value)
        return value


class Proxy(Notation):
    """`10.0.0.0/8`, `::1`, or `unix` for whoever comes through a unix socket."""

    def read(self, value: Any) -> str:
        try:
            TrustedProxies([value] if isinstance(value, str) else [""])
        except ValueError:
            raise expected("a network such as 10.0.0.0/8, or unix", value) from None
        return str(value)


FIELD_NAME = Matching("a header name", TOKEN)
HOST_NAME = Matching("preserve, upstream or a host name", re.compile(r"[A-Za-z0-9._\-\[\]:]+"))
ORIGIN = Matching(
    "an origin such as https://app.example, or *", re.compile(r"\*|https?://[^/\s?#]+")
)
FILE_PATH = Matching("a file's path", re.compile(r".+"))
PATH = Matching("a path that starts with /", re.compile(r"/[^\s?#]*"))
