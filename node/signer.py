"""The signer: one signature for one place in consensus, and it is durable before it leaves.

What it decides: whether a message may be signed. Places (height, round, step) only grow; for the
newest one an equal message gets the stored signature again, and anything else is refused. There is
no exception for messages that "only differ by a timestamp". What is signed stands in the log, with
its signature, in one synced record.
It also knows which messages with this node's signature it can account for: any other was signed by
another instance with this key, or by this node before its log was lost.
Source: research consensus-reliability section 1.5, points 2 and "Duplicate instance"; cometbft
ADR-051.
"""

from collections.abc import Callable
from typing import NamedTuple

from consensus.height_state import slot_of
from consensus.messages import Message, Proposal, Signed, Vote, VoteKind
from ledger.errors import InvariantError
from ledger.ids import Hash, Signature
from ledger.transaction import Chain
from ledger.votes import Certificate
from node import wire
from node.limits import DUPLICATE_HEIGHTS


class DoubleSignError(InvariantError):
    """The core asked for a second signature where one is allowed: a bug, stopped in time."""


class Position(NamedTuple):
    """Where a message stands. Step 0 is the proposal, then the two votes in their order."""

    height: int
    round: int
    step: int


def position_of(message: Message) -> Position:
    """The place of a message; a node signs at most one message for each."""
    return Position(message.height, *slot_of(message))


class Signer:
    """Signs for one node on one chain."""

    def __init__(self, chain: Chain, secret: Callable[[bytes], Signature]) -> None:
        self._chain = chain
        self._secret = secret
        self._last = Position(0, 0, 0)
        self._signed: dict[Position, Signed] = {}
        self._precommits: dict[int, dict[int, bytes]] = {}

    @property
    def last(self) -> Position:
        """The newest place that was signed."""
        return self._last

    def start_height(self, height: int) -> None:
        """Everything below is decided; nothing there is ever signed again."""
        self._last = max(self._last, Position(height, -1, 0))
        self._signed = {place: one for place, one in self._signed.items() if place.height >= height}
        for old in [old for old in self._precommits if old <= height - DUPLICATE_HEIGHTS]:
            del self._precommits[old]

    def remember(self, own: Signed) -> None:
        """Take note of an own message: one just made durable, or one that the log brings back."""
        place = position_of(own.message)
        self._signed[place] = own
        self._last = max(self._last, place)
        message = own.message
        if isinstance(message, Vote) and message.kind is VoteKind.PRECOMMIT and message.value:
            self._precommits.setdefault(message.height, {})[message.round] = message.value

    def sign(self, message: Proposal | Vote, keep: Callable[[Signed], None]) -> Signed:
        """The message with its signature; `keep` has made both durable when this returns.

        Raises: DoubleSignError; whatever `keep` raises, and then nothing may leave.
        """
        place = position_of(message)
        stored = self._signed.get(place)
        if stored is not None and stored.message == message:
            return stored
        if place <= self._last:
            raise DoubleSignError(
                f"asked to sign {message} when {tuple(self._last)} was signed before; "
                "nothing was signed"
            )
        signed = Signed(message, self._secret(self._digest(message)))
        keep(signed)
        self.remember(signed)
        return signed

    def knows(self, message: Message) -> bool:
        """Whether this signer signed exactly this message at a height that has not ended."""
        stored = self._signed.get(position_of(message))
        return stored is not None and stored.message == message

    def knows_precommit(self, certificate: Certificate) -> bool:
        """Whether this signer precommitted what a certificate of a recent height decides."""
        rounds = self._precommits.get(certificate.height, {})
        return rounds.get(certificate.round) == certificate.block_hash

    def _digest(self, message: Proposal | Vote) -> Hash:
        return wire.digest_of(message, self._chain)
