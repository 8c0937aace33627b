"""The JSON-RPC methods that answer with a proof document.

What it decides: names and parameters; the answer is always a document of docs/proofs.md in its one
form. An application names a collection by module, level, contract and map or log, and a key by
its bytes as the contract makes them, in hexadecimal.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ledger import limits
from ledger.codec import Document
from ledger.genesis import Hex32
from ledger.ids import Level, Name
from ledger.proofs.completeness import COMPLETENESS_BLOCKS
from ledger.proofs.family import document_json
from ledger.proofs.log import LOG_PROOF_ENTRIES
from ledger.proofs.positions import JSON_INT_MAX
from ledger.proofs.state import Collection, HexKey
from node.service import NodeService
from rpc.jsonrpc import Context, Method
from rpc.refusals import unknown_id

Height = Annotated[int, Meta(ge=0, le=JSON_INT_MAX)]


class StateParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key of a map, and after which block; the newest that can be proved by default."""

    module: Name
    level: Level
    contract: Name
    map: Name
    key: HexKey
    height: Height | None = None


class LogParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`count` entries of a log from position `first` on, none for its head; after which block."""

    module: Name
    level: Level
    contract: Name
    log: Name
    first: Height = 0
    count: Annotated[int, Meta(ge=0, le=LOG_PROOF_ENTRIES)] = 0
    height: Height | None = None


class CompletenessParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A namespace, a range of heights, and by the state after which block."""

    module: Name
    level: Level
    start: Height
    stop: Height
    height: Height | None = None


class OperationParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id of an operation; that of an envelope stands for its first one."""

    id: Hex32


class EventParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id of an operation and which of its events, from 0."""

    id: Hex32
    event: Annotated[int, Meta(ge=0, lt=limits.EVENTS_PER_OPERATION)] = 0


class PastParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An old height, and under the header of which later one; the newest by default."""

    height: Height
    under: Height | None = None


class ProofMethods:
    """The handlers, over one node."""

    __slots__ = ("_service",)

    def __init__(self, service: NodeService) -> None:
        self._service = service

    def methods(self) -> list[Method[Any]]:
        """All of them, for the registry."""
        blocks = f"{COMPLETENESS_BLOCKS:,}"
        return [
            Method("get_state_proof", StateParams, self.state, "A value of a map, or its absence"),
            Method(
                "get_log_proof",
                LogParams,
                self.log,
                f"How many entries a log has, and up to {LOG_PROOF_ENTRIES} of them",
            ),
            Method(
                "get_completeness_proof",
                CompletenessParams,
                self.completeness,
                f"All that a range of heights holds of a namespace, up to {blocks} blocks",
            ),
            Method(
                "get_receipt_proof",
                OperationParams,
                self.receipt,
                "What became of an operation, whatever it is",
            ),
            Method("get_event_proof", EventParams, self.event, "One event of an operation"),
            Method(
                "get_transaction_proof",
                OperationParams,
                self.transaction,
                "A signed transaction, and what became of an operation of it",
            ),
            Method("get_header_proof", PastParams, self.header, "An old header under a later one"),
            Method(
                "get_history_proof",
                PastParams,
                self.history,
                "That the history of an old height is the beginning of a later one",
            ),
        ]

    async def state(self, params: StateParams, _context: Context) -> msgspec.Raw:
        """A value of a map, or its absence."""
        collection = Collection(params.module, params.level, params.contract, params.map)
        key = bytes.fromhex(params.key)
        return _answer(await self._service.proofs.state(collection, key, params.height))

    async def log(self, params: LogParams, _context: Context) -> msgspec.Raw:
        """The head of a log and entries of it."""
        collection = Collection(params.module, params.level, params.contract, params.log)
        stop = params.first + params.count
        positions = (params.first, stop) if params.count else (0, 0)
        return _answer(await self._service.proofs.log(collection, positions, params.height))

    async def completeness(self, params: CompletenessParams, _context: Context) -> msgspec.Raw:
        """All that a range of heights holds of a namespace."""
        made = await self._service.proofs.completeness(
            params.module, params.level, params.start, params.stop, params.height
        )
        return _answer(made)

    async def receipt(self, params: OperationParams, _context: Context) -> msgspec.Raw:
        """What became of an operation."""
        made = await self._service.proofs.receipt(bytes.fromhex(params.id))
        return self._found(made, params.id)

    async def event(self, params: EventParams, _context: Context) -> msgspec.Raw:
        """One event of an operation."""
        operation = bytes.fromhex(params.id)
        made = await self._service.proofs.event(operation, params.event)
        return self._found(made, params.id)

    async def transaction(self, params: OperationParams, _context: Context) -> msgspec.Raw:
        """A signed transaction, and what became of an operation of it."""
        made = await self._service.proofs.transaction(bytes.fromhex(params.id))
        return self._found(made, params.id)

    async def header(self, params: PastParams, _context: Context) -> msgspec.Raw:
        """An old header under a later one."""
        return _answer(await self._service.proofs.header(params.height, params.under))

    async def history(self, params: PastParams, _context: Context) -> msgspec.Raw:
        """An old history as the beginning of a later one."""
        return _answer(await self._service.proofs.history(params.height, params.under))

    def _found(self, document: Document | None, any_id: str) -> msgspec.Raw:
        if document is None:
            raise unknown_id(self._service, any_id)
        return _answer(document)


def _answer(document: Document) -> msgspec.Raw:
    return msgspec.Raw(document_json(document))
