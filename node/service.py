"""What a running node offers to those who answer clients: one narrow interface.

`rpc/` knows the node only through this protocol, so it can be tested against a small fake and the
node can change inside. Reads speak of the newest executed block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from contracts.interface import Method
from ledger.batch import Batch
from ledger.block import Block, Header
from ledger.codec import Record
from ledger.genesis import Genesis
from ledger.ids import TransactionId
from ledger.proof import Proof
from ledger.receipts import Receipt
from ledger.transaction import Chain, Transaction
from node.light import LightQueries

if TYPE_CHECKING:
    from node.proofs import Proofs


@dataclass(frozen=True, slots=True)
class Info:
    """The node and its chain in one look; `mode` is `flat` or `hierarchical`."""

    chain_id: str
    genesis_hash: bytes
    group: int
    version: str
    protocol_version: int
    node: str
    height: int
    latest_block_hash: bytes
    latest_block_time: int
    transactions: int
    operations: int
    pending: int
    masters: int
    mode: str
    peers: int
    syncing: bool
    lowest: int = 1
    """The lowest height whose block this node holds."""


@dataclass(frozen=True, slots=True)
class PeerView:
    """A connected or known peer. Times in ms; `round_trip_ms` None until measured.

    `score` is 0 or less and decays; `standing` is `good`, `demoted` or `banned`; `throttled_ms` is
    for how long it was not read because of its budgets.
    """

    name: str
    address: str
    role: str
    connected: bool
    endpoint: str
    direction: str
    height: int
    round_trip_ms: int | None
    bytes_in: int
    bytes_out: int
    score: int = 0
    standing: str = "good"
    throttled_ms: int = 0
    certificate_expires: int | None = None


@dataclass(frozen=True, slots=True)
class ConsensusView:
    """Where the consensus core of this node stands."""

    height: int
    round: int
    step: str
    validators: tuple[str, ...]
    quorum: int
    proposer: str
    demoted: tuple[str, ...]
    voting: bool


@dataclass(frozen=True, slots=True)
class FoundTransaction:
    """A transaction on chain: where it stands and what became of each operation.

    `operation` is the index that was asked for, when an operation id was given.
    """

    transaction: Transaction
    block_height: int
    block_time: int
    index: int
    operation: int | None
    operation_ids: tuple[TransactionId, ...]
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, slots=True)
class FoundBlock:
    """A stored block with its batches and the certificate that decided it."""

    header_bytes: bytes
    header: Header
    block: Block
    block_hash: bytes
    certificate: bytes
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """The first result of an id: the height that holds it and the receipt status names."""

    block_height: int
    statuses: tuple[str, ...]


class NodeService(Protocol):
    """A running node, as the RPC layer sees it."""

    @property
    def chain(self) -> Chain:
        """Which chain this node serves."""
        ...

    @property
    def genesis(self) -> Genesis:
        """The genesis record."""
        ...

    @property
    def height(self) -> int:
        """The newest executed and durable height."""
        ...

    def info(self) -> Info:
        """The node and its chain in one look."""
        ...

    def peers(self) -> tuple[PeerView, ...]:
        """All nodes of the allow-list but this one, with the state of their links."""
        ...

    def consensus(self) -> ConsensusView:
        """Where consensus stands."""
        ...

    async def submit(
        self, wires: Sequence[bytes], client: str = ""
    ) -> list[TransactionId | Exception]:
        """Admit transactions; per item its id, or the Rejected / UnavailableError that refuses it.

        `client` is the network address they came from, "" when they came from nowhere.

        A transaction that was sent before answers its id again. Cheap checks come first; the
        signature is checked in slices so that consensus is not kept waiting.
        """
        ...

    async def committed(self, transaction_id: TransactionId) -> Committed | None:
        """The first result of a transaction or operation id, if it was executed."""
        ...

    async def wait_committed(self, transaction_id: TransactionId) -> Committed:
        """Wait until the id is executed. The caller sets the deadline."""
        ...

    async def wait_height(self, height: int) -> None:
        """Wait until the block at `height` is executed. The caller sets the deadline."""
        ...

    def is_pending(self, transaction_id: TransactionId) -> bool:
        """Whether the id is admitted here and waits for a block."""
        ...

    async def transaction(self, any_id: bytes) -> FoundTransaction | None:
        """A transaction by its id or by the id of one of its operations."""
        ...

    async def block(self, height: int) -> FoundBlock | None:
        """A stored block by height."""
        ...

    def height_of(self, block_hash: bytes) -> int | None:
        """The height of a block hash."""
        ...

    async def proof(self, any_id: bytes) -> Proof | None:
        """The proof of a transaction or operation.

        Raises: UnavailableError while the next header does not exist yet, Rejected(NOT_SUCCESSFUL).
        """
        ...

    @property
    def proofs(self) -> "Proofs":
        """The maker of all other proofs."""
        ...

    @property
    def light(self) -> LightQueries:
        """What clients that keep no blocks ask."""
        ...

    def method(self, module: str, contract: str, name: str) -> Method | None:
        """A method of a contract, or None."""
        ...

    def read(
        self, module: str, level: int, contract: str, view: Method, arguments: Record
    ) -> Record:
        """Run a reading method on the newest executed state.

        Raises: Revert when the contract refuses, Rejected(UNKNOWN_NAMESPACE).
        """
        ...
