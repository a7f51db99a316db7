"""What the backend does in a shape: scripts for `RawBackend`, beside its own."""

from __future__ import annotations

from tests.passthrough.messages import turns
from tests.support.raw_backend import Peer, Script


def telling(*answers: bytes) -> Script:
    """Answers one request after the other, on whichever connection it comes, the last answer over
    again; closes where nothing else ends an answer."""
    left = iter(answers)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            answer = next(left, answers[-1])
            await peer.send(answer)
            if not ends_by_itself(answer):
                return

    return script


def ends_by_itself(answer: bytes) -> bool:
    final = answer
    while final.split(b" ", 2)[1].startswith(b"1"):
        final = final.partition(b"\r\n\r\n")[2]
    head = final.partition(b"\r\n\r\n")[0].lower()
    framed = b"\r\ncontent-length:" in head or b"\r\ntransfer-encoding:" in head
    return (framed or head.split(b" ")[1] in (b"204", b"304")) and b"connection: close" not in head


def in_pieces(*pieces: bytes) -> Script:
    """Answers with each piece in a packet of its own, and closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for piece in pieces:
            await peer.send(piece)
            await turns()

    return script


def early(answer: bytes) -> Script:
    """Answers when it has the head, and takes what else there is."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)
        await peer.gone()

    return script


def inviting(answer: bytes) -> Script:
    """Asks for the contents that the client holds back, and answers."""

    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert b"100-continue" in head
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.read(5)
        await peer.send(answer)
        await peer.gone()

    return script
