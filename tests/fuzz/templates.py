"""References, placeholders and JSONPath: any text is read, and what is put in stays inside.

An input is a template, a 0x1E, and the document it looks into.
"""

from __future__ import annotations

import json

from gateway.batch import Reply, Scope
from gateway.errors import BadTarget, Unresolved
from gateway.target import normalise
from gateway.templates import jsonpath, references, trees, values
from gateway.templates.placeholders import Meter, parts
from gateway.templates.scope import BadPlaceholder, Layer
from gateway.templates.values import Node
from tests.fuzz.hunt import Signs

WORDS = (
    b"${result=a:$.id}", b"${result=", b"$.id", b"$..", b"[0]", b"[*]", b"['a']", b"[1:3]",
    b"[1e5]", b"[-1]", b"[::-1]", b"[?(@.a)]", b"}", b"{{", b"}}", b"{{args.a}}",
    b"{{args.ids.0:int}}", b"{{a|b:json}}", b"{{a?:1:num}}", b":undefined", b":null", b":bool",
    b":str", b"{id}", b"{company.id}", b"$truto_merge", b'"', b"\\", b"\\u007b", b"\x1e",
    b'{"a":1,"ids":[1,2,{"id":"x"}]}', b'{"id":"../x"}', b'{"id":"a\\r\\nb"}', b"[[[[", b"/",
    b"%2e",
)  # fmt: skip
SEEDS = (
    b'${result=a:$.id}\x1e{"id":"x"}',
    b'a-${result=a:$..id}\x1e{"id":1,"b":[{"id":2.50}]}',
    b'{company.id}/{id}\x1e{"id":"a/b"}',
    b'$..ids[0:2]\x1e{"a":{"ids":[1,2,3]}}',
    b'{{args.a}}{{args.b:int}}{{args.c|args.d?:5:num}}\x1e{"a":"x","b":"12","d":true}',
    b'{{args.a:json}}\x1e{"a":"{\\"b\\":1}"}',
)


def run(data: bytes) -> Signs:
    template, _, document = data.partition(b"\x1e")
    text = template.decode("utf-8", "replace")
    value = values.document(document)
    return frozenset(
        {
            "references " + _references(text, document),
            "properties " + _scanned(text, references.properties),
            "path " + _path(text, value),
            "placeholders " + _placeholders(text, value or b"{}"),
        }
    )


# --- references ----------------------------------------------------------------------------------


def _scanned(text: str, scan: references.Scan) -> str:
    try:
        found = scan(text)
    except Unresolved as why:
        return why.message
    assert len(found) > 1 or found == [text]
    assert sum(len(part) for part in found if isinstance(part, str)) <= len(text)
    # In a JSON text the same strings are found, whatever their spelling.
    for quoted in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        pieces = list(references.strings(quoted.encode(), scan))
        assert [piece for piece in pieces if isinstance(piece, list)] == [found] * (len(found) > 1)
    return str(min(len(found), 9))


def _references(text: str, document: bytes) -> str:
    said = _scanned(text, references.results)
    try:
        resolved = tuple(
            part if isinstance(part, str) else references.Reference("a", jsonpath.parse(part.path))
            for part in references.results(text)
        )
    except (Unresolved, jsonpath.BadPath, jsonpath.Unbounded):
        return said
    paths = tuple(part.path for part in resolved if not isinstance(part, str))
    scope = {"a": references.Matches(paths).pick(Reply(200, body=document))}
    return f"{said} {_in_path(resolved, scope)} {_in_body(resolved, scope)}"


def _in_path(resolved: references.Parts, scope: Scope) -> str:
    """Whatever the document says, it is data of one segment."""
    holes = tuple(part for part in resolved if not isinstance(part, str))
    template = references.PathTemplate("", "here", ("/before/", *holes, "/after"))
    try:
        path = normalise(template.fill(scope))
    except Unresolved as why:
        return why.message
    except BadTarget as bad:
        return bad.slug
    assert path.startswith("/before/")
    assert path.endswith("/after")
    assert path.count("/") == 3
    assert not {"?", "#"} & {*path}
    return "filled"


def _in_body(resolved: references.Parts, scope: Scope) -> str:
    template = references.BodyTemplate("", "here", (b'{"x":', resolved, b',"y":1}'))
    try:
        body = template.fill(scope)
    except Unresolved as why:
        return why.message
    assert list(json.loads(body, parse_int=str, parse_float=str)) == ["x", "y"]
    return "filled"


def _path(text: str, value: bytes | None) -> str:
    try:
        path = jsonpath.parse(text)
    except jsonpath.BadPath:
        return "none"
    except jsonpath.Unbounded as why:
        return why.what
    try:
        matches = jsonpath.Walker(value or b"{}").matches(path)
    except Unresolved as why:
        return why.message
    for match in matches:
        assert match in (value or b"{}")  # the document's own bytes
        assert values.document(match) is not None
    kinds = (selector.__class__.__name__ for s in path.segments for selector in s.selectors)
    return f"{min(len(matches), 3)} by {' '.join(sorted(set(kinds)))}"


# --- placeholders --------------------------------------------------------------------------------


def _placeholders(text: str, value: bytes) -> str:
    scope = Layer()
    scope.bind(("args",), Node(value))
    try:
        found = parts(text, Meter())
        template = trees.template(json.dumps({"x": text, "y": [text]}).encode(), Meter())
    except BadPlaceholder as bad:
        return bad.what
    assert text == "".join(part if isinstance(part, str) else part.source for part in found)
    try:
        filled = trees.fill(template, scope)
        body, query = trees.encode(filled), list(trees.query(filled))
    except Unresolved as why:
        return why.message
    assert {*json.loads(body, parse_int=str, parse_float=str)} <= {"x", "y"}
    for pair in query:
        assert pair.isascii()
        assert pair.isprintable()
        assert not {*" #&"} & {*pair}
    kinds = {values.kind(bytes(v)) for v in values.members(body).values()}
    return f"{min(len(found), 9)} {' '.join(sorted(kinds))}"
