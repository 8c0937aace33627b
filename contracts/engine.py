"""The execution of a block: transactions in order on the state, one receipt per operation.

What it decides: whether each transaction may run at this block's time (expiry, replay, namespace,
account, signer, `after`) and what its operations do. Every node must reach the same receipts and
the same write set from the same block, so nothing here depends on anything but its arguments.
Source: architecture sections 2 and 3.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from contracts import accounts, data_index, evidence, membership
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
    Scope,
    find_contract,
    scope_of,
)
from ledger import limits
from ledger.codec import Record, encode
from ledger.errors import InvariantError, Reason, Rejected
from ledger.genesis import Genesis, Module
from ledger.ids import Address, TransactionId
from ledger.membership import MEMBERSHIP_CONTRACT, find_node
from ledger.receipts import Receipt, Status
from ledger.replay import NO_NAMESPACE, ReplayEntry, ReplayWindow
from ledger.state import Overlay, StateReader
from ledger.store.results import Locator
from ledger.transaction import Call, Chain, Transaction, TransactionBody, operation_ids

NATIVE = {
    contract.name: contract
    for contract in (
        accounts.CONTRACT,
        data_index.CONTRACT,
        evidence.CONTRACT,
        membership.CONTRACT,
    )
}
_NOBODY = Address(bytes(32))
_NO_OPERATION = TransactionId(bytes(32))
# Bound: decoded accounts by their bytes, about 1 MB; few organisations sign most transactions.
_DECODED_ACCOUNTS = 4_096


@dataclass(slots=True)
class Outcome:
    """What a block did: receipts per namespace in execution order, and where each id stands."""

    receipts: dict[tuple[str, int], list[bytes]] = field(
        default_factory=dict[tuple[str, int], list[bytes]]
    )
    located: list[tuple[TransactionId, Locator]] = field(
        default_factory=list[tuple[TransactionId, Locator]]
    )
    expired: list[tuple[TransactionId, Locator]] = field(
        default_factory=list[tuple[TransactionId, Locator]]
    )
    """Like `located`, but the window no longer tells whether the id was executed before."""
    replay: dict[tuple[str, int], list[ReplayEntry]] = field(
        default_factory=dict[tuple[str, int], list[ReplayEntry]]
    )
    """What the block adds to the replay window of each namespace."""
    transactions: int = 0
    operations: int = 0
    """Of those that were not seen before."""


class _Namespace:
    """The methods that may run in one namespace, each with its scope."""

    __slots__ = ("contracts", "methods")

    def __init__(
        self, chain: Chain, module: str, level: int, found: Mapping[str, Contract]
    ) -> None:
        self.contracts = found
        self.methods: dict[tuple[str, str], tuple[Method, Scope]] = {
            (contract.name, name): (method, scope_of(chain, module, level, contract.name))
            for contract in found.values()
            for name, method in contract.methods.items()
        }


class Engine:
    """The contracts of a chain and the rules under which transactions run."""

    def __init__(self, chain: Chain, modules: Iterable[Module]) -> None:
        """Raises: Rejected(BAD_GENESIS) for a contract this version does not have."""
        self._chain = chain
        self._namespaces: dict[tuple[str, int], _Namespace] = {}
        self._decoded: dict[bytes, Account] = {}
        for module in modules:
            found = {name: find_contract(NATIVE, name) for name in module.contracts}
            for level in range(module.max_level + 1):
                namespace = _Namespace(chain, module.name, level, found)
                self._namespaces[module.name, level] = namespace
        system = self._namespaces.get((SYSTEM_MODULE, 0))
        if system is None or ACCOUNTS_CONTRACT not in system.contracts:
            raise Rejected(Reason.BAD_GENESIS, "module system must hold contract accounts")
        self._can_change = MEMBERSHIP_CONTRACT in system.contracts
        self._takes_evidence = evidence.EVIDENCE_CONTRACT in system.contracts
        if self._takes_evidence and not self._can_change:
            raise Rejected(Reason.BAD_GENESIS, "contract evidence needs contract membership")
        self._system = scope_of(chain, SYSTEM_MODULE, 0, ACCOUNTS_CONTRACT)
        self._accounts_prefix = self._system.prefix + accounts.ACCOUNTS.encode() + b"\0"

    def install(self, overlay: Overlay, genesis: Genesis) -> None:
        """Write the state of height 0."""
        block = BlockContext(height=0, time=genesis.time)
        context = Context(self._system, overlay, block, _NOBODY, None, _NO_OPERATION)
        accounts.install_genesis(context, genesis)
        if self._can_change:
            scope = scope_of(self._chain, SYSTEM_MODULE, 0, MEMBERSHIP_CONTRACT)
            context = Context(scope, overlay, block, _NOBODY, None, _NO_OPERATION)
            membership.install_genesis(context, genesis)
        overlay.keep()

    def has_namespace(self, module: str, level: int) -> bool:
        """Whether transactions may name this namespace."""
        return (module, level) in self._namespaces

    def account(self, state: Overlay | StateReader, account: bytes) -> Account | None:
        """An account of the allow-list as of this state."""
        data = state.get(self._accounts_prefix + account)
        if data is None:
            return None
        found = self._decoded.get(data)
        if found is None:
            found = ACCOUNT.decode(data)
            if len(self._decoded) >= _DECODED_ACCOUNTS:
                self._decoded.clear()
            self._decoded[data] = found
        return found

    def reporter(
        self, state: Overlay | StateReader, body: TransactionBody, height: int
    ) -> Account | None:
        """A node of the allow-list, for the one method that nodes may send: to report evidence."""
        payload = body.payload
        is_report = (
            self._takes_evidence
            and isinstance(payload, Call)
            and (body.module, body.level) == (SYSTEM_MODULE, 0)
            and (payload.contract, payload.method) == (evidence.EVIDENCE_CONTRACT, evidence.REPORT)
        )
        node = find_node(state.get, body.account) if is_report else None
        if node is None or not node.role_at(height):
            return None
        return Account(node.organisation, "node", body.account)

    def execute(
        self,
        overlay: Overlay,
        window: ReplayWindow,
        block: BlockContext,
        transaction: Transaction,
        place: tuple[int, int],
        outcome: Outcome,
    ) -> None:
        """Run one transaction: keep or drop its writes, add its receipts to `outcome`.

        `place` is the number of its batch in the block, and its own in that.
        """
        body = transaction.body
        identity = self.account(overlay, body.account)
        if identity is None:
            identity = self.reporter(overlay, body, block.height)
        key = body.module, body.level
        namespace = self._namespaces.get(key)
        status = _admission(namespace, identity, window, block, transaction)
        ids = operation_ids(transaction, self._chain.suite)
        if status is not None or namespace is None:
            refusal = status or Status.UNKNOWN_NAMESPACE
            receipts = [_refused(operation_id, refusal) for operation_id in ids]
            succeeded = False
        else:
            run = _Run(namespace, overlay, block, body.account, identity)
            if transaction.is_envelope:
                receipts = _envelope(run, transaction, ids)
                succeeded = all(receipt.status == 0 for receipt in receipts)
            else:
                receipt = _operation(run, ids[0], transaction.operations[0])
                receipts, succeeded = [receipt], receipt.status == 0
                _settle(overlay, receipt)
        encoded = outcome.receipts.get(key)
        if encoded is None:
            encoded = outcome.receipts[key] = []
        if status is not Status.DUPLICATE:
            window.record(transaction.id, body.valid_until, succeeded=succeeded)
            known = NO_NAMESPACE if namespace is None else key
            entries = outcome.replay.get(known)
            if entries is None:
                entries = outcome.replay[known] = []
            entries.append((transaction.id, body.valid_until, succeeded))
            places = outcome.expired if status is Status.EXPIRED else outcome.located
            _locate(places, block.height, place, transaction, ids, len(encoded))
            outcome.transactions += 1
            outcome.operations += len(receipts)
        encoded += [encode(receipt) for receipt in receipts]

    def method(self, module: str, contract: str, name: str) -> Method | None:
        """A method of a module's contract, or None."""
        namespace = self._namespaces.get((module, 0))
        found = None if namespace is None else namespace.methods.get((contract, name))
        return None if found is None else found[0]

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
        scope = scope_of(self._chain, module, level, contract)
        context = Context(scope, overlay, block, _NOBODY, None, _NO_OPERATION)
        return view.run(context, arguments)


class _Run(msgspec.Struct, frozen=True, gc=False):
    """What the operations of one transaction share."""

    namespace: _Namespace
    overlay: Overlay
    block: BlockContext
    account: bytes
    identity: Account | None


def _admission(
    namespace: _Namespace | None,
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
    if namespace is None:
        return Status.UNKNOWN_NAMESPACE
    if identity is None:
        return Status.UNKNOWN_ACCOUNT
    if identity.script != (body.signer or body.account):
        return Status.SIGNER_NOT_CURRENT
    if body.after is not None and not window.succeeded(TransactionId(body.after)):
        return Status.AFTER_NOT_FOUND
    return None


def _envelope(run: _Run, transaction: Transaction, ids: tuple[TransactionId, ...]) -> list[Receipt]:
    """The operations of an envelope in order; an atomic one ends with its first failure."""
    atomic = transaction.is_atomic
    receipts: list[Receipt] = []
    for operation_id, call in zip(ids, transaction.operations, strict=True):
        receipt = _operation(run, operation_id, call)
        receipts.append(receipt)
        if not atomic:
            _settle(run.overlay, receipt)
        elif receipt.status != 0:
            run.overlay.drop()
            aborted = [_refused(operation, Status.ABORTED) for operation in ids]
            aborted[len(receipts) - 1] = receipt
            return aborted
    run.overlay.keep()
    return receipts


def _operation(run: _Run, operation_id: TransactionId, call: Call) -> Receipt:
    namespace = run.namespace
    found = namespace.methods.get((call.contract, call.method))
    if found is None or not found[0].writes:
        known = call.contract in namespace.contracts
        return _refused(operation_id, Status.UNKNOWN_METHOD if known else Status.UNKNOWN_CONTRACT)
    method, scope = found
    raw = call.arguments
    try:
        arguments = method.schema.decode(raw)
    except Rejected:
        return _refused(operation_id, Status.BAD_ARGUMENTS)
    context = Context(scope, run.overlay, run.block, run.account, run.identity, operation_id, raw)
    try:
        output = encode(method.run(context, arguments))
    except Revert as refusal:
        return Receipt(operation_id, Status.REVERTED, refusal.error, 0, b"", ())
    if len(output) > limits.RETURN_BYTES:
        raise InvariantError(f"{call.contract}.{call.method} answers too much")
    return Receipt(operation_id, 0, "", 0, output, tuple(context.events))


def _refused(operation_id: TransactionId, status: Status) -> Receipt:
    return Receipt(operation_id, int(status), "", 0, b"", ())


def _settle(overlay: Overlay, receipt: Receipt) -> None:
    if receipt.status == 0:
        overlay.keep()
    else:
        overlay.drop()


def _locate(
    located: list[tuple[TransactionId, Locator]],
    height: int,
    place: tuple[int, int],
    transaction: Transaction,
    ids: tuple[TransactionId, ...],
    first_receipt: int,
) -> None:
    """Note where each operation stands, and an envelope as a whole by its first operation."""
    batch, number = place
    if not transaction.is_envelope:
        located.append((ids[0], Locator(height, batch, number, 0, first_receipt)))
        return
    for index, operation_id in enumerate(ids):
        located.append((operation_id, Locator(height, batch, number, index, first_receipt + index)))
    located.append((transaction.id, Locator(height, batch, number, 0, first_receipt)))
