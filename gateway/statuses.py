"""Reason phrases, those of RFC 9110 also where Python is older than 3.13 and has earlier ones."""

from __future__ import annotations

from http import HTTPStatus

PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""By status, of those that are registered."""
