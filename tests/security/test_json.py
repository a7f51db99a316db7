"""A bulk call's document means one thing, whoever reads it, or it is refused with nothing sent."""

from __future__ import annotations

import json

import pytest

from gateway.config.settings import Limits
from tests.security.siege import AGENDIZE, FORMATS, GUIDEWIRE, SUGARCRM, TRUTO, Format, echo, siege
from tests.support.raw_backend import RawBackend, answering, ok

PATHS = {form.path: form for form in FORMATS}
ENTRY = {
    SUGARCRM.path: b'{"url":"/a","method":"POST","data":@}',
    GUIDEWIRE.path: b'{"path":"/a","method":"post","body":@}',
    AGENDIZE.path: b'{"path":"/a","method":"POST","body":@}',
    TRUTO: b'{"resource":"a","method":"create","persist":true,"body":@}',
}
"""One that writes; `@` is its body."""


def document(path: str, body: bytes = b"{}", rest: bytes = b"") -> bytes:
    entry = ENTRY[path].replace(b"@", body) + rest
    if path == TRUTO:
        return b'{"integrated_account_id":"i","resources":[%b]}' % entry
    return b'{"requests":[%b]}' % entry


def deep(levels: int) -> bytes:
    return b'{"x":' + b"[" * levels + b"]" * levels + b"}"


NOT_JSON = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "half of a document": b'{"requests":[',
    "two documents": b"@{}",
    "a comma too many": b'{"requests":[],}',
    "a comma too many in a list": b'{"requests":[1,]}',
    "a comment": b"/**/@",
    "a comment behind": b"@//x",
    "single quotes": b"{'requests':[]}",
    "a name without quotes": b"{requests:[]}",
    "NaN": b'{"requests":[],"x":NaN}',
    "infinity": b'{"requests":[],"x":-Infinity}',
    "a number with a leading zero": b'{"requests":[],"x":01}',
    "a hexadecimal number": b'{"requests":[],"x":0x1}',
    "a number with a plus": b'{"requests":[],"x":+1}',
    "a bare minus": b'{"requests":[],"x":-}',
    "a control byte in a string": b'{"requests":[],"x":"\n"}',
    "a nul in a string": b'{"requests":[],"x":"\0"}',
    "a nul behind": b"@\0",
    "an unknown escape": b'{"requests":[],"x":"\\x41"}',
    "a byte order mark": b"\xef\xbb\xbf@",
    "UTF-16": '{"requests":[]}'.encode("utf-16"),
    "UTF-16 without a mark": '{"requests":[]}'.encode("utf-16-le"),
    "UTF-32": '{"requests":[]}'.encode("utf-32"),
    "latin-1": b'{"requests":[],"x":"\xe9"}',
    "UTF-8 in too many bytes": b'{"requests":[],"x":"\xc0\xae"}',
    "a surrogate as UTF-8": b'{"requests":[],"x":"\xed\xa0\x80"}',
    "UTF-8 beyond Unicode": b'{"requests":[],"x":"\xf4\x90\x80\x80"}',
    "half of a pair": b'{"requests":[],"x":"\\ud800"}',
    "the other half": b'{"requests":[],"x":"\\udc00"}',
    "halves in the wrong order": b'{"requests":[],"x":"\\udc00\\ud800"}',
    "half of a pair in a name": b'{"requests":[],"\\ud800":1}',
    "a no-break space": b'{"requests":\xc2\xa0[]}',
}


@pytest.mark.parametrize("path", ENTRY)
async def test_what_is_no_json_is_refused_with_nothing_sent(path: str) -> None:
    good = document(path)
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for name, text in NOT_JSON.items():
            body = text.replace(b"@", good).replace(b'{"requests":[],', good[:-1] + b",")
            answer = await gate.post(path, body)
            assert answer.status in (400, 422), name
            assert answer.json, name
        assert not backend.peers
        assert (await gate.post(path, good)).status == 200


@pytest.mark.parametrize("path", ENTRY)
async def test_depth_is_bounded_wherever_it_is(path: str) -> None:
    """At 64 levels by default, and none of 100,000 is walked down by recursion."""
    fine = document(path, deep(60))
    bad = [document(path, deep(levels)) for levels in (62, 1000, 10_000, 100_000)]
    bad += [
        b"[" * 100_000,
        b'{"requests":' * 50_000,
        document(path)[:-1] + b',"x":' + deep(5000) + b"}",
    ]
    entry = ENTRY[path].replace(b"@", b"{}")[:-1]
    for name in (b"headers", b"query", b"config", b"loop_on", b"unknown"):
        bad.append(document(path).replace(entry, entry + b',"%b":' % name + deep(5000)))
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for body in bad:
            assert (await gate.post(path, body)).status in (400, 422), body[:80]
        assert not backend.requests
        assert (await gate.post(path, fine)).status == 200
    assert [request.body for request in backend.requests] == [deep(60)]


async def test_a_document_inside_a_document_is_no_deeper() -> None:
    """SugarCRM's `data` may be a text that holds JSON, a nested bulk call among others."""
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for data in (deep(1000).decode(), "[" * 100_000):
            answer = await gate.bulk(SUGARCRM, [SUGARCRM.entry("/a", "POST", body=data)])
            assert SUGARCRM.statuses(answer) == [422]
        inner = json.dumps({"requests": [SUGARCRM.entry("/b", "POST", body=deep(1000).decode())]})
        answer = await gate.bulk(SUGARCRM, [SUGARCRM.entry("/bulk", "POST", body=inner)])
        assert answer.json[0]["contents"][0]["status"] == 422
        assert not backend.requests


TWICE = {
    SUGARCRM.path: [
        b'{"requests":[],"requests":[]}',
        b'{"requests":[{"url":"/a","url":"/b"}]}',
        b'{"requests":[{"url":"/a","u\\u0072l":"/b"}]}',
        b'{"requests":[{"url":"/a","method":"GET","method":"DELETE"}]}',
        b'{"requests":[{"url":"/a","data":"","data":"{}"}]}',
        b'{"requests":[{"url":"/a","headers":{},"headers":{"A":"1"}}]}',
        b'{"requests":[{"url":"/a","headers":{"A":"1","A":"2"}}]}',
        b'{"requests":[{"url":"/a","headers":[{"name":"A","name":"B","value":"1"}]}]}',
        b'{"requests":[{"url":"/a","headers":{"A":"1","\\u0041":"2"}}]}',
        b'{"requests":{"a":{"url":"/a"},"a":{"url":"/b"}}}',
        b'{"requests":{"a":{"url":"/a"},"\\u0061":{"url":"/b"}}}',
        b'{"requests":{"a":{"url":"/a","url":"/b"}}}',
    ],
    GUIDEWIRE.path: [
        b'{"requests":[{"path":"/a","path":"/b","method":"get"}]}',
        b'{"requests":[{"path":"/a","method":"get","m\\u0065thod":"delete"}]}',
        b'{"requests":[{"path":"/a","method":"post","body":{},"body":{"a":1}}]}',
        b'{"requests":[{"path":"/a","method":"get","onFail":"abort","onFail":"continue"}]}',
        b'{"requests":[{"path":"/a","method":"get","headers":[{"name":"A","name":"B","value":"1"}]}]}',
        b'{"requests":[{"path":"/a","method":"get","headers":[{"name":"A","value":"1","val\\u0075e":"2"}]}]}',
    ],
    AGENDIZE.path: [
        b'{"requests":[{"path":"/a","path":"/b"}]}',
        b'{"requests":[{"path":"/a","name":"x","name":"y"}]}',
        b'{"requests":[{"path":"/a","requests":[{"path":"/b","method":"GET","method":"PUT"}]}]}',
        b'{"requests":[{"path":"/a","headers":{"token":"1","token":"2"}}]}',
    ],
    TRUTO: [
        b'{"integrated_account_id":"a","integrated_account_id":"b","resources":[]}',
        b'{"integrated_account_id":"a","args":{},"args":{"x":1},"resources":[]}',
        b'{"integrated_account_id":"a","resources":[{"resource":"a","method":"list","name":"x","name":"y"}]}',
        b'{"integrated_account_id":"a","resources":[{"resource":"a","method":"list"},'
        b'{"type":"request","type":"spool","name":"s","resource":"a","method":"list"}]}',
        b'{"integrated_account_id":"a","resources":[{"resource":"a","method":"list",'
        b'"recurse":{"if":"{{x}}","if":"{{y}}"}}]}',
        b'{"integrated_account_id":"a","resources":[{"resource":"a","method":"get","id":"1","id":"2"}]}',
        b'{"integrated_account_id":"a","resources":[{"resource":"a","method":"list","m\\u0065thod":"delete"}]}',
    ],
}


@pytest.mark.parametrize("path", TWICE)
async def test_a_key_that_stands_twice_is_refused_with_nothing_sent(path: str) -> None:
    """Whoever checked the call before us may have read the other one."""
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for body in TWICE[path]:
            assert (await gate.post(path, body)).status in (400, 422), body
        assert not backend.peers


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_names_in_another_case_are_other_names(form: Format) -> None:
    entry = form.entry("/a") | {
        "URL": "/b",
        "Path": "/b",
        "Method": "DELETE",
        "Headers": {"a": "b"},
    }
    async with RawBackend(echo) as backend, siege(backend) as gate:
        assert form.statuses(await gate.bulk(form, [entry])) == [200]
    assert [(request.method, request.target) for request in backend.requests] == [("GET", "/a")]


BODY = (
    b'{"n":18446744073709551617,"f":1.10,"e":1E400,"z":-0,"l":%b,"a":1,"a":2, "s":"\\u00e9\\/"}'
    % (b"1" * 5000)
)


@pytest.mark.parametrize("path", ENTRY)
async def test_digits_and_bytes_survive_both_ways(path: str) -> None:
    """Keys twice, too: inside a body they are the client's own affair, and the backend's."""
    async with RawBackend(answering(ok(BODY))) as backend, siege(backend) as gate:
        answer = await gate.post(path, document(path, BODY))
        assert answer.status == 200
        assert BODY in answer.body
    assert [request.body for request in backend.requests] == [BODY]


WRONG = {
    SUGARCRM.path: [
        b'{"requests":1e999}',
        b'{"requests":true}',
        b'{"requests":[[]]}',
        b'{"requests":[{"url":[]}]}',
        b'{"requests":[{"url":{"$gt":""}}]}',
        b'{"requests":[{"url":"/a","method":{"a":1}}]}',
        b'{"requests":[{"url":"/a","headers":5}]}',
        b'{"requests":[{"url":"/a","headers":{"A":true}}]}',
        b'{"requests":[{"url":"/a","headers":{"A":["1","2"]}}]}',
        b'{"requests":{"__proto__":{}}}',
    ],
    GUIDEWIRE.path: [
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b'{"requests":{}}',
        b'{"requests":[null]}',
        b'{"requests":[{"path":"/a"}]}',
        b'{"requests":[{"path":"/a","method":1}]}',
        b'{"requests":[{"path":"/a","method":"get","query":{}}]}',
        b'{"requests":[{"path":"/a","method":"get","headers":{"A":"1"}}]}',
        b'{"requests":[{"path":"/a","method":"post","body":"x"}]}',
        b'{"requests":[{"path":"/a","method":"post","body":[]}]}',
    ],
    AGENDIZE.path: [
        b'{"requests":[{"path":1}]}',
        b'{"requests":[{"path":"/a","requests":{}}]}',
        b'{"requests":[{"path":"/a","name":1}]}',
        b'{"requests":[{"path":"/a","headers":true}]}',
    ],
    TRUTO: [
        b'{"integrated_account_id":1,"resources":[]}',
        b'{"integrated_account_id":"a","resources":{}}',
        b'{"integrated_account_id":"a","args":[],"resources":[]}',
        b'{"integrated_account_id":"a","resources":[{"resource":"a","method":"list","query":[]}]}',
        b'{"integrated_account_id":"a","resources":[{"resource":"a","method":"list","persist":"yes"}]}',
    ],
}


@pytest.mark.parametrize("path", WRONG)
async def test_a_value_of_the_wrong_sort_is_refused_with_nothing_sent(path: str) -> None:
    async with RawBackend(echo) as backend, siege(backend) as gate:
        for body in WRONG[path]:
            assert (await gate.post(path, body)).status in (400, 422), body
        assert not backend.peers


@pytest.mark.parametrize("path", ENTRY)
async def test_long_texts_are_texts_up_to_the_limit_and_then_a_413(path: str) -> None:
    text = b'"%b"' % (b"x" * 900_000)
    long = b'{"x":%b}' % text
    limits = Limits(request_bytes=2**20)
    async with RawBackend(answering(ok())) as backend, siege(backend, limits=limits) as gate:
        assert (await gate.post(path, document(path, long))).status == 200
        assert [request.body for request in backend.requests] == [long]
        longer = document(path, b'{"x":"%b"}' % (b"y" * 2**20))
        assert (await gate.post(path, longer)).status == 413
        assert (await gate.post(path, b" " * (2**20 + 1))).status == 413
        assert len(backend.requests) == 1


async def test_a_number_is_no_more_than_its_digits() -> None:
    """Converting a million of them takes minutes where a library does not bound it."""
    digits = b"9" * 1_000_000
    async with RawBackend(answering(ok())) as backend, siege(backend) as gate:
        for path in ENTRY:
            assert (await gate.post(path, document(path, b'{"x":%b}' % digits))).status == 200
        for body in (
            b'{"requests":[{"url":"/a","headers":{"X":%b}}]}' % digits,
            b'{"requests":[{"url":"/a","method":%b}]}' % digits,
        ):
            assert (await gate.post("/bulk", body)).status == 422
        node = (
            b'{"integrated_account_id":"i","resources":[{"resource":"a","method":"get","id":%b}]}'
        )
        assert (await gate.post(TRUTO, node % digits)).status in (200, 400)
        assert len(backend.requests) == len(ENTRY)
