"""Pulling batches: which missing batch is asked of whom, and when of somebody else.

What it decides: one peer at a time for each batch, few batches at a time from each peer, so that a
slow line carries a batch once and not once for every peer that has it. What it never does: verify a
batch, or ask for what streams in anyway: batches are broadcast once by their authors, a proposal
often overtakes them, and only when the stream has dried up is one of them taken for lost.
Source: research consensus-reliability section 5 and T-09 (large-block storm).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio

from ledger.batch import Batch, batch_digest, decode_batch
from ledger.codec import encode
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected
from ledger.ids import Address, BatchDigest
from node import limits
from node.requests import Requests
from node.wire import BatchRequest
from p2p.frames import FrameKind
from p2p.scoring import Offence, PeerOffenceError

_RETRY_S = 0.5  # when nobody has a batch, it is still on its way from its author
_STRIKES = 2  # unanswered questions for a batch of the block that a peer offered itself
_TIMEOUT_S = limits.REQUEST_TIMEOUT_MS / 1_000
_QUIET_S = limits.STREAM_QUIET_MS / 1_000
_PATIENCE_S = limits.STREAM_PATIENCE_MS / 1_000


@dataclass(slots=True)
class _Source:
    """What is known of a peer: how many pulls it has not answered, when it last answered."""

    open_pulls: int = 0
    timeouts: int = 0
    answered_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Want:
    """One missing batch; `collections` counts who waits for `collected`: the batch, or failure."""

    digest: BatchDigest
    since: float
    is_for_consensus: bool = False
    collections: int = 0
    asked: Address | None = None
    asked_at: float = 0.0
    retry_at: float = 0.0
    without: dict[Address, None] = field(default_factory=dict[Address, None])
    offered_by: Address | None = None
    strikes: int = 0
    is_refused: bool = False
    collected: trio.Event = field(default_factory=trio.Event)
    batch: Batch | None = None


class NotServedError(Exception):
    """The peer that offered a block has not its batches; `is_refusal`: it said so itself."""

    def __init__(self, *, is_refusal: bool) -> None:
        self.is_refusal = is_refusal
        super().__init__("says that it has not" if is_refusal else "does not answer")


class BatchFetch:
    """Asks for missing batches, until they are here or nobody wants them any more."""

    def __init__(
        self,
        suite: CryptoSuite,
        send: Callable[[Address, FrameKind, bytes], bool],
        parse: Callable[[bytes], Batch],
    ) -> None:
        """`parse` checks what a batch that a block orders needs, or raises Rejected."""
        self._suite = suite
        self._send = send
        self._parse = parse
        self._requests: Requests[BatchDigest] = Requests()
        self._sources: dict[Address, _Source] = {}
        self._wants: dict[BatchDigest, _Want] = {}
        self._arrived_at = float("-inf")
        self._changed = trio.Event()

    def connect(self, peer: Address) -> None:
        """A link is up."""
        self._sources[peer] = _Source()
        self._wake()

    def disconnect(self, peer: Address) -> None:
        """A link is gone, and with it what was asked there."""
        self._sources.pop(peer, None)
        self._requests.forget(peer)
        for want in self._wants.values():
            want.without.pop(peer, None)
            if want.asked == peer:
                want.asked = None
            if want.offered_by == peer:
                want.collected.set()
        self._wake()

    def want(self, digests: Iterable[BatchDigest]) -> None:
        """All batches that consensus misses now; those of an earlier call are forgotten."""
        wanted = dict.fromkeys(digests)
        for digest in [known for known in self._wants if known not in wanted]:
            self._wants[digest].is_for_consensus = False
            self._drop_unwanted(digest)
        for digest in wanted:
            self._entry(digest).is_for_consensus = True
        if wanted:
            self._wake()

    def note_arrived(self, digest: BatchDigest) -> None:
        """A batch came in by broadcast: it need not be pulled, and more may follow."""
        self._arrived_at = trio.current_time()
        want = self._wants.get(digest)
        if want is not None:
            want.is_for_consensus = False
            self._drop_unwanted(digest)

    async def collect(self, digests: Sequence[BatchDigest], offered_by: Address) -> list[Batch]:
        """These batches, in order; waits until all are here.

        `offered_by` offered a block that orders them, so it has them, unless the block is made up.
        Raises: NotServedError when it has them not, and nobody else had.
        """
        wants = [self._collected(digest, offered_by) for digest in digests]
        self._wake()
        try:
            found: list[Batch] = []
            for want in wants:
                await want.collected.wait()
                if want.batch is None:
                    raise NotServedError(is_refusal=want.is_refused)
                found.append(want.batch)
            return found
        finally:
            for want in wants:
                want.collections -= 1
                self._drop_unwanted(want.digest)

    def _collected(self, digest: BatchDigest, offered_by: Address) -> _Want:
        want = self._entry(digest)
        want.collections += 1
        want.offered_by, want.strikes, want.is_refused = offered_by, 0, False
        want.without.pop(offered_by, None)
        if want.batch is None:
            want.collected = trio.Event()
        return want

    def _entry(self, digest: BatchDigest) -> _Want:
        want = self._wants.get(digest)
        if want is None:
            want = self._wants[digest] = _Want(digest, trio.current_time())
        return want

    def _drop_unwanted(self, digest: BatchDigest) -> None:
        want = self._wants.get(digest)
        if want is not None and not want.collections and not want.is_for_consensus:
            self._release(want)
            del self._wants[digest]

    def _release(self, want: _Want) -> None:
        """The peer that was asked may be asked something else."""
        source = None if want.asked is None else self._sources.get(want.asked)
        if source is not None:
            source.open_pulls -= 1
        want.asked = None

    def receive(self, peer: Address, number: int, wire: bytes) -> BatchDigest | None:
        """Take an answer; the digest if consensus waits for this batch, whose bytes are `wire`.

        Raises: PeerOffenceError when nobody asked, or when it is another batch.
        """
        digest = self._requests.take(peer, number)
        source = self._sources.get(peer)
        if source is not None:
            source.answered_at, source.timeouts = trio.current_time(), 0
        want = self._wants.get(digest)
        if want is not None and want.asked == peer:
            self._release(want)
        self._wake()
        if not wire:
            if want is not None:
                want.without[peer] = None
                if peer == want.offered_by:
                    want.is_refused = True
                    want.collected.set()
            return None
        if want is None:
            return None  # late, and no longer needed
        self._check(want, wire)
        self._arrived_at = trio.current_time()
        is_for_consensus, want.is_for_consensus = want.is_for_consensus, False
        if want.collections:
            want.collected.set()
        self._drop_unwanted(digest)
        return digest if is_for_consensus else None

    def _check(self, want: _Want, wire: bytes) -> None:
        """Whoever sends a wrong batch is at fault: it must have checked. Its link ends."""
        try:
            if batch_digest(decode_batch(wire).header, self._suite) != want.digest:
                raise Rejected(Reason.BAD_BATCH, "another batch than the one asked for")
            if want.collections:
                want.batch = self._parse(wire)
        except Rejected as refusal:
            is_forged = refusal.reason is Reason.BAD_SIGNATURE
            offence = Offence.INVALID_SIGNATURE if is_forged else Offence.MALFORMED
            raise PeerOffenceError(offence, f"batch: {refusal}") from refusal

    async def run(self) -> None:
        """Ask, and ask again, until cancelled."""
        while True:
            self._changed = trio.Event()
            next_at = self._ask_all(trio.current_time())
            with trio.move_on_at(next_at):
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()

    def _ask_all(self, now: float) -> float:
        """Ask for whatever is due; when to look again."""
        next_at = float("inf")
        for want in self._wants.values():
            if want.batch is None:
                next_at = min(next_at, self._ask_one(want, now))
        return next_at

    def _ask_one(self, want: _Want, now: float) -> float:
        if want.asked is not None:
            due_at = self._deadline(want)
            if now < due_at:
                return due_at
            self._give_up(want, want.asked)
        patient_until = max(self._patient_until(want), want.retry_at)
        if now < patient_until:
            return patient_until
        if len(want.without) == len(self._sources) > 0:
            # Everybody said no: it may be on its way to them as it is to us.
            want.without.clear()
            want.retry_at = now + _RETRY_S
            return want.retry_at
        peer = self._choose(want)
        if peer is None:
            return float("inf")  # an answer or a link wakes us
        self._ask(want, peer, now)
        return self._deadline(want)

    def _give_up(self, want: _Want, peer: Address) -> None:
        """No answer in time: no offence, but others are asked first."""
        self._sources[peer].timeouts += 1
        self._release(want)
        if peer == want.offered_by:
            want.strikes += 1
            if want.strikes == _STRIKES:
                want.collected.set()

    def _deadline(self, want: _Want) -> float:
        """When an answer is overdue: so long after the question or the peer's last answer.

        A peer that sends what it was asked for, at whatever speed its line has, is not late.
        """
        source = self._sources.get(want.asked) if want.asked is not None else None
        answered_at = 0.0 if source is None else source.answered_at
        return max(want.asked_at, answered_at) + _TIMEOUT_S

    def _patient_until(self, want: _Want) -> float:
        if want.collections:
            return 0.0
        return min(self._arrived_at + _QUIET_S, want.since + _PATIENCE_S)

    def _choose(self, want: _Want) -> Address | None:
        """The least busy peer that may have the batch."""
        most = limits.SYNC_PULLS_PER_PEER if want.collections else limits.PULLS_PER_PEER
        free = [
            (source.timeouts, source.open_pulls, address)
            for address, source in self._sources.items()
            if source.open_pulls < most and address not in want.without
        ]
        return min(free)[2] if free else None

    def _ask(self, want: _Want, peer: Address, now: float) -> None:
        number = self._requests.open(peer, want.digest)
        want.asked, want.asked_at = peer, now
        self._sources[peer].open_pulls += 1
        self._send(peer, FrameKind.BATCH_REQUEST, encode(BatchRequest(number, want.digest)))
