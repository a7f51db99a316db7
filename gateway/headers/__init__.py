"""Header fields on their way through: what subrequests inherit, what they bring, what we write.

Pure functions over tuples of pairs. A part may change nothing about who the caller is or where the
call goes, in whatever spelling: names are compared in normal form, because a CGI, WSGI, Rack or
PHP backend sees `X_Real-IP` and `x-real-ip` as one variable (CVE-2022-24112, CVE-2025-64484).
"""

from gateway.headers.caller import caller
from gateway.headers.names import HOP_BY_HOP, normal
from gateway.headers.passing import (
    forward_request,
    forward_response,
    max_forwards,
    text,
    upgrade_asked,
)
from gateway.headers.policy import HeaderPolicy, TrustedProxies
from gateway.headers.subrequests import (
    MOST_OWN,
    beneath,
    body_type,
    by_name,
    first,
    holding,
    inherit,
    merge,
    own,
    untraced,
)
from gateway.headers.written import HEARD, looped, managed, valid_host

__all__ = [
    "HEARD",
    "HOP_BY_HOP",
    "MOST_OWN",
    "HeaderPolicy",
    "TrustedProxies",
    "beneath",
    "body_type",
    "by_name",
    "caller",
    "first",
    "forward_request",
    "forward_response",
    "holding",
    "inherit",
    "looped",
    "managed",
    "max_forwards",
    "merge",
    "normal",
    "own",
    "text",
    "untraced",
    "upgrade_asked",
    "valid_host",
]
