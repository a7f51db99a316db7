"""Documents of a bulk call that are as much of one thing as may be read: 4 MiB, if not said
otherwise. And templates that are small, and enormous when they are filled in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.security.siege import AGENDIZE, TRUTO, truto

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


# --- templates -----------------------------------------------------------------------------------

WORD = "y" * 500_000
NUMBERS = list(range(9_000))
LISTED = [{"x": WORD}] * 2
"""What the backend lists at `/big`, and at the resource of this name."""


def templates() -> Iterator[tuple[str, str, bytes]]:
    """A name, a path, and what would take gigabytes or minutes if all of it were filled in. What
    asks for that are the writes among the calls."""
    for name, body in (
        ("text", {"x": "${result=a:$[0].x}" * 990}),
        ("strings", {"x": ["${result=a:$[0].x}"] * 990}),
        ("other paths to the same", {"x": ["${result=a:$%s[0].x}" % (" " * i) for i in range(99)]}),
        ("everything", {"x": ["${result=a:$}"] * 990}),
    ):
        first = AGENDIZE.entry("/big") | {"name": "a"}
        entries = [first, AGENDIZE.entry("/b", "POST", body=body)]
        yield f"agendize, {name}", AGENDIZE.path, AGENDIZE.document(entries)
    entries = [first, AGENDIZE.entry("/b/" + "${result=a:$[0].x}" * 90, "POST")]
    yield "agendize, address", AGENDIZE.path, AGENDIZE.document(entries)
    fifteen = AGENDIZE.entry("/b", "POST", body={"x": ["${result=a:$[0].x}"] * 15})
    yield "agendize, many entries", AGENDIZE.path, AGENDIZE.document([first, *[fifteen] * 9])
    for name, args, members in _placeholders():
        nodes = [{"resource": "r", "method": "create", "name": f"r{i}"} | members
                 for i in range(1 if "loop_on" in members else 3)]  # fmt: skip
        yield f"truto, {name}", TRUTO, truto(*nodes, args=args)
    big = {"resource": "big", "method": "list"}
    read = {"resource": "r", "method": "create", "body": {"x": ["{{resources.big.x}}"] * 90}}
    yield "truto, of records", TRUTO, truto(big, read | {"depends_on": "big"})


def _placeholders() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    word, many = {"a": WORD}, {"a": NUMBERS}
    yield "text", word, {"body": {"x": "{{args.a}}" * 500}}
    yield "strings", word, {"body": {"x": ["{{args.a}}"] * 500}}
    yield "id", word, {"method": "update", "id": "{{args.a}}" * 9}
    yield "query", word, {"query": {"x": ["{{args.a}}"] * 90}}
    yield "lists as text", many, {"body": {"x": "{{args.a}}" * 90}}
    yield "lists as numbers", many, {"body": {"x": ["{{args.a:int}}"] * 90}}
    yield "slices", {"a": [{"b": 1}] * 9_000}, {"body": {"x": ["{{args.a.:.z}}"] * 90}}
    merges = [{f"k{i}": 0} for i in range(1_500)]
    yield "merges", {}, {"body": {"$truto_merge": merges, "x": "{{args.a}}"}}
    members = {f"k{i}": i for i in range(5_000)}
    yield "merges of members", {"a": members}, {"body": {"$truto_merge": ["{{args.a:any}}"] * 90}}
    runs = {"loop_on": "args.l"}
    loop = {"l": list(map(str, range(1_000)))}
    yield "text in a loop", word | loop, runs | {"body": {"x": "{{args.a}}"}}
    yield "paths in a loop", {"a": 1} | loop, runs | {"body": {"x": "{{args.a}}" * 2_000}}
    yield "a long body in a loop", loop, runs | {"body": {"x": "{{args.l.0}}", "y": WORD}}
