"""The plan of a bulk call, for people: what would be sent, in which order, and with what."""

from gateway.explain.explanation import Contents, Explanation, Planned, Unsent
from gateway.explain.walk import explain

__all__ = ["Contents", "Explanation", "Planned", "Unsent", "explain"]
