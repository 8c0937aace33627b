"""Admission: which transactions of clients and which batches of peers this node believes.

Cheap checks come first, the signature last and exactly once: leaves whose signatures were checked
are remembered. Verification runs in slices of one to two milliseconds between looks at the event
loop, never in a thread (the interpreter lock would starve it).
"""

from collections.abc import Callable, Sequence

import trio

from ledger import limits as protocol
from ledger.batch import Batch, SignedBatch, check_batch
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.ids import Address, Hash, TransactionId
from ledger.transaction import Transaction, parse_transaction, verify_signatures
from ledger.validators import ValidatorSet
from node import limits
from node.clock import Clock
from node.executor import Executor
from node.mempool import Mempool
from node.stages import Stage, StageClock


class Admission:
    """The door for transactions and batches."""

    def __init__(
        self, executor: Executor, mempool: Mempool, clock: Clock, stages: StageClock
    ) -> None:
        self._executor = executor
        self._chain = executor.chain
        self._mempool = mempool
        self._clock = clock
        self._stages = stages
        self._verified: dict[Hash, None] = {}
        self._verified_before: dict[Hash, None] = {}

    async def admit(self, wires: Sequence[bytes]) -> list[TransactionId | Exception]:
        """Admit transactions of clients; per item its id or the refusal."""
        answers: list[TransactionId | Exception] = []
        for start in range(0, len(wires), limits.SLICE_SIGNATURES):
            part = wires[start : start + limits.SLICE_SIGNATURES]
            with self._stages.measure(Stage.ADMISSION):
                checked = [self._check(wire) for wire in part]
            with self._stages.measure(Stage.SIGNATURE):
                verified = [self._verify(item) for item in checked]
            with self._stages.measure(Stage.ADMISSION):
                for item in verified:
                    if isinstance(item, Transaction):
                        self._mempool.add(item)
                        answers.append(item.id)
                    else:
                        answers.append(item)
            await trio.lowlevel.checkpoint()
        return answers

    def _check(self, wire: bytes) -> Transaction | TransactionId | Rejected:
        """All rules but the signature; the id alone when the transaction is known already."""
        try:
            transaction = parse_transaction(wire, self._chain)
            body = transaction.body
            if self._is_known(transaction):
                return transaction.id
            self._check_time(body.valid_until)
            if not self._executor.engine.has_namespace(body.module, body.level):
                raise Rejected(Reason.UNKNOWN_NAMESPACE, module=body.module, level=body.level)
            self._check_account(transaction)
            self._mempool.check_room(body.account, len(wire))
        except Rejected as refusal:
            return refusal
        return transaction

    def _is_known(self, transaction: Transaction) -> bool:
        """Whether the id waits here or was executed; a late resend of an expired one counts too."""
        valid_until = transaction.body.valid_until
        if transaction.id in self._mempool:
            return True
        if self._executor.window.seen(transaction.id, valid_until):
            return True
        is_expired = valid_until < self._executor.state_tip.time
        return is_expired and self._executor.state.locate(transaction.id) is not None

    def _check_time(self, valid_until: int) -> None:
        now = max(self._clock.now_ms(), self._executor.state_tip.time)
        if valid_until < now:
            raise Rejected(Reason.EXPIRED, valid_until=valid_until, now=now)
        if valid_until > now + protocol.REPLAY_WINDOW_MS:
            raise Rejected(Reason.VALID_TOO_FAR, valid_until=valid_until, now=now)

    def _check_account(self, transaction: Transaction) -> None:
        body = transaction.body
        engine, state = self._executor.engine, self._executor.state
        account = engine.account(state, body.account)
        if account is None:
            account = engine.reporter(state, body, self._executor.state_tip.height + 1)
        if account is None:
            raise Rejected(Reason.UNKNOWN_ACCOUNT, account=body.account.hex())
        if account.script != (body.signer or body.account):
            raise Rejected(Reason.SIGNER_NOT_CURRENT, account=body.account.hex())

    def _verify(
        self, item: Transaction | TransactionId | Rejected
    ) -> Transaction | TransactionId | Rejected:
        if not isinstance(item, Transaction):
            return item
        try:
            self._verify_slice((item,))
        except Rejected as refusal:
            return refusal
        return item

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
        with self._stages.measure(Stage.DECODE):
            batch = check_batch(wire, signed, self._chain)
        self._check_author(batch, validators_at(batch.header.anchor_height + 1))
        await self._verify_all(batch.transactions)
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

    async def _verify_all(self, transactions: Sequence[Transaction]) -> None:
        for start in range(0, len(transactions), limits.SLICE_SIGNATURES):
            with self._stages.measure(Stage.SIGNATURE):
                self._verify_slice(transactions[start : start + limits.SLICE_SIGNATURES])
            await trio.lowlevel.checkpoint()
