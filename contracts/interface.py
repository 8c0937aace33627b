"""What a contract is: named methods over typed arguments, and the little world they may see.

A contract belongs to a module and runs in one namespace (module, broadcast level). It reads and
writes its own maps and logs, reads the common system contract, emits events, returns a record or
refuses with a stable error name. It sees no clock, no randomness, no disk.
The contract language and its VM will produce these same objects; the interface stays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import msgspec

from ledger import limits
from ledger.codec import Record, Schema, encode
from ledger.crypto.suite import CryptoSuite
from ledger.errors import InvariantError, KanglianError, Reason, Rejected, invariant
from ledger.ids import TransactionId
from ledger.membership import SYSTEM_MODULE
from ledger.receipts import Event
from ledger.state import Log, Map, Overlay, namespace_prefix
from ledger.transaction import Chain

V = TypeVar("V")

ACCOUNTS_CONTRACT = "accounts"


class Revert(KanglianError):
    """A contract refuses; the operation leaves nothing behind but its receipt."""

    def __init__(self, error: str) -> None:
        self.error = error
        super().__init__(error)


class Account(Record, frozen=True):
    """An account of the allow-list: its organisation, its role, its current redeem script."""

    organisation: str
    role: str
    script: bytes


ACCOUNT = Schema(Account, max_bytes=1_024)
_COMMON = namespace_prefix(SYSTEM_MODULE, 0)


@dataclass(frozen=True, slots=True)
class BlockContext:
    """The block an operation runs in; `time` is its proposer-based timestamp in ms."""

    height: int
    time: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a contract runs: its namespace, and the prefix of all its keys."""

    chain: Chain
    level: int
    contract: str
    prefix: bytes

    def path(self, name: str) -> bytes:
        """The prefix of the keys of a map or a log."""
        return self.prefix + name.encode() + b"\0"


def scope_of(chain: Chain, module: str, level: int, contract: str) -> Scope:
    """The scope of a contract in a namespace."""
    prefix = namespace_prefix(module, level) + contract.encode() + b"\0"
    return Scope(chain, level, contract, prefix)


class Context(msgspec.Struct, gc=False):
    """The world of one operation or one read. A struct: there is one for each operation."""

    _scope: Scope
    _overlay: Overlay
    block: BlockContext
    account: bytes
    identity: Account | None
    operation_id: TransactionId
    arguments: bytes = b""
    events: list[Event] = []

    @property
    def chain(self) -> Chain:
        """The chain that the contract runs on."""
        return self._scope.chain

    @property
    def suite(self) -> CryptoSuite:
        """The chain's hashes and signatures."""
        return self._scope.chain.suite

    @property
    def level(self) -> int:
        """The broadcast level of the namespace."""
        return self._scope.level

    @property
    def contract(self) -> str:
        """The contract's name."""
        return self._scope.contract

    @property
    def organisation(self) -> str:
        """The organisation of the calling account.

        Raises: Revert("NO_ORGANISATION") in a read without an account.
        """
        if self.identity is None:
            raise Revert("NO_ORGANISATION")
        return self.identity.organisation

    def map(self, name: str, schema: Schema[V]) -> Map[V]:
        """A map of this contract in this namespace."""
        return Map(self._overlay, self._scope.path(name), schema)

    def look_up(self, key: bytes) -> bytes | None:
        """A value of the common namespace (system, 0), which every node holds; never written so."""
        invariant(key.startswith(_COMMON), "a contract reads its own namespace and the common one")
        return self._overlay.get(key)

    def log(self, name: str, schema: Schema[V]) -> Log[V]:
        """A log of this contract in this namespace."""
        return Log(self._overlay, self._scope.path(name), schema)

    def emit(self, name: str, event: Record) -> None:
        """Announce an event; it stands in the receipt and dies with a refusal."""
        data = encode(event)
        events = self.events
        if len(data) > limits.EVENT_BYTES or len(events) == limits.EVENTS_PER_OPERATION:
            raise InvariantError(f"{self.contract} emits too large or too many events: {name}")
        events.append(Event(self.contract, name, data))

    def require(self, condition: object, error: str) -> None:
        """Refuse with a stable error name unless the condition holds."""
        if not condition:
            raise Revert(error)

    def refuse(self, error: str) -> NoReturn:
        """Refuse with a stable error name."""
        raise Revert(error)


@dataclass(frozen=True, slots=True)
class Method:
    """One method: the record of its arguments, the record it answers, whether it may write."""

    summary: str
    arguments: type[Record]
    result: type[Record]
    run: Callable[[Context, Any], Record]
    writes: bool
    schema: Schema[Any]


def method(
    summary: str,
    arguments: type[Record],
    result: type[Record],
    run: Callable[[Context, Any], Record],
    *,
    writes: bool,
) -> Method:
    """Declare a method; its arguments are decoded strictly before it runs."""
    schema: Schema[Any] = Schema(arguments, max_bytes=limits.TRANSACTION_BYTES)
    return Method(summary, arguments, result, run, writes, schema)


@dataclass(frozen=True, slots=True)
class Contract:
    """A named set of methods."""

    name: str
    methods: Mapping[str, Method]


def find_contract(contracts: Mapping[str, Contract], name: str) -> Contract:
    """A contract by name.

    Raises: Rejected(BAD_GENESIS) when genesis names a contract that this version does not have.
    """
    contract = contracts.get(name)
    if contract is None:
        raise Rejected(Reason.BAD_GENESIS, "unknown contract", contract=name)
    return contract
