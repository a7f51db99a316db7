"""The shapes of requests and answers that must come through as they are. Extend this table.

Three parts, by what is special:

    REQUESTS       a request; the backend answers all of them alike
    ANSWERS        an answer; the client says `GET /`, or what stands before it
    DIALOGUES      who says what when: pieces, pipelines, early answers, 100 (Continue)

Each line is tried straight at a backend and through the gateway, and test_shapes.py compares what
both ends get. So a line says what happens, never what is expected, but for the few where a proxy
has to make a difference: there `arrives` is what the backend is to get instead.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace

from tests.passthrough.scripts import early, in_pieces, inviting, telling
from tests.support.raw_backend import Script

HOST = "Host: shop.example"


def ask(
    line: str, *fields: str, body: bytes = b"", host: str = HOST, version: str = "1.1"
) -> bytes:
    """A request: `ask("GET /a")`."""
    lines = [f"{line} HTTP/{version}", *([host] if host else ()), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def give(line: str, *fields: str, body: bytes) -> bytes:
    """A request with contents and their length."""
    return ask(line, *fields, f"Content-Length: {len(body)}", body=body)


def tell(
    status: str, *fields: str, body: bytes = b"", length: bool = True, version: str = "1.1"
) -> bytes:
    """An answer: `tell("200 OK", body=b"hello")`; `length=False` when it says none."""
    said = [f"Content-Length: {len(body)}"] if length else []
    lines = [f"HTTP/{version} {status}", *fields, *said, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


CHUNKED = "Transfer-Encoding: chunked"


def chunks(*pieces: bytes, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    """Contents in chunks."""
    sent = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join(sent) + b"0\r\n" + trailer + b"\r\n"


OK = tell("200 OK", "Content-Type: application/json", body=b"{}")
WAIT = b""
"""In a dialogue: the client reads an answer before it says more."""


@dataclass(frozen=True)
class Shape:
    """One line of the table."""

    says: tuple[bytes, ...]
    """What the client sends, each piece in a packet of its own."""
    told: tuple[bytes, ...] | Script
    """What the backend answers, one after the other, the last one over again; or all it does."""
    methods: tuple[str, ...]
    """Of the requests: so many answers follow, interim ones that were waited for besides."""
    arrives: bytes | None = None
    """What the backend gets of a request that a proxy has to change."""

    def script(self) -> Script:
        """A backend that does what is told, from its beginning."""
        return telling(*self.told) if isinstance(self.told, tuple) else self.told


# --- requests ------------------------------------------------------------------------------------

METHODS = [
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
    # WebDAV and its relatives (RFC 4918, 3253, 3648, 3744, 4791, 5323, 5842)
    *("COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK", "ACL"),
    *("BIND", "REBIND", "UNBIND", "REPORT", "MKACTIVITY", "CHECKOUT", "MERGE", "MKCALENDAR"),
    # UPnP, caches, links (RFC 2068), Icecast
    *("M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PURGE", "LINK", "UNLINK", "SOURCE"),
    "QUERY",
]
"""All that llhttp takes, but CONNECT and TRACE, which the gateway does not serve."""

TARGETS = {
    "a lone question mark": "/?",
    "two question marks": "/a??b?c",
    "an empty path segment": "/a//b",
    "nothing but slashes": "////",
    "two slashes first": "//evil.example/a",
    "a slash at the end": "/a/b/",
    "semicolons": "/a;v=1;w/b;x?c;d=e;",
    "an encoded slash": "/a%2Fb%2fc",
    "an encoded backslash": "/a%5Cb",
    "encoded unreserved characters": "/%7Euser/%41%2D%2e",
    "encoded twice": "/a%252Fb%2525",
    "an encoded null": "/a%00b",
    "an encoded space and a plus": "/a%20b+c?d=%20+e",
    "an encoded line break": "/a%0D%0AX-A:%20b",
    "no valid encoding": "/100%/a%zz?b=%",
    "dot segments": "/a/./b/../c/",
    "encoded dot segments": "/a/%2e%2E/b/.%2e/",
    "only a dot segment": "/..",
    "all that may stand in a path": "/-._~!$&'()*+,;=:@",
    "characters that should be encoded": '/a"<>[]^`{|}\\b?"<>[]^`{|}\\',
    "a colon in the first segment": "/a:b/c",
    "an address in the query": "/go?to=https://a.example/b?c#"[:-1],
    "an address in the path": "/http://a.example/b",
    "repeated and empty parameters": "/?a=1&a=2&a&&=&b=",
    "brackets in parameters": "/?filter[name][$eq]=x&fields=a,b",
    "encoded UTF-8": "/caf%C3%A9/%E2%98%83?q=%F0%9F%98%80",
    "encoded bytes that are no UTF-8": "/caf%E9/%FF?q=%C3",
    "8,000 bytes of path": "/" + "a/" * 4000,
    "8,000 bytes of query": "/?" + "a=1&" * 2000,
    "16,000 bytes": "/" + "x" * 16_000,
    "a file": "/static/app.3f2a.min.js",
    "a bulk endpoint's path with another ending": "/rest/v11_3/bulk/x",
    "a bulk endpoint asked by GET": "/rest/v11_3/bulk",
}

FIELDS = {
    "none but Host": (),
    "an empty value": ("X-Empty:",),
    "space around a value": ("X-A:  b c\t ",),
    "no space before a value": ("X-A:b",),
    "tabs in a value": ("X-A: b\tc",),
    "odd case": ("aCCept: a", "X-ODD-case: B", "x-lower: c"),
    "repeated": ("X-A: 1", "X-B: 2", "X-A: 3", "x-a: 1", "X-A: 1"),
    "repeated cookies": ("Cookie: a=1", "Cookie: b=2; c=3"),
    "latin-1": ("X-A: caf\xe9 \xff",),
    "UTF-8": ("X-A: caf\xc3\xa9 \xe2\x98\x83",),
    "every character of a name": ("!#$%&'*+-.^_`|~019AZaz: 1",),
    "underscores": ("X_A: 1", "x_b_c: 2"),
    "quotes and commas": ('X-A: "a, \\"b\\"", c', "X-B: ,,"),
    "a long value": ("X-Long: " + "v" * 15_000,),
    "a long name": ("X-" + "n" * 1000 + ": 1",),
    "one hundred": tuple(f"X-{number}: {number}" for number in range(100)),
    "a large cookie": ("Cookie: " + "; ".join(f"c{n}={'x' * 50}" for n in range(100)),),
    "credentials": ("Authorization: Bearer a.b.c", "Cookie: s=1", "X-Api-Key: k"),
    "a browser's": (
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0",
        "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
        "Accept-Language: de,en-US;q=0.7",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Referer: https://shop.example/",
        "Sec-Fetch-Mode: navigate",
        "DNT: 1",
        "Priority: u=0, i",
    ),
    "a preflight": (
        "Origin: https://a.example",
        "Access-Control-Request-Method: PUT",
        "Access-Control-Request-Headers: x-a",
    ),
    "conditions": (
        'If-None-Match: W/"1", "2"',
        "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
        "If-Match: *",
        'If-Range: "1"',
        "Range: bytes=0-1,-5",
    ),
    "refused codings": ("Accept-Encoding: identity;q=0, *;q=0",),
    "caching": ("Cache-Control: no-cache, max-age=0", "Pragma: no-cache", "Age: 5"),
    "a trace": (
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: a=1",
        "baggage: b=2",
        "X-Request-Id: r-1",
        "X-B3-TraceId: 80f198ee56343ba8",
    ),
    "what a proxy may not read": (
        "Max-Forwards: 3",
        "Idempotency-Key: k",
        "X-HTTP-Method-Override: PATCH",
        "Prefer: return=minimal",
        "Digest: a=b",
        "Signature: s=:YQ==:",
        "DPoP: a.b.c",
    ),
    "connection options": ("Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5"),
    "options of one connection": ("TE: trailers, gzip", "Proxy-Connection: keep-alive"),
    "an upgrade without its option": ("Upgrade: websocket",),
    "a connection option that is no token": ("Connection: ,, keep-alive ,",),
    "credentials as connection options": ("Connection: Authorization, Cookie", "Authorization: a"),
}

JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
PARTS = "Content-Type: multipart/form-data; boundary=b"
FILE = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n\0\xff\r\n--b--\r\n'
BINARY = bytes(range(256)) * 8
LARGE = BINARY * 512

CONTENTS = {
    "JSON": give("POST /a", JSON, body=b'{"a": 1.10, "b": 18446744073709551616}'),
    "a form": give("POST /a", FORM, body=b"a=1&b=%20+&c"),
    "a file": give("POST /a", PARTS, body=FILE),
    "bytes": give("PUT /a", "Content-Type: application/octet-stream", body=BINARY),
    "a megabyte": give("PUT /a", body=LARGE),
    "no type": give("POST /a", body=b"a"),
    "a type nobody knows": give("POST /a", "Content-Type: x/y; z=1", body=b"a"),
    "gzip": give("POST /a", "Content-Encoding: gzip", body=gzip.compress(BINARY, mtime=0)),
    "a coding that it is not in": give("POST /a", "Content-Encoding: gzip, br", body=b"plain"),
    "a coding nobody knows": give("POST /a", "Content-Encoding: x-mine", body=b"\0\1"),
    "what looks like a request": give("POST /a", body=ask("GET /b")),
    "a length of 0": ask("POST /a", "Content-Length: 0"),
    "neither length nor contents": ask("POST /a"),
    "odd spelling": ask("POST /a", "content-LENGTH: 2", body=b"ab"),
    "zeros before the length": ask("POST /a", "Content-Length: 0002", body=b"ab"),
    "a length in front": ask("POST /a", "Content-Length: 2", "X-After: 1", body=b"ab"),
    "with GET": give("GET /search", JSON, body=b'{"query": {}}'),
    "with GET, of length 0": ask("GET /a", "Content-Length: 0"),
    "with DELETE": give("DELETE /a", JSON, body=b"[1]"),
    "with DELETE, of length 0": ask("DELETE /a", "Content-Length: 0"),
    "with OPTIONS": give("OPTIONS /a", body=b"a"),
    "with HEAD": give("HEAD /a", body=b"a"),
    "with PROPFIND": give("PROPFIND /a", "Depth: 1", body=b"<propfind/>"),
    "with MKCOL, of length 0": ask("MKCOL /a", "Content-Length: 0"),
    "in chunks": ask("POST /a", CHUNKED, body=chunks(b"hello", b" ", b"world")),
    "in one chunk": ask("POST /a", CHUNKED, body=chunks(b"hello")),
    "in no chunk": ask("POST /a", CHUNKED, body=chunks()),
    "in large chunks": ask("POST /a", CHUNKED, body=chunks(*[BINARY * 16] * 30)),
    "in many chunks": ask("POST /a", CHUNKED, body=chunks(*[b"x"] * 2000)),
    "in chunks, with extensions": ask("POST /a", CHUNKED, body=chunks(b"a", extension=b";b=c")),
    "in chunks, with a trailer": ask("POST /a", CHUNKED, body=chunks(b"a", trailer=b"X-T: 1\r\n")),
    "in chunks, oddly spelt": ask("POST /a", "transfer-encoding: Chunked", body=chunks(b"a")),
    "in chunks, with PUT": ask("PUT /a", CHUNKED, JSON, body=chunks(b"{", b"}")),
    "in chunks, with GET": ask("GET /a", CHUNKED, body=chunks(b"a")),
    "in chunks, in capitals": ask("POST /a", CHUNKED, body=b"A\r\n0123456789\r\n0\r\n\r\n"),
    "in chunks, with zeros": ask("POST /a", CHUNKED, body=b"0001\r\na\r\n000\r\n\r\n"),
}

REQUESTS: dict[str, bytes] = {
    **{f"method {method}": ask(f"{method} /a/b?c=d") for method in METHODS},
    **{f"target, {name}": ask(f"GET {target}") for name, target in TARGETS.items()},
    **{f"fields, {name}": ask("GET /a", *fields) for name, fields in FIELDS.items()},
    **{f"contents, {name}": request for name, request in CONTENTS.items()},
    "everything a server can do": ask("OPTIONS *"),
    "Host with a port": ask("GET /a", host="Host: shop.example:8443"),
    "Host in capitals": ask("GET /a", host="hOST: SHOP.Example"),
    "Host that is an IPv6 address": ask("GET /a", host="Host: [::1]:80"),
    "Host at the end": ask("GET /a", "X-A: 1", "X-B: 2", HOST, host=""),
    "HTTP/1.0": ask("GET /a", version="1.0"),
    "HTTP/1.0 that stays": ask("GET /a", "Connection: keep-alive", version="1.0"),
    "HTTP/1.0 with contents": ask("POST /a", "Content-Length: 1", body=b"a", version="1.0"),
    "a client that leaves": ask("GET /a", "Connection: close"),
    "an empty line before": b"\r\n" + ask("GET /a"),
}

MEANT = "Host: a.example"

DIFFERENT: dict[str, tuple[bytes, bytes]] = {
    # What a proxy has to make of a target in absolute form (RFC 9112 3.2.2 and 3.2.4).
    "absolute form": (ask("GET http://a.example/b?c=//d"), ask("GET /b?c=//d", host=MEANT)),
    "absolute form of https": (ask("GET https://a.example/b"), ask("GET /b", host=MEANT)),
    "absolute form with a port": (ask("GET http://a.example:8/"), ask("GET /", host=MEANT + ":8")),
    "absolute form without a path": (ask("GET http://a.example"), ask("GET /", host=MEANT)),
    "absolute form, query alone": (ask("GET http://a.example?b"), ask("GET /?b", host=MEANT)),
    "absolute form, OPTIONS": (ask("OPTIONS http://a.example"), ask("OPTIONS *", host=MEANT)),
    "absolute form, OPTIONS /": (ask("OPTIONS http://a.example/"), ask("OPTIONS /", host=MEANT)),
}

# --- answers -------------------------------------------------------------------------------------

STATUSES = [
    *("201 Created", "202 Accepted", "203 Non-Authoritative Information", "207 Multi-Status"),
    *("208 Already Reported", "226 IM Used", "300 Multiple Choices", "301 Moved Permanently"),
    *("302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"),
    *("400 Bad Request", "401 Unauthorized", "402 Payment Required", "403 Forbidden"),
    *("404 Not Found", "405 Method Not Allowed", "406 Not Acceptable", "407 Proxy"),
    *("408 Request Timeout", "409 Conflict", "410 Gone", "411 Length Required"),
    *("412 Precondition Failed", "413 Content Too Large", "414 URI Too Long", "415 Unsupported"),
    *("416 Range Not Satisfiable", "417 Expectation Failed", "418 I'm a teapot", "421 Misdirected"),
    *("422 Unprocessable Content", "423 Locked", "424 Failed Dependency", "425 Too Early"),
    *("426 Upgrade Required", "428 Precondition Required", "429 Too Many Requests", "431 Large"),
    *("451 Unavailable For Legal Reasons", "500 Internal Server Error", "501 Not Implemented"),
    *("502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "505 No", "507 Full"),
    *("508 Loop Detected", "511 Network Authentication Required", "299 Odd", "499 Gone", "599 Odd"),
]

ANSWERS: dict[str, bytes | tuple[bytes, bytes]] = {
    **{f"status {status}": tell(status, body=b"contents") for status in STATUSES},
    "neither type nor date": tell("200 OK", body=b"hi"),
    "its own date and server": tell("200 OK", "Date: yesterday", "Server: mine/1", body=b"hi"),
    "a reason of its own": tell("200 Quite all right, thank you"),
    "no reason": tell("200 "),
    "no reason, no space": tell("200"),
    "a reason in latin-1": tell("200 caf\xe9"),
    "cookies": tell("200 OK", "Set-Cookie: a=1; Path=/", "set-cookie: b=2", "Set-Cookie: a=3"),
    "repeated fields": tell("200 OK", "X-A: 1", "X-B: 2", "X-A: 3", "x-a: 4", "Vary: a", "Vary: b"),
    "odd case": tell("200 OK", "x-ODD: 1", "CONTENT-type: text/PLAIN", body=b"hi"),
    "latin-1": tell("200 OK", "X-A: caf\xe9 \xff"),
    "UTF-8": tell("200 OK", "X-A: \xe2\x98\x83"),
    "an empty value": tell("200 OK", "X-A:", "X-B: "),
    "space around a value": tell("200 OK", "X-A:   b  ", "X-B:c"),
    "a length in front": tell(
        "200 OK", "Content-Length: 2", "X-After: 1", body=b"hi", length=False
    ),
    "odd spelling of the length": tell("200 OK", "content-LENGTH: 2", body=b"hi", length=False),
    "one hundred fields": tell("200 OK", *(f"X-{number}: {number}" for number in range(100))),
    "a long field": tell("200 OK", "X-A: " + "v" * 20_000),
    "many cookies": tell("200 OK", *(f"Set-Cookie: c{n}={'x' * 200}" for n in range(80))),
    "another proxy's Via": tell("200 OK", "Via: 1.1 cache", "Age: 7", "X-Cache: HIT"),
    "a challenge": tell("401 No", 'WWW-Authenticate: Basic realm="a"', "WWW-Authenticate: Bearer"),
    "redirect to nowhere": tell("301 Moved Permanently"),
    "redirect by path": tell("302 Found", "Location: /b?c=%20#d"),
    "redirect elsewhere": tell("302 Found", "Location: //a.example/b"),
    "redirect in UTF-8": tell("302 Found", "Location: /caf\xc3\xa9"),
    "created": tell("201 Created", "Location: /a/1", 'ETag: "1"', body=b"{}"),
    "no content": tell("204 No Content", length=False),
    "no content, of length 0": tell("204 No Content"),
    "no content, with fields": tell("204 No Content", "ETag: 1", "X-A: 1", length=False),
    "reset content": tell("205 Reset Content"),
    "reset content, in no chunk": tell("205 Reset Content", CHUNKED, body=chunks(), length=False),
    "not modified": tell("304 Not Modified", 'ETag: "1"', "Vary: a", length=False),
    "not modified, with a length": tell("304 Not Modified", "Content-Length: 42", length=False),
    "not modified, with a type": tell("304 Not Modified", "Content-Type: text/css", length=False),
    "not modified, in chunks": tell("304 Not Modified", CHUNKED, length=False),
    "part of it": tell("206 Partial Content", "Content-Range: bytes 0-1/9", body=b"ab"),
    "parts of it": tell(
        "206 Partial Content", "Content-Type: multipart/byteranges; boundary=b", body=FILE
    ),
    "none of it": tell("416 Range Not Satisfiable", "Content-Range: bytes */9"),
    "busy": tell("503 Service Unavailable", "Retry-After: 120", body=b"later"),
    "empty": tell("200 OK"),
    "bytes": tell("200 OK", "Content-Type: application/octet-stream", body=BINARY),
    "a megabyte": tell("200 OK", body=LARGE),
    "gzip": tell("200 OK", "Content-Encoding: gzip", body=gzip.compress(BINARY, mtime=0)),
    "deflate": tell("200 OK", "Content-Encoding: deflate", body=zlib.compress(BINARY)),
    "a coding that it is not in": tell("200 OK", "Content-Encoding: br", body=b"plain"),
    "two codings": tell("200 OK", "Content-Encoding: gzip, gzip", body=b"\x1f\x8b"),
    "a coding nobody knows": tell("200 OK", "Content-Encoding: x-mine", body=b"\0\1"),
    "JSON as it was written": tell("200 OK", JSON, body=b'{"a":1.10,"a" : -0, "b":1E400}\n'),
    "what looks like an answer": tell("200 OK", body=OK),
    "in chunks": tell("200 OK", CHUNKED, body=chunks(b"hello", b" ", b"world"), length=False),
    "in no chunk": tell("200 OK", CHUNKED, body=chunks(), length=False),
    "in many chunks": tell("200 OK", CHUNKED, body=chunks(*[b"x"] * 2000), length=False),
    "in large chunks": tell("200 OK", CHUNKED, body=chunks(*[BINARY * 16] * 30), length=False),
    "in chunks, with a trailer": tell(
        "200 OK", CHUNKED, "Trailer: X-T", body=chunks(b"a", trailer=b"X-T: 1\r\n"), length=False
    ),
    "in chunks, with extensions": tell(
        "200 OK", CHUNKED, body=chunks(b"a", extension=b";b=c"), length=False
    ),
    "in chunks, oddly spelt": tell(
        "200 OK", "transfer-ENCODING: Chunked", body=chunks(b"a"), length=False
    ),
    "up to the end": tell("200 OK", body=b"until I close", length=False),
    "up to the end, empty": tell("200 OK", length=False),
    "up to the end, large": tell("200 OK", body=LARGE, length=False),
    "HTTP/1.0": tell("200 OK", body=b"hi", version="1.0"),
    "HTTP/1.0 up to the end": tell("200 OK", body=b"hi", version="1.0", length=False),
    "a connection that ends": tell("200 OK", "Connection: close", body=b"hi"),
    "options of one connection": tell(
        "200 OK", "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "X-B: 2"
    ),
    "an upgrade on offer": tell("426 Upgrade Required", "Upgrade: TLS/1.2", "Connection: Upgrade"),
    "early hints": tell("103 Early Hints", "Link: </a>; rel=preload", length=False) + OK,
    "two interim answers": tell("102 Processing", length=False) * 2 + OK,
    "an invitation nobody asked for": tell("100 Continue", length=False) + OK,
    "HEAD with a length": (ask("HEAD /a"), tell("200 OK", "Content-Length: 999", length=False)),
    "HEAD without a length": (ask("HEAD /a"), tell("200 OK", JSON, length=False)),
    "HEAD in chunks": (ask("HEAD /a"), tell("200 OK", CHUNKED, length=False)),
    "HEAD not found": (ask("HEAD /a"), tell("404 Not Found", "Content-Length: 9", length=False)),
    "HEAD with a coding": (
        ask("HEAD /a"),
        tell("200 OK", "Content-Encoding: gzip", "Content-Length: 30", length=False),
    ),
    "HEAD to an HTTP/1.0 client": (
        ask("HEAD /a", version="1.0"),
        tell("200 OK", "Content-Length: 9", length=False),
    ),
    "chunks to an HTTP/1.0 client": (
        ask("GET /a", version="1.0"),
        tell("200 OK", CHUNKED, body=chunks(b"a", b"b"), length=False),
    ),
    "up to the end to an HTTP/1.0 client": (
        ask("GET /a", "Connection: keep-alive", version="1.0"),
        tell("200 OK", body=b"until I close", length=False),
    ),
    "what a server can do": (ask("OPTIONS *"), tell("200 OK", "Allow: GET, HEAD", "DAV: 1, 2")),
    "a preflight's": (
        ask("OPTIONS /a", "Origin: https://a.example", "Access-Control-Request-Method: PUT"),
        tell("204 No Content", "Access-Control-Allow-Origin: *", length=False),
    ),
    "contents after DELETE": (ask("DELETE /a"), tell("200 OK", body=b"gone")),
    "WebDAV's": (
        ask("PROPFIND /a", "Depth: 1"),
        tell("207 Multi-Status", "Content-Type: application/xml", body=b"<multistatus/>"),
    ),
}

# --- dialogues -----------------------------------------------------------------------------------


def pieces(data: bytes, size: int = 1) -> tuple[bytes, ...]:
    return tuple(data[start : start + size] for start in range(0, len(data), size))


GET = ask("GET /a")
HELD_BACK = ask("POST /a", "Content-Length: 5", "Expect: 100-continue")
UPLOAD = ask("POST /a", "Content-Length: 100000")
IN_CHUNKS = ask("POST /a", CHUNKED)
OTHER = tell("404 Not Found", "X-A: 1", body=b"nothing")
STREAM = tell("200 OK", CHUNKED, body=chunks(b"hello", b"world"), length=False)
EMPTY = tell("204 No Content", length=False)
UNCHANGED = tell("304 Not Modified", 'ETag: "1"', length=False)
TOO_MUCH = tell("413 Content Too Large", "Connection: close", body=b"enough")
KEPT = ask("GET /a", "Connection: keep-alive", version="1.0")

DIALOGUES: dict[str, Shape] = {
    # a request in pieces
    "a head in pieces": Shape(pieces(ask("GET /a", "X-A: 1"), 7), (OK,), ("GET",)),
    "a head byte by byte": Shape(pieces(ask("GET /?", "X-A: 1")), (OK,), ("GET",)),
    "contents behind their head": Shape((UPLOAD, LARGE[:100_000]), (OK,), ("POST",)),
    "contents in pieces": Shape((UPLOAD, *pieces(LARGE[:100_000], 9999)), (OK,), ("POST",)),
    "contents that begin with their head": Shape(
        (UPLOAD + LARGE[:10], LARGE[10:100_000]), (OK,), ("POST",)
    ),
    "chunks in pieces": Shape(
        (IN_CHUNKS, *pieces(chunks(b"hello", b"world", b"!" * 300))), (OK,), ("POST",)
    ),
    "chunks one by one": Shape(
        (IN_CHUNKS, b"1\r\na\r\n", b"2\r\nbc\r\n", b"0\r\n\r\n"), (OK,), ("POST",)
    ),
    "a first chunk with the head": Shape(
        (IN_CHUNKS + b"1\r\na\r\n", b"0\r\n\r\n"), (OK,), ("POST",)
    ),
    "chunks and a trailer in pieces": Shape(
        (IN_CHUNKS, b"1\r\na\r\n0\r\n", b"X-T: 1\r\n", b"\r\n"), (OK,), ("POST",)
    ),
    # an answer in pieces
    "an answer's head byte by byte": Shape((GET,), in_pieces(*pieces(OK)), ("GET",)),
    "an answer's contents in pieces": Shape(
        (GET,), in_pieces(*pieces(tell("200 OK", body=BINARY), 99)), ("GET",)
    ),
    "an answer's chunks in pieces": Shape((GET,), in_pieces(*pieces(STREAM)), ("GET",)),
    "an answer up to the end in pieces": Shape(
        (GET,), in_pieces(tell("200 OK", length=False), b"one", b"two"), ("GET",)
    ),
    "an interim answer in pieces": Shape(
        (GET,), in_pieces(b"HTTP/1.1 103 E\r\nLin", b"k: a\r\n\r\nHTTP/1.1 2", OK[10:]), ("GET",)
    ),
    "an answer in pieces to an HTTP/1.0 client": Shape(
        (ask("GET /a", version="1.0"),), in_pieces(*pieces(STREAM, 5)), ("GET",)
    ),
    # several requests on one connection
    "two in turn": Shape(
        (GET, WAIT, GET),
        (
            OK,
            OTHER,
        ),
        ("GET", "GET"),
    ),
    "ten in turn": Shape(
        (GET, WAIT) * 9 + (GET,),
        (
            OK,
            OTHER,
            OK,
            STREAM,
        ),
        ("GET",) * 10,
    ),
    "all kinds in turn": Shape(
        (
            *(give("POST /a", body=b"x"), WAIT, ask("HEAD /a"), WAIT, ask("DELETE /a"), WAIT),
            *(IN_CHUNKS, chunks(b"abc"), WAIT, ask("GET /b", "If-None-Match: 1"), WAIT, GET),
        ),
        (
            OK,
            tell("200 OK", "Content-Length: 9", length=False),
            EMPTY,
            OTHER,
            UNCHANGED,
            OK,
        ),
        ("POST", "HEAD", "DELETE", "POST", "GET", "GET"),
    ),
    "HTTP/1.0 in turn": Shape(
        (KEPT, WAIT, KEPT),
        (
            OK,
            OTHER,
        ),
        ("GET", "GET"),
    ),
    "two at once": Shape(
        (GET * 2,),
        (
            OK,
            OTHER,
        ),
        ("GET", "GET"),
    ),
    "twenty at once": Shape(
        (GET * 20,),
        (
            OK,
            OTHER,
            STREAM,
            EMPTY,
        ),
        ("GET",) * 20,
    ),
    "HEAD and GET at once": Shape(
        (ask("HEAD /a") + GET + ask("HEAD /a") + GET,),
        (*(tell("200 OK", "Content-Length: 9", length=False), OK) * 2,),
        ("HEAD", "GET", "HEAD", "GET"),
    ),
    "contents and a request at once": Shape(
        (give("POST /a", body=GET) + GET,),
        (
            OK,
            OTHER,
        ),
        ("POST", "GET"),
    ),
    "a second one in pieces": Shape(
        (GET + GET[:9], GET[9:]),
        (
            OK,
            OTHER,
        ),
        ("GET", "GET"),
    ),
    "a last one": Shape(
        (GET + ask("GET /b", "Connection: close"),),
        (
            OK,
            OTHER,
        ),
        ("GET", "GET"),
    ),
    "empty lines between": Shape(
        (GET + b"\r\n\r\n" + GET,),
        (
            OK,
            OTHER,
        ),
        ("GET", "GET"),
    ),
    # contents that are held back
    "contents that are asked for": Shape((HELD_BACK, WAIT, b"hello"), inviting(OK), ("POST",)),
    "contents that are declined": Shape(
        (HELD_BACK, WAIT), early(tell("401 No", body=b"who?")), ("POST",)
    ),
    "an expectation that is declined": Shape(
        (HELD_BACK, WAIT), early(tell("417 Expectation Failed")), ("POST",)
    ),
    "a redirect instead of an invitation": Shape(
        (HELD_BACK, WAIT), early(tell("307 There", "Location: /b")), ("POST",)
    ),
    "contents that come unasked": Shape((HELD_BACK, b"hello"), (OK,), ("POST",)),
    "contents that do not wait": Shape((HELD_BACK + b"hello",), (OK,), ("POST",)),
    "chunks that are asked for": Shape(
        (ask("POST /a", CHUNKED, "Expect: 100-continue"), WAIT, chunks(b"hello")),
        inviting(OK),
        ("POST",),
    ),
    # answers before the request is complete
    "an answer to a head": Shape((UPLOAD + LARGE[:5000],), early(TOO_MUCH), ("POST",)),
    "an answer to a head, then the contents": Shape(
        (UPLOAD, WAIT, LARGE[:100_000]), early(TOO_MUCH), ("POST",)
    ),
    "an answer to the first chunk": Shape((IN_CHUNKS + b"1\r\na\r\n",), early(TOO_MUCH), ("POST",)),
}


def _shapes() -> dict[str, Shape]:
    table = {name: _single(request, OK) for name, request in REQUESTS.items()}
    for name, (request, arrives) in DIFFERENT.items():
        table[name] = replace(_single(request, OK), arrives=arrives)
    for name, row in ANSWERS.items():
        request, answer = row if isinstance(row, tuple) else (ask("GET /"), row)
        table[f"answer, {name}"] = _single(request, answer)
    return table | {f"dialogue, {name}": shape for name, shape in DIALOGUES.items()}


def _single(request: bytes, answer: bytes) -> Shape:
    return Shape((request,), (answer,), (request.split()[0].decode(),))


SHAPES = _shapes()
"""All of them, by name."""
