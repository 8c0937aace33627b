"""T-18: whatever happens to batches and proposals, an admitted transaction is never lost.

A machine admits transactions, packs them, proposes and abandons blocks, decides blocks of its own
and of others, lets time pass and crashes. After every step each transaction that was answered with
an id is pending, committed or expired; a crash may forget what was pending, and then the same bytes
again are admitted or answer their first result. At the end everything is committed or expired.
"""

import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ledger.errors import Reason, Rejected
from ledger.ids import ValidatorIndex
from ledger.limits import REPLAY_WINDOW_MS
from node import limits
from node.admission import Admission
from node.batch_maker import BatchMaker
from node.batches import BatchPool
from node.candidates import Candidates
from node.mempool import Mempool
from node.stages import StageClock
from tests.unit.node_core.chains import (
    PARAMETERS,
    SUITE,
    TIME,
    VALIDATORS,
    LocalChain,
    certify,
    make_batch,
    make_transaction,
    register,
    secret_of,
)

NUMBERS = st.integers(0, 11)
VALID_FOR_MS = (2_000, 30_000, REPLAY_WINDOW_MS - 10_000)


def transaction(number):
    """One of twelve transactions: two modules, three lifetimes, one envelope in four."""
    calls = register(number) if number % 4 else (register(number), register(number + 100))
    return make_transaction(
        calls,
        number,
        is_signed=True,
        module="trial" if number % 2 else "emr",
        valid_until=TIME + VALID_FOR_MS[number % 3],
    )


TRANSACTIONS = [transaction(number) for number in range(12)]


class Hands:
    """A clock that is set by hand."""

    now = TIME

    def now_ms(self):
        return self.now


class MemoryLog:
    """What the batch maker needs of the write-ahead log."""

    def append(self, entry):
        pass

    def sync(self):
        pass


class Door:
    """Admission, mempool, batch maker and candidates of validator 0, over a real executor."""

    def __init__(self, chain, clock):
        self.chain, self.clock = chain, clock
        self.mempool = Mempool()
        self.pool = BatchPool(chain.bodies)
        self.candidates = Candidates(chain.writer, self.pool, PARAMETERS)
        self.admission = Admission(chain.executor, self.mempool, clock, StageClock())
        self.maker = BatchMaker(
            address=VALIDATORS.members[0].address,
            sign=lambda digest: SUITE.sign(secret_of(0), digest),
            mempool=self.mempool,
            pool=self.pool,
            writer=chain.writer,
            clock=clock,
            stages=StageClock(),
            publish=lambda _batch: None,
        )
        chain.writer.on_block(self._on_block)

    def _on_block(self, block):
        for batch in block.batches:
            self.mempool.remove(batch.transactions)
        self.pool.remove([batch.digest for batch in block.batches])

    def pack(self, count):
        taken = self.mempool.take(count=count, size=limits.BATCH_TARGET_BYTES)
        if taken:
            self.maker._make(MemoryLog(), taken)

    def propose(self, round_number):
        return self.candidates.build(ValidatorIndex(0), round_number, self.clock.now)

    def decide(self, value):
        candidate = self.candidates.block(value)
        batches, places = self.candidates.batches(value), self.candidates.places(value)
        certificate = certify(value, candidate.header.height)
        append = self.chain.writer.append
        trio.run(append, candidate.block, certificate, batches, places, lambda _height: None)
        self.candidates.start_height(candidate.header.height + 1)

    def expire(self):
        tip = self.chain.tip.time
        expired = sum(self.mempool.expire(tip))
        self.pool.expire(tip, self.candidates.ordered)
        return expired


class AdmissionMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self):
        super().__init__()
        self.chain, self.clock = LocalChain(), Hands()
        self.door = Door(self.chain, self.clock)
        self.admitted, self.forgotten = set(), set()
        self.round = self.sequence = 0
        self.proposed = None

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=4))
    def admit(self, numbers):
        answers = trio.run(self.door.admission.admit, [TRANSACTIONS[n].wire for n in numbers])
        for number, answer in zip(numbers, answers, strict=True):
            one = TRANSACTIONS[number]
            if isinstance(answer, Rejected):
                assert answer.reason is Reason.EXPIRED
                assert one.body.valid_until < max(self.clock.now, self.chain.tip.time)
            else:
                assert answer == one.id
                self.admitted.add(number)
                self.forgotten.discard(number)

    @rule(count=st.integers(1, 4))
    def pack(self, count):
        self.door.pack(count)

    @rule()
    def propose(self):
        """A proposal of the next round; the one before is abandoned by that."""
        self.proposed = self.door.propose(self.round)
        self.round += 1

    @precondition(lambda self: self.proposed is not None)
    @rule()
    def decide(self):
        self.door.decide(self.proposed)
        self.proposed, self.round = None, 0

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True))
    def another_node_decides(self, numbers):
        """A block with a batch of validator 1, which holds some of the same transactions."""
        self.sequence += 1
        batch = make_batch([TRANSACTIONS[n] for n in numbers], sequence=self.sequence, author=1)
        self.chain.decide(batch, time=max(self.clock.now, self.chain.tip.time + 1))
        self.door.candidates.start_height(self.chain.tip.height + 1)
        self.proposed, self.round = None, 0

    @rule(milliseconds=st.sampled_from([1, 1_500, 5_000, 40_000]))
    def time_passes(self, milliseconds):
        self.clock.now += milliseconds
        self.door.expire()

    @rule()
    def crash(self):
        """Everything in memory is gone; stores are opened again."""
        self.chain.restart()
        self.door = Door(self.chain, self.clock)
        self.forgotten |= {n for n in self.admitted if not self.is_final(n)}
        self.proposed, self.round = None, 0

    def is_final(self, number):
        one = TRANSACTIONS[number]
        located = self.chain.state.locate(one.id) is not None
        return located or one.body.valid_until < self.chain.tip.time

    @invariant()
    def every_admitted_transaction_is_pending_committed_or_expired(self):
        for number in self.admitted - self.forgotten:
            assert TRANSACTIONS[number].id in self.door.mempool or self.is_final(number), number

    @invariant()
    def nothing_succeeds_twice(self):
        found = {}
        for height in range(1, self.chain.tip.height + 1):
            for receipt in self.chain.receipts_of(height):
                if receipt.status == 0:
                    found[receipt.id] = found.get(receipt.id, 0) + 1
        assert set(found.values()) <= {1}

    @invariant()
    def the_pool_counts_what_it_holds(self):
        held = self.door.mempool
        assert held._all.transactions == len(held)
        assert held._all.size == sum(len(one.wire) for one in held._known.values())

    def teardown(self):
        """With nothing in the way, all that waits is committed or expires."""
        for _ in range(40):
            if not len(self.door.mempool):
                break
            self.clock.now += 1_000
            self.door.pack(limits.BATCH_TARGET_TRANSACTIONS)
            value = self.door.propose(self.round)
            self.round += 1
            if value is not None:
                self.door.decide(value)
            self.door.expire()
        assert len(self.door.mempool) == 0
        for number in self.admitted - self.forgotten:
            assert self.is_final(number), number


AdmissionMachine.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestNothingAdmittedIsLost = AdmissionMachine.TestCase
