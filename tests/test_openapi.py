"""The published description of the bulk endpoints: well-formed, whole, and true to the settings."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

from gateway.config.settings import Batch, Endpoint, Listener, ListenerTls, Settings
from gateway.dialects import DIALECTS
from gateway.openapi import document
from gateway.reception import Reception

Object = dict[str, Any]


def published(**sections: Any) -> Object:
    settings = dataclasses.replace(Settings(), **sections)
    return document(Reception(settings, "bulk-gateway-test"), "1.2.3")


def at(path: str, dialect: str = "sugarcrm", **own: Any) -> Endpoint:
    return Endpoint(path=path, dialect=dialect, **own)


def every(value: Any) -> Iterator[Object]:
    """All objects of a document."""
    if isinstance(value, dict):
        yield value
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for child in children:
            yield from every(child)


# --- form ----------------------------------------------------------------------------------------


def test_it_has_the_form_of_openapi_3_1() -> None:
    found = published()
    assert found["openapi"] == "3.1.0"
    assert {"title", "version"} <= found["info"].keys()
    assert found.keys() <= {"openapi", "info", "servers", "paths", "components"}
    for path, item in found["paths"].items():
        assert path.startswith("/")
        assert item.keys() <= {"post", "parameters", "servers"}
        named = [parameter["name"] for parameter in item["parameters"]]
        assert named == re.findall(r"\{(\w+)\}", path)
        assert all(p["in"] == "path" and p["required"] is True for p in item["parameters"])
        assert {"operationId", "requestBody", "responses"} <= item["post"].keys()
        for status, response in item["post"]["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert response["description"]
    for name in found["components"]["schemas"]:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)


def test_every_operation_has_an_id_of_its_own() -> None:
    ids = [item["post"]["operationId"] for item in published()["paths"].values()]
    assert len(set(ids)) == len(ids)


def test_every_variable_of_a_servers_url_has_a_default() -> None:
    for item in every(published()):
        for server in item.get("servers", ()):
            assert re.findall(r"\{(\w+)\}", server["url"]) == [*server.get("variables", ())]
            assert all("default" in v for v in server.get("variables", {}).values())


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    found = published()
    used = {item["$ref"] for item in every(found) if isinstance(item.get("$ref"), str)}
    there = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert used == there


def test_it_is_json() -> None:
    assert json.loads(json.dumps(published())) == published()


# --- contents ------------------------------------------------------------------------------------


def test_every_endpoint_of_every_dialect_is_there() -> None:
    found = published()
    tags = {item["post"]["tags"][0] for item in found["paths"].values()}
    assert tags == set(DIALECTS)
    assert len(found["paths"]) == len(Settings().endpoints)


def test_a_body_is_described_by_what_parses_it() -> None:
    schema = published()["components"]["schemas"]["guidewire.BatchEntry"]
    assert schema["required"] == ["method", "path"]
    assert schema["properties"]["onFail"]["anyOf"][0]["enum"] == ["abort", "continue"]


def test_limits_are_those_of_the_endpoint() -> None:
    endpoints = (at("/a"), at("/b", width=3))
    paths = published(endpoints=endpoints, batch=Batch(width=5))["paths"]
    widths = [paths[path]["post"]["x-limits"]["batch.width"]["value"] for path in ("/a", "/b")]
    assert widths == [5, 3]
    assert "3 of them run at a time" in paths["/b"]["post"]["description"]
    assert paths["/a"]["post"]["x-limits"]["limits.request_bytes"] == {
        "value": 4194304,
        "unit": "bytes",
        "description": "body of a bulk call",
    }


def test_a_dialects_own_bounds_are_limits_too() -> None:
    endpoint = at("/t", "truto", options={"max_pages": 7})
    limits = published(endpoints=(endpoint,))["paths"]["/t"]["post"]["x-limits"]
    assert limits["max_pages"]["value"] == 7


def test_refusals_are_the_dialects_own_answers() -> None:
    responses = published()["paths"]["/batch"]["post"]["responses"]
    body = responses["413"]["content"]["application/json"]["examples"]["body_too_large"]["value"]
    assert body["errorCode"] == "bulk-gateway.body_too_large"
    assert "Retry-After" in responses["503"]["headers"]


def test_a_prefix_is_a_variable_of_the_server_since_a_parameter_is_one_segment() -> None:
    item = published(endpoints=(at("{prefix}/rest/bulk"),))["paths"]["/rest/bulk"]
    assert item["parameters"] == []
    assert [server["url"] for server in item["servers"]] == ["http://localhost:8080{prefix}"]


def test_of_two_paths_that_openapi_cannot_tell_apart_both_are_there() -> None:
    assert list(published(endpoints=(at("/bulk"), at("{prefix}/bulk")))["paths"]) == [
        "/bulk",
        "/{prefix}/bulk",
    ]


def test_an_endpoint_that_is_never_reached_is_left_out() -> None:
    paths = published(endpoints=(at("/bulk"), at("/bulk", "guidewire")))["paths"]
    assert paths["/bulk"]["post"]["tags"] == ["sugarcrm"]


def test_servers_are_the_listeners() -> None:
    tls = ListenerTls(cert="c", key="k")
    listen = (
        Listener(address="0.0.0.0:80"),
        Listener(address="[::1]:443", tls=tls),
        Listener(address="unix:/run/x"),
    )
    assert published(listen=listen)["servers"] == [
        {"url": "http://localhost:80"},
        {"url": "https://[::1]:443"},
    ]
    assert published(listen=listen[2:])["servers"] == [{"url": "/"}]
