"""The batch maker: packs admitted transactions into this node's own batches and broadcasts them.

One batch makes one message and one signature out of hundreds of transactions. A batch is in the
write-ahead log before it leaves, so that a sequence number is never used for two batches; a new log
starts from the clock in milliseconds, which is above every number used before.
Source: architecture sections 2, 3 and 5.
"""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from ledger.batch import GENESIS_BATCH, Batch, BatchHeader, build_batch, namespace_order, summarise
from ledger.batch import batch_digest as digest_of_header
from ledger.codec import encode
from ledger.ids import Address, BatchDigest, Signature
from ledger.limits import PROTOCOL_VERSION
from ledger.transaction import Transaction
from node import limits
from node.batches import BatchPool
from node.chain_writer import ChainWriter
from node.clock import Clock
from node.log_entries import LoggedBatch, Recovered
from node.mempool import Mempool
from node.stages import Stage, StageClock
from node.wal import WriteAheadLog


@dataclass(slots=True)
class AuthorState:
    """Where this node's own chain of batches stands."""

    sequence: int
    previous: BatchDigest = GENESIS_BATCH


def resumed_author(recovered: Recovered, now_ms: int) -> AuthorState:
    """Where a log says that this node's batches stand, and never below the clock.

    The clock is what protects the numbers when the log is an old copy.
    """
    sequence, previous = recovered.own_batches()
    return AuthorState(max(sequence, now_ms), BatchDigest(previous))


class BatchMaker:
    """Makes batches of this node."""

    def __init__(
        self,
        *,
        address: Address,
        sign: Callable[[bytes], Signature],
        mempool: Mempool,
        pool: BatchPool,
        writer: ChainWriter,
        clock: Clock,
        stages: StageClock,
        publish: Callable[[Batch], None],
    ) -> None:
        self.state = AuthorState(clock.now_ms())
        self._address = address
        self._sign = sign
        self._mempool = mempool
        self._pool = pool
        self._writer = writer
        self._clock = clock
        self._stages = stages
        self._publish = publish
        self._wake = trio.Event()
        self._made_at = 0.0

    def resume(self, state: AuthorState) -> None:
        """Go on where the log says this node's batches stand."""
        self.state = state

    def notify(self) -> None:
        """There are transactions to pack."""
        self._wake.set()

    async def run(self, log: WriteAheadLog) -> None:
        """Pack whenever transactions wait: early when many do, after a short delay otherwise."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            if not self._is_full():
                await trio.sleep_until(self._due())
            while self._mempool.waiting and self.is_author:
                with self._stages.measure(Stage.DISSEMINATION):
                    self._made_at = trio.current_time()
                    taken = self._mempool.take(
                        count=limits.BATCH_TARGET_TRANSACTIONS, size=limits.BATCH_TARGET_BYTES
                    )
                    if taken:
                        self._publish(self._make(log, taken))
                await trio.lowlevel.checkpoint()
                if not self._is_full():
                    break
            if self._mempool.waiting and self.is_author:
                self._wake.set()

    @property
    def is_author(self) -> bool:
        """Whether others take this node's batches: whether it votes at the next height."""
        return self._writer.validators.index_of(self._address) is not None

    def _due(self) -> float:
        """A short wait after a pause, a steady beat under load."""
        soon = trio.current_time() + limits.BATCH_DELAY_MS / 1_000
        return max(soon, self._made_at + limits.BATCH_INTERVAL_MS / 1_000)

    def _is_full(self) -> bool:
        return (
            self._mempool.waiting >= limits.BATCH_TARGET_TRANSACTIONS
            or self._mempool.waiting_bytes >= limits.BATCH_TARGET_BYTES
        )

    def _make(self, log: WriteAheadLog, taken: list[Transaction]) -> Batch:
        transactions = sorted(taken, key=namespace_order)
        batch = self._sealed(transactions)
        self._pool.add(batch, self._clock.now_ms(), needed=True)
        place = self._pool.place(batch.digest)
        log.append(LoggedBatch(batch.digest, place, batch.header.sequence))
        log.sync()
        self.state = AuthorState(batch.header.sequence + 1, batch.digest)
        return batch

    def _sealed(self, transactions: list[Transaction]) -> Batch:
        chain = self._writer.chain
        tip = self._writer.tip
        header = BatchHeader(
            version=PROTOCOL_VERSION,
            genesis_hash=chain.genesis_hash,
            group=chain.group,
            author=self._address,
            sequence=self.state.sequence,
            previous=self.state.previous,
            clock=self._clock.now_ms() << 16,
            anchor_height=tip.height,
            anchor_hash=tip.block_hash,
            namespaces=summarise(transactions, chain.suite),
        )
        digest = digest_of_header(encode(header), chain.suite)
        signature = self._sign(digest)
        return Batch(
            wire=build_batch(header, signature, transactions),
            header=header,
            signature=signature,
            digest=digest,
            transactions=tuple(transactions),
            valid_until_max=max(item.body.valid_until for item in transactions),
        )
