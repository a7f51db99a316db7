"""The bulk endpoints in force as an OpenAPI 3.1 document.

Bodies are described by the declarations that parse them, refusals by the answers themselves, limits
by the settings: nothing here can say anything else than what the gateway does.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from typing import Any

from gateway.batch import Dialect
from gateway.config import Settings
from gateway.config.limits import of_call
from gateway.errors import REASONS
from gateway.reception import Desk, Reception

Object = dict[str, Any]


def document(reception: Reception, version: str) -> Object:
    """One operation for each endpoint that can be reached."""
    settings = reception.settings
    schemas = _Schemas()
    paths: Object = {}
    for number, desk in enumerate(reception.desks):
        path, prefixed = _path(desk.path, paths)
        if path not in paths:
            operation = _operation(desk, number, settings, schemas)
            item: Object = {"post": operation, "parameters": _parameters(path)}
            if prefixed:
                item["servers"] = _servers(settings, "{prefix}")
            paths[path] = item
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bulk-gateway",
            "version": version,
            "description": "Bulk calls, taken apart in front of a backend that takes one call at a"
            " time. Every other request goes through as it is.",
        },
        "servers": _servers(settings, ""),
        "paths": paths,
        "components": {"schemas": schemas.found},
    }


# --- where it is ---------------------------------------------------------------------------------

_REST = re.compile(r"\*+")


def _path(template: str, taken: Object) -> tuple[str, bool]:
    """The template as OpenAPI writes it, and whether its prefix went into the server's URL, the one
    place where OpenAPI has room for any number of segments."""
    path = _REST.sub("{rest}", template)
    bare = path.removeprefix("{prefix}")
    if bare == path or bare not in taken:
        return bare, bare != path
    return f"/{path}", False


def _parameters(path: str) -> list[Object]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _servers(settings: Settings, prefix: str) -> list[Object]:
    urls = [
        f"http{'s' if listener.tls else ''}://{_reachable(listener.host)}:{listener.port}"
        for listener in settings.listen
        if listener.unix is None
    ]
    if not prefix:
        return [{"url": url} for url in urls or ["/"]]
    variables = {"prefix": {"default": "", "description": "What stands before it, if anything."}}
    return [{"url": url + prefix, "variables": variables} for url in urls or [""]]


def _reachable(host: str) -> str:
    """Where to ask one that listens on all addresses."""
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


# --- what it takes and answers -------------------------------------------------------------------


def _operation(desk: Desk, number: int, settings: Settings, schemas: _Schemas) -> Object:
    dialect = desk.dialect
    title = (inspect.getdoc(type(dialect)) or dialect.name).partition("\n")[0].partition(";")[0]
    limits = of_call(settings, desk.batch, dialect)
    return {
        "operationId": f"{dialect.name}{number}",
        "tags": [dialect.name],
        "summary": title.rstrip("."),
        "description": f"At most {limits['limits.subrequests'].written} subrequests in"
        f" {limits['limits.request_bytes'].written}; {limits['batch.width'].written} of them run"
        f" at a time, and all within {limits['limits.batch_time'].written}.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schemas.take(dialect)}},
        },
        "responses": {"200": _RESULTS, **_refusals(dialect)},
        "x-limits": {
            name: {"value": limit.value, "unit": limit.unit, "description": limit.help}
            for name, limit in limits.items()
        },
    }


_RESULTS: Object = {
    "description": "The call was taken. There is exactly one result for every subrequest, in the"
    " client's order, each with its own status; they are streamed as they come.",
    "content": {"application/json": {"schema": {"type": ["array", "object"]}}},
}

_RETRY_AFTER: Object = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
}


def _refusals(dialect: Dialect) -> Object:
    """The dialect's answers to calls that are refused as a whole, asked of the dialect itself."""
    by_status: defaultdict[int, dict[str, bytes]] = defaultdict(dict)
    for reason, status in REASONS.items():
        answer = dialect.refusal(status, reason, "what is wrong, and where")
        by_status[answer.status][reason] = answer.body
    return {str(status): _refused(status, by_status[status]) for status in sorted(by_status)}


def _refused(status: int, bodies: dict[str, bytes]) -> Object:
    reasons = ", ".join(reason.replace("_", " ") for reason in bodies)
    headers = {"headers": _RETRY_AFTER} if status == 503 else {}
    differing = {body: reason for reason, body in reversed(bodies.items())}
    examples = {reason: {"value": json.loads(body)} for body, reason in differing.items()}
    return {
        "description": f"Refused as a whole, with nothing sent: {reasons}.",
        **headers,
        "content": {"application/json": {"schema": {"type": "object"}, "examples": examples}},
    }


class _Schemas:
    """The schemas of bodies, moved to where an OpenAPI document keeps them."""

    def __init__(self) -> None:
        self.found: Object = {}

    def take(self, dialect: Dialect) -> Object:
        """The schema of the body. Endpoints of one dialect share theirs unless options differ."""
        schema = dialect.schema()
        parts = schema.pop("$defs", {})
        prefix, number = dialect.name, 1
        while True:
            moved = {f"{prefix}.{name}": _moved(part, prefix) for name, part in parts.items()}
            if all(self.found.get(name, part) == part for name, part in moved.items()):
                self.found |= moved
                return _moved(schema, prefix)  # type: ignore[no-any-return]  # an object stays one
            number += 1
            prefix = f"{dialect.name}-{number}"


def _moved(schema: Any, prefix: str) -> Any:
    if isinstance(schema, list):
        return [_moved(item, prefix) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value.replace("#/$defs/", f"#/components/schemas/{prefix}.")
        if name == "$ref"
        else _moved(value, prefix)
        for name, value in schema.items()
    }
