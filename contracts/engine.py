"""The execution of a block: transactions in order on the state, one receipt per operation.

What it decides: whether each transaction may run at this block's time (expiry, replay, namespace,
account, signer, `after`) and what its operations do. Every node must reach the same receipts and
the same write set from the same block, so nothing here depends on anything but its arguments.
Source: architecture sections 2 and 3.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from contracts import accounts, data_index
from contracts.interface import (
    ACCOUNT,
    ACCOUNTS_CONTRACT,
    SYSTEM_MODULE,
    Account,
    BlockContext,
    Context,
    Contract,
    Method,
    Revert,
    find_contract,
)
from ledger import limits
from ledger.codec import Record, encode
from ledger.errors import Reason, Rejected, invariant
from ledger.genesis import Genesis, Module
from ledger.ids import Address, TransactionId
from ledger.receipts import Receipt, Status
from ledger.replay import ReplayWindow
from ledger.state import Map, Overlay, namespace_prefix
from ledger.transaction import Call, Chain, Transaction, operation_ids

NATIVE = {contract.name: contract for contract in (accounts.CONTRACT, data_index.CONTRACT)}
_NOBODY = Address(bytes(32))
_ACCOUNTS_PREFIX = namespace_prefix(SYSTEM_MODULE, 0) + ACCOUNTS_CONTRACT.encode() + b"\0account\0"


@dataclass(slots=True)
class Outcome:
    """What a block did: receipts per namespace in execution order, and where each id stands."""

    receipts: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)
    located: list[tuple[TransactionId, int, int]] = field(default_factory=list)
    """(operation id, operation index, receipt index), in execution order; first sightings only."""
    operations: int = 0


class Engine:
    """The contracts of a chain and the rules under which transactions run."""

    def __init__(self, chain: Chain, modules: Iterable[Module]) -> None:
        """Raises: Rejected(BAD_GENESIS) for a contract this version does not have."""
        self._chain = chain
        self._max_level: dict[str, int] = {}
        self._contracts: dict[str, Mapping[str, Contract]] = {}
        for module in modules:
            self._max_level[module.name] = module.max_level
            self._contracts[module.name] = {
                name: find_contract(NATIVE, name) for name in module.contracts
            }
        if ACCOUNTS_CONTRACT not in self._contracts.get(SYSTEM_MODULE, {}):
            raise Rejected(Reason.BAD_GENESIS, "module system must hold contract accounts")

    def install(self, overlay: Overlay, genesis: Genesis) -> None:
        """Write the state of height 0."""
        context = Context(
            overlay=overlay,
            suite=self._chain.suite,
            module=SYSTEM_MODULE,
            level=0,
            contract=ACCOUNTS_CONTRACT,
            block=BlockContext(height=0, time=genesis.time),
            account=_NOBODY,
            identity=None,
            operation_id=TransactionId(bytes(32)),
        )
        accounts.install_genesis(context, genesis)
        overlay.keep()

    def has_namespace(self, module: str, level: int) -> bool:
        """Whether transactions may name this namespace."""
        return level <= self._max_level.get(module, -1)

    def account(self, overlay: Overlay, account: Address) -> Account | None:
        """An account of the allow-list as of this state."""
        accounts_map: Map[Account] = Map(overlay, _ACCOUNTS_PREFIX, ACCOUNT)
        return accounts_map.get(account)

    def execute(
        self,
        overlay: Overlay,
        window: ReplayWindow,
        block: BlockContext,
        transaction: Transaction,
        outcome: Outcome,
    ) -> None:
        """Run one transaction: keep or drop its writes, add its receipts to `outcome`."""
        body = transaction.body
        ids = operation_ids(transaction, self._chain.suite)
        identity = self._identity(overlay, transaction)
        status = self._admission(identity, window, block, transaction)
        if status is not None:
            receipts = [_refused(operation_id, status) for operation_id in ids]
        else:
            receipts = self._run(overlay, block, transaction, ids, identity)
        if status is not Status.DUPLICATE:
            succeeded = all(receipt.status == Status.OK for receipt in receipts)
            window.record(transaction.id, body.valid_until, succeeded=succeeded)
        encoded = outcome.receipts.setdefault((body.module, body.level), [])
        for index, receipt in enumerate(receipts):
            if status is not Status.DUPLICATE:
                outcome.located.append((ids[index], index, len(encoded)))
            encoded.append(encode(receipt))
        outcome.operations += len(receipts)

    def _identity(self, overlay: Overlay, transaction: Transaction) -> Account | None:
        return self.account(overlay, Address(transaction.body.account))

    def _admission(
        self,
        identity: Account | None,
        window: ReplayWindow,
        block: BlockContext,
        transaction: Transaction,
    ) -> Status | None:
        """The refusal that holds before any operation runs; the order of rules is protocol."""
        body = transaction.body
        if window.seen(transaction.id, body.valid_until):
            return Status.DUPLICATE
        if body.valid_until < block.time:
            return Status.EXPIRED
        if not self.has_namespace(body.module, body.level):
            return Status.UNKNOWN_NAMESPACE
        if identity is None:
            return Status.UNKNOWN_ACCOUNT
        if identity.script != (body.signer or body.account):
            return Status.SIGNER_NOT_CURRENT
        if body.after is not None and not window.succeeded(TransactionId(body.after)):
            return Status.AFTER_NOT_FOUND
        return None

    def _run(
        self,
        overlay: Overlay,
        block: BlockContext,
        transaction: Transaction,
        ids: tuple[TransactionId, ...],
        identity: Account | None,
    ) -> list[Receipt]:
        receipts: list[Receipt] = []
        atomic = transaction.is_atomic
        for operation_id, call in zip(ids, transaction.operations, strict=True):
            receipt = self._operation(overlay, block, transaction, operation_id, call, identity)
            receipts.append(receipt)
            if atomic and receipt.status != Status.OK:
                overlay.drop()
                return [
                    receipt if operation == operation_id else _refused(operation, Status.ABORTED)
                    for operation in ids
                ]
            if not atomic:
                _settle(overlay, receipt)
        overlay.keep()
        return receipts

    def _operation(
        self,
        overlay: Overlay,
        block: BlockContext,
        transaction: Transaction,
        operation_id: TransactionId,
        call: Call,
        identity: Account | None,
    ) -> Receipt:
        body = transaction.body
        contract = self._contracts[body.module].get(call.contract)
        if contract is None:
            return _refused(operation_id, Status.UNKNOWN_CONTRACT)
        method = contract.methods.get(call.method)
        if method is None or not method.writes:
            return _refused(operation_id, Status.UNKNOWN_METHOD)
        try:
            arguments = method.schema.decode(call.arguments)
        except Rejected:
            return _refused(operation_id, Status.BAD_ARGUMENTS)
        context = Context(
            overlay=overlay,
            suite=self._chain.suite,
            module=body.module,
            level=body.level,
            contract=call.contract,
            block=block,
            account=Address(body.account),
            identity=identity,
            operation_id=operation_id,
        )
        try:
            output = encode(method.run(context, arguments))
        except Revert as refusal:
            return Receipt(operation_id, Status.REVERTED, refusal.error, 0, b"", ())
        invariant(len(output) <= limits.RETURN_BYTES, f"{call.method} answers too much")
        return Receipt(operation_id, Status.OK, "", 0, output, tuple(context.events))

    def method(self, module: str, contract: str, name: str) -> Method | None:
        """A method of a module's contract, or None."""
        found = self._contracts.get(module, {}).get(contract)
        return None if found is None else found.methods.get(name)

    def read(
        self,
        overlay: Overlay,
        block: BlockContext,
        module: str,
        level: int,
        contract: str,
        view: Method,
        arguments: Record,
    ) -> Record:
        """Run a reading method on committed state.

        Raises: Revert when the contract refuses.
        """
        context = Context(
            overlay=overlay,
            suite=self._chain.suite,
            module=module,
            level=level,
            contract=contract,
            block=block,
            account=_NOBODY,
            identity=None,
            operation_id=TransactionId(bytes(32)),
        )
        return view.run(context, arguments)


def _refused(operation_id: TransactionId, status: Status) -> Receipt:
    return Receipt(operation_id, status, "", 0, b"", ())


def _settle(overlay: Overlay, receipt: Receipt) -> None:
    if receipt.status == Status.OK:
        overlay.keep()
    else:
        overlay.drop()
