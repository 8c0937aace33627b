"""Questions to peers that are open: which answer belongs to what, and which nobody asked for.

What it decides: whether an answer is the first one to a question that its sender was asked. What it
never does: time questions out: a late answer of a correct peer is no offence, so questions stay
open until they are answered, the link ends, or the peer has left OPEN_REQUESTS newer ones open.
"""

from typing import Generic, TypeVar

from ledger.ids import Address
from node.limits import OPEN_REQUESTS
from p2p.scoring import Offence, PeerOffenceError

T = TypeVar("T")


class Requests(Generic[T]):
    """Open questions of one kind by peer and number; `T` is what was asked."""

    __slots__ = ("_next", "_open")

    def __init__(self) -> None:
        self._open: dict[Address, dict[int, T]] = {}
        self._next = 1

    def open(self, peer: Address, item: T) -> int:
        """Remember a question; its number."""
        number, self._next = self._next, self._next + 1
        questions = self._open.setdefault(peer, {})
        questions[number] = item
        if len(questions) > OPEN_REQUESTS:
            del questions[next(iter(questions))]
        return number

    def take(self, peer: Address, number: int) -> T:
        """What the peer was asked under this number.

        Raises: PeerOffenceError(UNREQUESTED) when it was not, or has answered before.
        """
        item = self._open.get(peer, {}).pop(number, None)
        if item is None:
            raise PeerOffenceError(Offence.UNREQUESTED, f"answer to no open question: {number}")
        return item

    def forget(self, peer: Address) -> None:
        """The link is gone, and with it all answers."""
        self._open.pop(peer, None)
