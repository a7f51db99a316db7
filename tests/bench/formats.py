"""The bulk formats that contestants speak: the same calls, written and read in each one's words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Result = tuple[int, Any]
"""Status and decoded contents."""

OWN = {"X-Part": "part", "Accept-Language": "en-GB", "X-Module": "Accounts"}
"""Own headers of a subrequest; the first one's value gets the subrequest's number."""


@dataclass(frozen=True, slots=True)
class Call:
    """One wished call: `/page-200B-0ms/17` behind the format's prefix."""

    path: str
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


class Format(Protocol):
    endpoint: str
    prefix: str
    """Where its subrequests arrive at the backend."""
    suffix: str
    """What stands behind their path there."""

    def document(self, calls: Sequence[Call]) -> Any: ...

    def results(self, answer: Any) -> list[Result]: ...


class SugarCRM:
    endpoint = "/rest/v11_3/bulk"
    prefix = "/rest/v11_3"
    suffix = ""

    def document(self, calls: Sequence[Call]) -> Any:
        return {"requests": [self._entry(call) for call in calls]}

    def _entry(self, call: Call) -> dict[str, Any]:
        entry: dict[str, Any] = {"url": "v11_3" + call.path, "method": call.method}
        if call.body is not None:
            # As JSON text: so the vendor's own clients send it.
            entry["data"] = call.body
        if call.headers:
            entry["headers"] = call.headers
        return entry

    def results(self, answer: Any) -> list[Result]:
        return [(entry["status"], entry["contents"]) for entry in answer]


class Guidewire:
    endpoint = "/cc/rest/common/v1/batch"
    prefix = "/cc/rest/common/v1"
    suffix = ""

    def document(self, calls: Sequence[Call]) -> Any:
        return {"requests": [self._entry(call) for call in calls]}

    def _entry(self, call: Call) -> dict[str, Any]:
        entry: dict[str, Any] = {"method": call.method.lower(), "path": call.path}
        if call.body is not None:
            entry["body"] = json.loads(call.body)
        if call.headers:
            entry["headers"] = [
                {"name": name, "value": call.headers[name]} for name in call.headers
            ]
        return entry

    def results(self, answer: Any) -> list[Result]:
        return [(entry["status"], entry["body"]) for entry in answer["responses"]]


class Agendize:
    endpoint = "/api/2.3/batch"
    prefix = "/api/2.1"
    suffix = ""

    def document(self, calls: Sequence[Call]) -> Any:
        return {"requests": [self._entry(call) for call in calls]}

    def _entry(self, call: Call) -> dict[str, Any]:
        entry: dict[str, Any] = {"path": self.prefix + call.path, "method": call.method}
        if call.body is not None:
            entry["body"] = json.loads(call.body)
        if call.headers:
            entry["headers"] = call.headers
        return entry

    def results(self, answer: Any) -> list[Result]:
        return [(entry["status"], entry["response"]) for entry in answer["responses"]]


class Truto:
    """Reads only: the format has no headers, and its answer no statuses."""

    endpoint = "/batch-request"
    prefix = "/unified/bench"
    suffix = "?integrated_account_id=bench"

    def document(self, calls: Sequence[Call]) -> Any:
        nodes = []
        for call in calls:
            _, resource, name = call.path.split("/")
            nodes.append({"resource": f"bench/{resource}", "method": "get", "id": name})
        return {"integrated_account_id": "bench", "args": {}, "resources": nodes}

    def results(self, answer: Any) -> list[Result]:
        assert not any(answer["errors"].values()), answer["errors"]
        return [(200, record) for records in answer["result"].values() for record in records]


class Pipeline:
    """APISIX's: paths and methods down, statuses and bodies as text up."""

    endpoint = "/apisix/batch-requests"
    prefix = "/rest/v11_3"
    suffix = ""

    def document(self, calls: Sequence[Call]) -> Any:
        return {"pipeline": [self._entry(call) for call in calls]}

    def _entry(self, call: Call) -> dict[str, Any]:
        entry: dict[str, Any] = {"path": self.prefix + call.path, "method": call.method}
        if call.body is not None:
            entry["body"] = call.body
        if call.headers:
            entry["headers"] = call.headers
        return entry

    def results(self, answer: Any) -> list[Result]:
        return [(entry["status"], json.loads(entry["body"])) for entry in answer]


class Bassmaster:
    """npm's: a list of results without statuses."""

    endpoint = "/batch"
    prefix = "/rest/v11_3"
    suffix = ""

    def document(self, calls: Sequence[Call]) -> Any:
        return {"requests": [self._entry(call) for call in calls]}

    def _entry(self, call: Call) -> dict[str, Any]:
        entry: dict[str, Any] = {"path": self.prefix + call.path, "method": call.method.lower()}
        if call.body is not None:
            entry["payload"] = json.loads(call.body)
        return entry

    def results(self, answer: Any) -> list[Result]:
        return [(200, result) for result in answer]


FORMATS: Mapping[str, Format] = {
    "sugarcrm": SugarCRM(),
    "guidewire": Guidewire(),
    "agendize": Agendize(),
    "truto": Truto(),
    "pipeline": Pipeline(),
    "bassmaster": Bassmaster(),
}
