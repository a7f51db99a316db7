"""Documents of a bulk call that are as much of one thing as may be read: 4 MiB, if not said
otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from tests.security.siege import AGENDIZE, TRUTO

SIZE = 4 * 2**20


def filled(size: int, before: bytes, unit: bytes, after: bytes) -> bytes:
    return before + unit * ((size - len(before) - len(after)) // len(unit)) + after


ENTRY = b'{"requests":[{"url":"/a","method":"POST",'
NODE = b'{"integrated_account_id":"a","resources":[{"resource":"a",'
LOOP = b'],"resources":[{"resource":"a","method":"get","id":"{{args.a.1}}","loop_on":"args.a"}]}'
KEY = len(b'"123456":0,')

OF_ONE_UNIT = [
    ("/bulk", b'{"requests":[', b"{},", b"{}]}"),
    ("/bulk", b'{"requests":[', b'{"url":"/"},', b"{}]}"),
    ("/bulk", b'{"requests":[', b"\n", b",]}"),
    ("/bulk", ENTRY + b'"headers":[', b"0,", b"0]}]}"),
    ("/bulk", ENTRY + b'"headers":[', b'"a:",', b'"a:"]}]}'),
    ("/bulk", ENTRY + b'"d\\u0061ta":[', b"[],", b"0]}]}"),
    ("/bulk", ENTRY + b'"data":[', b'{"url":1},', b"0]}]}"),
    ("/bulk", ENTRY + b'"data":"[', b"[],", b'0]"}]}'),
    ("/bulk", ENTRY + b'"data":', b"[", b""),
    ("/bulk", b'{"requests":[{"url":"/', b"%2e", b'"}]}'),
    ("/bulk", b'{"requests":[{"url":"/bulk","method":"POST","data":{"requests":[', b"{},",
     b"{}]}}]}"),
    ("/batch", b'{"requests":[', b'{"method":"","path":""},', b'{"method":"","path":""}]}'),
    ("/batch", b'{"requests":[{"method":"get","path":"/a","headers":[', b'{"name":"a","value":1},',
     b"0]}]}"),
    (AGENDIZE.path, b'{"requests":[', b'{"path":"/a"},', b'{"path":"/a"}]}'),
    (AGENDIZE.path, b'{"requests":[{"path":"/b","body":[', b'"{",', b'"{"]}]}'),
    (AGENDIZE.path, b'{"requests":[{"path":"/b","body":["', b"${result=a:$.a}", b'"]}]}'),
    (AGENDIZE.path, b'{"requests":[{"path":"/b","headers":"', b"a:b\\n", b'"}]}'),
    (AGENDIZE.path, b'{"requests":[{"path":"/b","body":"{\\"a\\":[', b"[],", b'0]}"}]}'),
    (TRUTO, b'{"integrated_account_id":"a","resources":[', b"{},", b"{}]}"),
    (TRUTO, b'{"integrated_account_id":"a","args":{"a":[', b"[],", b"0]}" + LOOP[1:]),
    (TRUTO, NODE + b'"method":"create","body":{"x":"', b"{{a}}", b'"}}]}'),
    (TRUTO, NODE + b'"method":"create","body":{"x":"', b"{{", b'"}}]}'),
    (TRUTO, NODE + b'"method":"create","body":{"x":["{{a}}",', b"[],", b"0]}}]}"),
    (TRUTO, NODE + b'"method":"list","query":{"x":["', b"{{a|", b'"]}}]}'),
    (TRUTO, NODE + b'"method":"list","query":{"x":[', b'{"a":1},', b"0]}}]}"),
    ("/bulk", ENTRY + b'"data":[', b"[" * 50 + b"]" * 50 + b",", b"0]}]}"),
    ("/bulk", ENTRY + b'"data":[', b'"[",', b"0]}]}"),
    ("/api/2.0/batch", b'{"requests":[{"path":"/b","body":[', b'"\\u0041",', b"0]}]}"),
    ("/api/2.0/batch", b'{"requests":[{"path":"/b","body":{', b'"{a}":0,', b'"x":0}}]}'),
    (TRUTO, NODE + b'"method":"create","body":' + b'{"x":' * 58 + b'["', b"a",
     b'","{{args.x}}"]' + b"}" * 60 + b"]}"),
    (TRUTO, NODE + b'"method":"list","depends_on":[', b'"a",', b'"a"]}]}'),
]  # fmt: skip
"""A path, and what stands before, in and behind as many as there is room for."""


def documents(size: int = SIZE) -> Iterator[tuple[str, bytes]]:
    keys = b",".join(b'"%d":0' % number for number in range(size // KEY))
    yield "/bulk", b'{"requests":{' + keys + b"}}"
    yield "/bulk", ENTRY + b'"headers":{' + keys + b"}}]}"
    for path, before, unit, after in OF_ONE_UNIT:
        yield path, filled(size, before, unit, after)
