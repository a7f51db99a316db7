"""Pass-through: any request that is no bulk call goes to the backend as it came.

It goes over the same pool as subrequests, streamed. What comes in one read goes out in one write,
so a small exchange costs no task; a body that is not complete yet gets one that pumps it up, and
the answer's pieces are written to the client from within the backend's callbacks. Each direction
waits for its slower end.

Dropped, as RFC 9110 allows: trailers, and interim answers other than a 100 that the client waits
for with its body in hand.
"""

from gateway.proxy.entrance import Proxy

__all__ = ["Proxy"]
