"""Bodies: client documents checked and decoded, backend contents spliced into the answer.

Bodies travel as the bytes they came as. A parse and a dump would change them (integers beyond 64
bits, long decimals, key order), so JSON is validated and then copied, up and down.
"""

from gateway.bodies.codings import CodingError, Decoder
from gateway.bodies.contents import splice
from gateway.bodies.documents import check_document, decode, document, more, position
from gateway.bodies.duplicates import refuse_duplicates

__all__ = [
    "CodingError",
    "Decoder",
    "check_document",
    "decode",
    "document",
    "more",
    "position",
    "refuse_duplicates",
    "splice",
]
