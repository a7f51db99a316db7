"""Settings: what a file, the environment and flags become, and what is said of their mistakes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.config import (
    Batch,
    ConfigErrors,
    Endpoint,
    Listener,
    Settings,
    Upstream,
    load,
    parse,
)
from gateway.config.limits import Limit, in_force, of_endpoint
from gateway.config.manual import example, rows
from gateway.config.notations import Duration, Share, Size
from gateway.config.schema import schema
from gateway.dialects import create

ROOT = Path(__file__).parent.parent
BAD = ROOT / "tests" / "testdata" / "config"


def mistakes(text: str, **sources: Any) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        parse(text, "f.yaml", **sources)
    return caught.value.mistakes


# --- what is said of mistakes --------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(BAD.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_bad_file_gets_exactly_the_messages_kept_with_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(BAD)
    kept = [line[3:] for line in path.read_text().splitlines() if line.startswith("#! ")]
    with pytest.raises(ConfigErrors) as caught:
        load(path.name)
    assert caught.value.mistakes == kept


def test_a_missing_file_is_a_mistake_like_any_other(tmp_path: Path) -> None:
    path = str(tmp_path / "none.yaml")
    with pytest.raises(ConfigErrors, match="cannot be read: No such file or directory"):
        load(path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigErrors, match="is not UTF-8 text"):
        load(str(path))


def test_no_message_repeats_a_password() -> None:
    found = mistakes("upstream: {url: 'http://crm:hunter2@crm.example'}")
    assert found == ["f.yaml:1: upstream.url: must not hold a user name or password"]


def test_a_combination_is_reported_only_when_its_parts_are_right() -> None:
    assert mistakes("drain: {delay: 30s, timeout: 2x}") == [
        'f.yaml:1: drain.timeout: expected a duration such as 2s or 500ms, got "2x"'
    ]


# --- where settings come from --------------------------------------------------------------------


def test_an_empty_file_is_all_defaults() -> None:
    assert parse("") == load() == Settings()


def test_the_environment_wins_over_the_file_and_flags_over_both() -> None:
    text = "upstream: {url: http://file, connections: 5, host: crm.example}"
    environ = {"GATEWAY_UPSTREAM__URL": "http://environment", "GATEWAY_UPSTREAM__CONNECTIONS": "6"}
    upstream = parse(text, "f", environ, {"upstream.url": "http://flag"}).upstream
    assert (upstream.url, upstream.connections, upstream.host) == ("http://flag", 6, "crm.example")


def test_flags_that_were_not_given_change_nothing() -> None:
    assert parse("workers: 3", "f", {}, {"workers": None, "listen": ()}).workers == 3


@pytest.mark.parametrize(
    ("name", "value", "path", "expected"),
    [
        ("GATEWAY_NAME", "8080", "name", "8080"),
        ("GATEWAY_NAME", "null", "name", None),
        ("GATEWAY_OPS_WRITE", "off", "ops_write", "off"),
        ("GATEWAY_LISTEN", "[::1]:8080", "listen", (Listener(address="[::1]:8080"),)),
        ("GATEWAY_LISTEN", "['a:1', 'unix:/b']", "listen.1.unix", "/b"),
        ("GATEWAY_OPS", "127.0.0.1:0", "ops.port", 0),
        ("GATEWAY_UPSTREAM__TLS__VERIFY", "true", "upstream.tls.verify", True),
        ("GATEWAY_UPSTREAM__TIMEOUTS", "{idle: 3s}", "upstream.timeouts.idle", 3.0),
        ("GATEWAY_PATHS__METHODS", '["GET"]', "paths.methods", ("GET",)),
        ("GATEWAY_CORS__ORIGINS", "https://a.example", "cors.origins", ("https://a.example",)),
        ("GATEWAY_LIMITS__DEPTH", "65", "limits.depth", 65),
        ("GATEWAY_ENDPOINTS", "[{path: /b, dialect: sugarcrm}]", "endpoints.0.path", "/b"),
    ],
)
def test_a_variable_is_read_as_the_file_would_be(
    name: str, value: str, path: str, expected: object
) -> None:
    found: Any = parse("", "f", {name: value})
    for part in path.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == expected


def test_a_bad_variable_is_reported_by_its_name() -> None:
    assert mistakes("", environ={"GATEWAY_UPSTREM__URL": "x", "GATEWAY_WORKERS": "many"}) == [
        "GATEWAY_UPSTREM__URL: upstrem: unknown setting; did you mean `upstream`?",
        'GATEWAY_WORKERS: workers: expected a whole number, got "many"',
    ]


def test_a_bad_flag_is_reported_as_such() -> None:
    assert mistakes("", flags={"listen": ("nowhere",)}) == [
        "command line: listen[0].address: "
        'expected an address such as 0.0.0.0:8080 or unix:/path, got "nowhere"'
    ]


def test_what_kubernetes_says_of_a_service_called_gateway_is_no_setting() -> None:
    environ = {
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "8080",
        "GATEWAY_SERVICE_PORT_HTTP": "8080",
        "GATEWAY_PORT": "tcp://10.0.0.1:8080",
        "GATEWAY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.1",
        "GATEWAY_METRICS_SERVICE_HOST": "10.0.0.2",
        "GATEWAY_CONFIG": "/etc/gateway.yaml",
        "HOME": "/root",
    }
    assert parse("", "f", environ) == Settings()


def test_yaml_is_that_of_1_2_where_off_is_a_word_and_1_30_no_number() -> None:
    settings = parse("ops_write: off\nname: no\nlisten: localhost:30\nbatch: {flush: {time: 0}}")
    assert (settings.ops_write, settings.name) == ("off", "no")
    assert (settings.listen[0].host, settings.listen[0].port) == ("localhost", 30)


def test_anchors_may_be_used() -> None:
    text = "endpoints:\n- {path: /a, dialect: sugarcrm, flush: &f {time: 1s}}\n"
    text += "- {path: /b, dialect: sugarcrm, flush: *f}\n"
    assert [endpoint.flush.time for endpoint in parse(text).endpoints] == [1.0, 1.0]


# --- notations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notation", "text", "value", "written"),
    [
        (Duration(), "2s", 2.0, "2s"),
        (Duration(), "500ms", 0.5, "500ms"),
        (Duration(), "1m30s", 90.0, "90s"),
        (Duration(), "1.5s", 1.5, "1.5s"),
        (Duration(), "2h", 7200.0, "7200s"),
        (Duration(zero=True), 0, 0.0, "0s"),
        (Size(), "64KiB", 65536, "64KiB"),
        (Size(), "4 MiB", 4 * 2**20, "4MiB"),
        (Size(), "1.5GiB", 3 * 2**29, "1536MiB"),
        (Size(), "1MB", 10**6, 10**6),
        (Size(), 1234, 1234, 1234),
        (Share(), "10%", 0.1, "10%"),
        (Share(), 0.25, 0.25, "25%"),
        (Share(), "2.5%", 0.025, "2.5%"),
    ],
)
def test_a_notation_reads_what_it_writes(
    notation: Any, text: object, value: object, written: object
) -> None:
    assert notation.read(text) == value
    assert notation.write(value) == written
    assert notation.read(written) == value


@pytest.mark.parametrize(
    ("address", "host", "port", "unix"),
    [
        ("0.0.0.0:8080", "0.0.0.0", 8080, None),
        ("[::1]:0", "::1", 0, None),
        ("crm.example:443", "crm.example", 443, None),
    ],
)
def test_a_listener_knows_its_host_and_port(
    address: str, host: str, port: int, unix: str | None
) -> None:
    listener = parse(f"listen: '{address}'").listen[0]
    assert (listener.host, listener.port, listener.unix) == (host, port, unix)


def test_a_listener_may_be_a_socket_and_may_speak_tls() -> None:
    text = "listen: [unix:/run/a, {address: 'h:1', tls: {cert: c, key: k}}]"
    plain, secure = parse(text).listen
    assert plain.unix == "/run/a"
    assert secure.tls is not None
    assert (secure.tls.cert, secure.tls.key) == ("c", "k")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://[::1]", "https://[::1]"),
        ("unix:/run/crm.sock", "unix:/run/crm.sock"),
    ],
)
def test_a_backend_is_an_origin_or_a_socket(url: str, kept: str) -> None:
    assert parse(f"upstream: {{url: '{url}'}}").upstream.url == kept


@pytest.mark.parametrize(
    "url",
    ["crm", "ftp://crm", "http://", "http://crm/api", "http://crm?a", "http://c:99999", "unix:x"],
)
def test_a_backend_is_nothing_else(url: str) -> None:
    assert len(mistakes(f"upstream: {{url: '{url}'}}")) == 1


# --- endpoints -----------------------------------------------------------------------------------


def test_an_endpoint_has_its_dialects_options_beside_its_own_settings() -> None:
    text = "endpoints: [{path: /b, dialect: sugarcrm, width: 2, gate: true, type_is_method: true}]"
    assert parse(text).endpoints == (
        Endpoint(
            path="/b", dialect="sugarcrm", width=2, gate=True, options={"type_is_method": True}
        ),
    )


def test_an_endpoint_may_run_its_batches_in_its_own_way() -> None:
    text = "batch: {width: 4, flush: {bytes: 1KiB}}\nendpoints:\n"
    text += "- {path: /a, dialect: sugarcrm}\n"
    text += "- {path: /b, dialect: sugarcrm, width: 1, flush: {time: 0s}}\n"
    settings = parse(text)
    usual, own = (settings.batch_for(endpoint) for endpoint in settings.endpoints)
    assert usual == settings.batch
    assert (own.width, own.flush.time, own.flush.bytes) == (1, 0.0, 1024)


# --- documentation -------------------------------------------------------------------------------


def test_the_commented_file_is_the_declaration() -> None:
    kept = (ROOT / "config" / "gateway.yaml").read_text()
    assert kept == example(), "bulk-gateway settings --yaml > config/gateway.yaml"
    assert parse(kept) == Settings()


def test_the_commented_file_has_every_setting_with_its_help() -> None:
    text = example()
    for row in rows():
        if not row.name.startswith("listen[]."):
            assert re.search(rf"^[# ]*{re.escape(row.name.split('.')[-1])}:", text, re.MULTILINE)
            assert f"# {row.help}\n" in text


def test_every_setting_is_explained_in_one_line() -> None:
    for row in rows():
        assert 0 < len(row.help) <= 80, row.name
        assert not row.help.endswith("."), row.name


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_is_valid(path: Path) -> None:
    assert isinstance(load(str(path)), Settings)


def sections(part: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a schema, by the dotted name of the setting that holds it."""
    for arm in [*part.get("anyOf", ()), *part.get("oneOf", ())]:
        yield from sections(arm, path)
    if "items" in part:
        yield from sections(part["items"], f"{path}[]")
    if "properties" in part:
        yield path, part
        for name, member in part["properties"].items():
            yield from sections(member, f"{path}.{name}".removeprefix("."))


def test_the_schema_has_every_setting_and_allows_no_other() -> None:
    named = set()
    for path, section in sections(schema()):
        assert section["additionalProperties"] is False, path
        named |= {f"{path}.{name}".removeprefix(".") for name in section["properties"]}
    assert {row.name for row in rows()} <= named


def test_settings_cannot_be_changed_in_place() -> None:
    settings = Settings()
    with pytest.raises(AttributeError):
        settings.workers = 2  # type: ignore[misc]  # that is the point
    assert replace(settings, workers=2).workers == 2


def test_every_bound_of_the_settings_is_a_limit_in_force_and_null_is_none() -> None:
    found = in_force(parse("shed: {memory: 1GiB}\nlimits: {batch_time: 500ms}\n"))
    declared = {row.name for row in rows() if row.name.startswith(("limits.", "client.", "drain."))}
    assert declared <= found.keys()
    assert found["limits.batch_time"] == Limit(
        0.5, "seconds", "500ms", "a whole bulk call; unfinished subrequests become 504"
    )
    assert found["shed.memory"].value == 2**30
    assert not [name for name in found if name.startswith(("shed.lag", "rate_limit."))]


def test_an_endpoints_own_limits_are_its_batch_and_its_dialects_bounds() -> None:
    found = of_endpoint(Batch(width=3), create("truto", {"max_pages": 9}))
    assert (found["batch.width"].value, found["max_pages"].value) == (3, 9)
    assert found["max_kept_bytes"].unit == "bytes"
    assert "update" not in found


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://crm:80", "crm"),
        ("https://crm", "crm"),
        ("https://crm:80", "crm:80"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("unix:/run/crm.sock", "localhost"),
    ],
)
def test_a_backend_is_called_by_its_host_and_a_port_that_is_not_the_usual_one(
    url: str, authority: str
) -> None:
    assert Upstream(url=url).authority == authority
