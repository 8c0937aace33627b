"""The sentinel: looks for this node's signature where this node did not put it.

What it decides: whether an own signature in a message or a certificate is accounted for, by the
signer, by the log, or by a quarantine. One that is not means another instance with the same key, or
a data folder that is an old copy. Before the gate is open that only lengthens the quarantine; later
it is made durable and stops the node at once.
Source: research consensus-reliability section 1.5, "Duplicate instance"; FISCO #3617.
"""

from collections.abc import Callable

import structlog

from consensus.messages import Message
from ledger.ids import Address
from ledger.votes import CERTIFICATE
from node.chain_writer import ChainWriter
from node.executor import DecidedBlock
from node.limits import DUPLICATE_HEIGHTS
from node.quarantine import DuplicateInstanceError, VotingGate
from node.signer import Signer

_log = structlog.get_logger("sentinel")


class Sentinel:
    """Watches over one validator's key."""

    def __init__(
        self,
        address: Address,
        gate: VotingGate,
        signer: Signer,
        writer: ChainWriter,
        persist: Callable[[], None],
    ) -> None:
        self._address = address
        self._gate = gate
        self._signer = signer
        self._writer = writer
        self._persist = persist

    def inspect_stored(self) -> None:
        """At the start: the newest certificates that this node holds, the very last included."""
        newest = self._writer.blocks.height
        for height in range(max(1, newest - DUPLICATE_HEIGHTS + 1), newest + 1):
            decided = self._writer.blocks.decided(height)
            if decided is not None and decided.certificate:
                self._inspect(decided.certificate)

    def on_block(self, decided: DecidedBlock) -> None:
        """Both certificates of a new block: its own, and the one that it carries."""
        self._inspect(decided.certificate)
        if decided.block.certificate:
            self._inspect(decided.block.certificate)

    def on_message(self, message: Message) -> None:
        """A peer passed on a verified message; it may bear our signature.

        Raises: DuplicateInstanceError.
        """
        me = self._writer.validators_at(message.height).index_of(self._address)
        if message.sender == me and not self._signer.knows(message):
            self._find(message.height, message.round)

    def _inspect(self, encoded: bytes) -> None:
        certificate = CERTIFICATE.decode(encoded)
        me = self._writer.validators_at(certificate.height).index_of(self._address)
        is_signed = any(index == me for index, _ in certificate.signatures)
        if is_signed and not self._signer.knows_precommit(certificate):
            self._find(certificate.height, certificate.round)

    def on_twin(self, where: str) -> None:
        """A link's other end proved this node's own address, with fresh randomness of its own.

        Raises: DuplicateInstanceError.
        """
        self._gate.suspect(self._writer.tip.height + 1)
        self._stop(f"the node at {where} proved that it holds this node's key")

    def _find(self, height: int, round_number: int) -> None:
        gate = self._gate
        if gate.is_past(height, round_number):
            return
        gate.suspect(height)
        _log.error("own_signature_unexplained", height=height, round=round_number)
        if gate.is_open:
            self._stop(
                f"a message for height {height}, round {round_number} bears this node's signature, "
                "and this node did not sign it"
            )

    def _stop(self, evidence: str) -> None:
        """Make it durable that this node does not vote, then stop it."""
        self._gate.quarantine(self._writer.tip.height)
        self._persist()
        _log.critical("duplicate_instance", evidence=evidence)
        raise DuplicateInstanceError(evidence, self._gate.voting_from)
