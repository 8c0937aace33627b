"""Blocks proposed for the height in progress: building our own, checking others'.

A check needs the batches that a proposal refers to; what is missing is asked for and the check goes
on when it arrives. A block is timely when its time fits the moment its proposal came in; the rule
belongs to fresh proposals only, and the allowed delay grows with the round.
Source: architecture section 5; cometbft specification of proposer-based timestamps.
"""

from dataclasses import dataclass

from consensus.events import Verdict
from ledger.batch import Batch, block_order
from ledger.block import BLOCK, HEADER, Block, Header, block_hash
from ledger.codec import encode
from ledger.errors import Reason, Rejected, invariant
from ledger.genesis import Parameters
from ledger.ids import BatchDigest, BlockHash, ValidatorIndex
from ledger.store.port import Place
from node import limits
from node.batches import BatchPool
from node.chain_writer import ChainWriter


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proposed block; `sender` proposed it first, `received_ms` is our clock at that moment."""

    block: Block
    header: Header
    wire: bytes
    sender: ValidatorIndex | None
    received_ms: int


@dataclass(frozen=True, slots=True)
class Check:
    """A question of the core: is this block valid, and timely when it is fresh?"""

    height: int
    round: int
    value: BlockHash


class Candidates:
    """Candidates of one height by block hash, and checks that wait for batches."""

    def __init__(self, writer: ChainWriter, pool: BatchPool, parameters: Parameters) -> None:
        self._writer = writer
        self._pool = pool
        self._parameters = parameters
        self._known: dict[BlockHash, Candidate] = {}
        self._senders: dict[tuple[BlockHash, int], tuple[ValidatorIndex | None, int]] = {}
        self._waiting: list[Check] = []
        self._logged: dict[BatchDigest, None] = {}

    def start_height(self, height: int) -> None:
        """Forget lower heights; a peer may already have proposed for this one."""
        self._known = {
            value: candidate
            for value, candidate in self._known.items()
            if candidate.header.height >= height
        }
        self._senders = {key: item for key, item in self._senders.items() if key[0] in self._known}
        self._waiting.clear()
        self._logged.clear()

    def remember(
        self,
        value: BlockHash,
        wire: bytes,
        *,
        round_number: int,
        sender: ValidatorIndex | None,
        received_ms: int,
    ) -> None:
        """Keep a proposed block's bytes.

        Raises: Rejected when they are not a block of that hash.
        """
        if value in self._known:
            if len(self._senders) < limits.CANDIDATE_ROUNDS:
                self._senders.setdefault((value, round_number), (sender, received_ms))
            return
        mine = sum(candidate.sender == sender for candidate in self._known.values())
        if mine >= limits.CANDIDATES_PER_SENDER:
            return
        block = BLOCK.decode(wire)
        header = HEADER.decode(block.header)
        if block_hash(block.header, self._writer.chain.suite) != value:
            raise Rejected(Reason.BAD_BLOCK, rule="hash")
        self._senders[value, round_number] = (sender, received_ms)
        self._known[value] = Candidate(block, header, wire, sender, received_ms)

    def wire(self, value: BlockHash) -> bytes | None:
        """The bytes of a candidate, to send along with its proposal."""
        candidate = self._known.get(value)
        return None if candidate is None else candidate.wire

    def block(self, value: BlockHash) -> Candidate | None:
        """A candidate by hash."""
        return self._known.get(value)

    @property
    def ordered(self) -> frozenset[BatchDigest]:
        """Every batch that some candidate orders, for membership tests."""
        blocks = [candidate.block for candidate in self._known.values()]
        return frozenset(BatchDigest(digest) for block in blocks for digest in block.batches)

    def is_awaited(self, digest: BatchDigest) -> bool:
        """Whether a candidate orders this batch and it is not here yet."""
        return digest not in self._pool and digest in self.ordered

    def build(self, me: ValidatorIndex, round_number: int, now_ms: int) -> BlockHash | None:
        """Make our own block from what the pool holds; None while an empty one would be refused."""
        writer = self._writer
        tip = writer.tip
        time = max(now_ms, tip.time + 1)
        batches = sorted(self._pool.select(time), key=block_order)
        if not batches and not tip.must_follow and time < tip.time + self._parameters.heartbeat_ms:
            return None
        block = writer.next_block(me, time, batches)
        value = block_hash(block.header, writer.chain.suite)
        self.remember(
            value, encode(block), round_number=round_number, sender=me, received_ms=now_ms
        )
        return value

    def missing(self, value: BlockHash) -> list[BatchDigest]:
        """Batches that a candidate refers to and this node does not hold."""
        candidate = self._known.get(value)
        if candidate is None:
            return []
        digests = [BatchDigest(digest) for digest in candidate.block.batches]
        return [digest for digest in digests if digest not in self._pool]

    def batches(self, value: BlockHash) -> list[Batch]:
        """The batches of a candidate that was checked or built here."""
        candidate = self._known[value]
        found = [self._pool.get(BatchDigest(digest)) for digest in candidate.block.batches]
        invariant(all(found), "a checked block has all its batches")
        return [batch for batch in found if batch is not None]

    def places(self, value: BlockHash) -> list[Place]:
        """Where the bodies of a candidate's batches lie."""
        digests = self._known[value].block.batches
        return [self._pool.place(BatchDigest(digest)) for digest in digests]

    def unlogged(self, value: BlockHash) -> list[tuple[BatchDigest, Place]]:
        """The batches of a candidate that this height's log does not name yet; asked once."""
        digests = [BatchDigest(digest) for digest in self._known[value].block.batches]
        found = [digest for digest in digests if digest not in self._logged]
        self._logged.update(dict.fromkeys(found))
        return [(digest, self._pool.place(digest)) for digest in found]

    def start_check(self, check: Check) -> None:
        """Ask for a verdict; `verdicts` gives it once the batches are here."""
        self._waiting.append(check)

    def wanted(self) -> list[BatchDigest]:
        """All batches that waiting checks miss."""
        wanted: dict[BatchDigest, None] = {}
        for check in self._waiting:
            wanted.update(dict.fromkeys(self.missing(check.value)))
        return [digest for digest in wanted if digest not in self._pool.arriving]

    def verdicts(self) -> list[tuple[Check, Verdict]]:
        """Verdicts of the checks that have everything they need."""
        ready = [
            check
            for check in self._waiting
            if check.value in self._known and not self.missing(check.value)
        ]
        self._waiting = [check for check in self._waiting if check not in ready]
        return [(check, self._verdict(check)) for check in ready]

    def _verdict(self, check: Check) -> Verdict:
        candidate = self._known[check.value]
        try:
            batches = self.batches(check.value)
            self._writer.check_block(candidate.block, candidate.header, batches)
        except Rejected:
            return Verdict.INVALID
        # Others know whether it was ordered; this node cannot vouch for it.
        if any(self._writer.may_be_older(batch) for batch in batches):
            return Verdict.INVALID
        return Verdict.VALID if self._is_timely(check, candidate) else Verdict.UNTIMELY

    def _is_timely(self, check: Check, candidate: Candidate) -> bool:
        sender, received_ms = self._senders.get(
            (check.value, check.round), (candidate.sender, candidate.received_ms)
        )
        precision = self._parameters.clock_precision_ms
        delay = self._parameters.message_delay_ms
        # A parameter that is too small must not halt the chain: a tenth more with every round.
        delay += delay * check.round // 10
        time = candidate.header.time
        is_first_offer = sender == candidate.header.proposer
        return is_first_offer and received_ms - delay - precision <= time <= received_ms + precision
