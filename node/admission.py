"""Admission: which transactions of clients and which batches of peers this node believes.

Cheap checks come first, the signature last and exactly once: leaves whose signatures were checked
are remembered. Everything runs in slices of one to two milliseconds between looks at the event
loop, never in a thread (the interpreter lock would starve it).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from ledger import limits as protocol
from ledger.batch import Batch, SignedBatch
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.ids import Address, Hash, TransactionId
from ledger.transaction import (
    Transaction,
    operations_steps,
    parse_transaction,
    verify_signatures,
)
from ledger.validators import ValidatorSet
from node import limits
from node.clock import Clock
from node.executor import Executor
from node.failures import SignatureFailures
from node.mempool import Mempool
from node.parsing import parse_in_steps, slices
from node.stages import Stage, StageClock
from node.steps import in_steps

Item = TypeVar("Item", bound=Transaction | TransactionId | Rejected)
Answer = Transaction | TransactionId | Rejected
"""A transaction on its way in, the id of one that is known already, or a refusal."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a slice is judged by: nothing of it changes while the slice is checked."""

    now_ms: int
    """Of the clock, which does not count where the chain is ahead of it."""
    chain_ms: int
    height: int
    backlog: Rejected | None


def _never_behind() -> None:
    """Nothing else is measured."""


class Admission:
    """The door for transactions and batches."""

    def __init__(
        self,
        executor: Executor,
        mempool: Mempool,
        clock: Clock,
        stages: StageClock,
        check_backlog: Callable[[], None] = _never_behind,
    ) -> None:
        """`check_backlog` raises Rejected(BEHIND) while this node must take no more."""
        self._executor = executor
        self._chain = executor.chain
        self._mempool = mempool
        self._clock = clock
        self._stages = stages
        self._check_backlog = check_backlog
        self._failures = SignatureFailures(clock)
        self._verified: dict[Hash, None] = {}
        self._verified_before: dict[Hash, None] = {}

    async def admit(
        self, wires: Sequence[bytes], client: str = ""
    ) -> list[TransactionId | Exception]:
        """Admit transactions of a client, known by its network address; per item id or refusal."""
        answers: list[TransactionId | Exception] = []
        for part in slices(wires, limits.SLICE_SIGNATURES):
            with self._stages.measure(Stage.ADMISSION):
                checked = self._check_slice(part)
            for group in _by_signatures(checked):
                ready = [
                    await self._check_operations(item)
                    if isinstance(item, Transaction) and item.is_envelope
                    else item
                    for item in group
                ]
                answers += self._admit_group(ready, client)
                await trio.lowlevel.checkpoint()
        return answers

    def _check_slice(self, wires: Sequence[bytes]) -> list[Answer]:
        backlog: Rejected | None = None
        try:
            self._check_backlog()
        except Rejected as refusal:
            backlog = refusal
        tip = self._executor.state_tip
        now_ms = max(self._clock.now_ms(), tip.time)
        moment = _Moment(now_ms, tip.time, tip.height, backlog)
        return [self._check(wire, moment) for wire in wires]

    def _check(self, wire: bytes, moment: _Moment) -> Answer:
        """All rules but room and signature; the id alone when the transaction is known already."""
        try:
            transaction = parse_transaction(wire, self._chain, defers_operations=True)
            body = transaction.body
            if self._is_known(transaction, moment):
                return transaction.id
            if moment.backlog is not None:
                return moment.backlog
            _check_time(body.valid_until, moment.now_ms)
            if not self._executor.engine.has_namespace(body.module, body.level):
                raise Rejected(Reason.UNKNOWN_NAMESPACE, module=body.module, level=body.level)
            self._check_account(transaction, moment)
        except Rejected as refusal:
            return refusal
        return transaction

    async def _check_operations(self, envelope: Transaction) -> Answer:
        """The same after a look at the operations, in steps."""
        try:
            await trio.lowlevel.checkpoint()
            await in_steps(operations_steps(envelope, self._chain))
        except Rejected as refusal:
            return refusal
        return envelope

    def _admit_group(self, group: Sequence[Answer], client: str) -> list[TransactionId | Exception]:
        """Room, then rate, then signatures; nothing awaits, so that no claim is left behind."""
        with self._stages.measure(Stage.ADMISSION):
            claimed = self._claim(group, client)
        with self._stages.measure(Stage.SIGNATURE):
            verified = self._verify(claimed)
        answers: list[TransactionId | Exception] = []
        failed = 0
        with self._stages.measure(Stage.ADMISSION):
            for before, item in zip(claimed, verified, strict=True):
                if isinstance(item, Transaction):
                    self._mempool.keep(item)
                    answers.append(item.id)
                    continue
                if isinstance(before, Transaction):
                    self._mempool.release(before)
                    failed += 1
                answers.append(item)
            if failed:
                self._failures.charge(client, failed)
        return answers

    def _claim(self, group: Sequence[Answer], client: str) -> list[Answer]:
        try:
            self._failures.check(client)
        except Rejected as refusal:
            return [refusal if isinstance(item, Transaction) else item for item in group]
        claimed = list(group)
        claim = self._mempool.claim
        for index, item in enumerate(group):
            if isinstance(item, Transaction):
                try:
                    claim(item)
                except Rejected as refusal:
                    claimed[index] = refusal
        return claimed

    def _is_known(self, transaction: Transaction, moment: _Moment) -> bool:
        """Whether the id waits here or was executed; a late resend of an expired one counts too."""
        valid_until = transaction.body.valid_until
        if transaction.id in self._mempool:
            return True
        if self._executor.window.seen(transaction.id, valid_until):
            self._check_held(transaction)
            return True
        is_expired = valid_until < moment.chain_ms
        return is_expired and self._executor.state.locate(transaction.id) is not None

    def _check_held(self, transaction: Transaction) -> None:
        """A result of before this node's beginning is known elsewhere alone; nobody waits for it.

        Raises: Rejected(PRUNED).
        """
        executor = self._executor
        if not executor.state.beginning or executor.is_executing:
            return
        if executor.state.locate(transaction.id) is None:
            detail = "it was executed before this node began"
            raise Rejected(Reason.PRUNED, detail, lowest=executor.state.beginning + 1)

    def _check_account(self, transaction: Transaction, moment: _Moment) -> None:
        body = transaction.body
        engine, state = self._executor.engine, self._executor.state
        account = engine.account(state, body.account)
        if account is None:
            account = engine.reporter(state, body, moment.height + 1)
        if account is None:
            raise Rejected(Reason.UNKNOWN_ACCOUNT, account=body.account.hex())
        if account.script != (body.signer or body.account):
            raise Rejected(Reason.SIGNER_NOT_CURRENT, account=body.account.hex())

    def _verify(self, group: Sequence[Answer]) -> list[Answer]:
        """The same with a refusal in place of each whose signatures do not hold."""
        verified = list(group)
        for index, item in enumerate(group):
            if isinstance(item, Transaction):
                try:
                    self._verify_slice((item,))
                except Rejected as refusal:
                    verified[index] = refusal
        return verified

    def _verify_slice(self, transactions: Sequence[Transaction]) -> None:
        """Check signatures that were not checked before, once.

        Raises: Rejected for the first one that does not hold.
        """
        if len(self._verified) >= limits.VERIFIED_CACHE:
            # Two generations: forgetting one by one would scan the dead front of the dict.
            self._verified_before, self._verified = self._verified, {}
        verified, before, chain = self._verified, self._verified_before, self._chain
        for transaction in transactions:
            leaf = transaction.leaf
            if leaf not in verified and leaf not in before:
                verify_signatures(transaction, chain)
                verified[leaf] = None

    async def verify_batch(
        self, wire: bytes, signed: SignedBatch, validators_at: Callable[[int], ValidatorSet]
    ) -> Batch:
        """A batch of a peer with every signature checked; its anchor says which set it is of.

        Raises: Rejected; the author signed it, so the blame is the author's. UnavailableError when
            this node lags too far to know the author: the batch is pulled when a block needs it.
        """
        measure = self._stages.measure(Stage.DECODE)
        batch = await parse_in_steps(wire, signed, self._chain, measure)
        self._check_author(batch, validators_at(batch.header.anchor_height + 1))
        for group in _by_signatures(batch.transactions):
            with self._stages.measure(Stage.SIGNATURE):
                self._verify_slice(group)
            await trio.lowlevel.checkpoint()
        return batch

    def _check_author(self, batch: Batch, validators: ValidatorSet) -> None:
        index = validators.index_of(Address(batch.header.author))
        if index is None and batch.header.anchor_height > self._executor.state_tip.height + 1:
            raise UnavailableError("the author may have joined in a block that is not here yet")
        if index is None:
            raise Rejected(Reason.BAD_BATCH, "the author is no validator")
        key = validators.members[index].key
        if not self._chain.suite.verify(key, batch.digest, batch.signature):
            raise Rejected(Reason.BAD_BATCH, "signature of the author")


def _check_time(valid_until: int, now_ms: int) -> None:
    if valid_until < now_ms:
        raise Rejected(Reason.EXPIRED, valid_until=valid_until, now=now_ms)
    if valid_until > now_ms + protocol.REPLAY_WINDOW_MS:
        raise Rejected(Reason.VALID_TOO_FAR, valid_until=valid_until, now=now_ms)


def _by_signatures(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Slices with at most SLICE_SIGNATURES signatures to check, in order."""
    start = signatures = 0
    for index, item in enumerate(items):
        weight = len(item.signatures) if isinstance(item, Transaction) else 0
        signatures += weight
        if signatures > limits.SLICE_SIGNATURES and index > start:
            yield items[start:index]
            start, signatures = index, weight
    if start < len(items):
        yield items[start:]
