"""The JSON-RPC methods of a node.

What it decides: names, parameters and answers of the methods. Everything it knows comes through
`NodeService`; every answer speaks of a height, as `height` (the newest executed) or `block_height`.
A transaction is *acknowledged* only by a reply that names its `block_height`.
Source: architecture sections 2 and 9.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from math import inf
from typing import Annotated, Any, Literal

import msgspec
import trio
from msgspec import Meta

from contracts.abi import from_json, to_json
from contracts.interface import Revert
from ledger.errors import Rejected, UnavailableError
from ledger.genesis import Hex32
from ledger.ids import TransactionId
from node.service import Committed, FoundBlock, FoundTransaction, NodeService
from rpc.http import App, Request, Response, front_door
from rpc.jsonrpc import BusyError, Context, Method, Registry, RpcError
from rpc.light_methods import LightMethods
from rpc.limits import METRICS_AGE_MS, RETRY_AFTER_MS, STEP_ITEMS
from rpc.proof_methods import ProofMethods
from rpc.refusals import NOT_FOUND, unknown_id
from rpc.views import (
    Json,
    block_view,
    header_view,
    receipts_view,
    summaries_view,
    transaction_view,
)

SEND_TRANSACTIONS = 1_000
"""One call fills at most one batch; 1,000 signatures are about 50 ms, checked in slices."""
COMMIT_TIMEOUT_MS = 60_000
"""Below the idle limits of common proxies; who waits longer asks again with the same bytes."""
HEIGHT_TIMEOUT_MS = 30_000
"""A long poll that a proxy lets live."""

REVERTED = -32041
"""A contract refused a read."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Source: Prometheus exposition formats, text format."""

ShortName = Annotated[str, Meta(max_length=64)]
"""A name is repeated in refusals, so it must not amplify; real ones have 32 characters."""
Wait = Literal["none", "commit"]
CommitTimeout = Annotated[int, Meta(ge=0, le=COMMIT_TIMEOUT_MS)]
NonNegative = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say."""


class IdParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id of a transaction or of an operation, 64 hex digits."""

    id: Hex32


class BlockParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A block by height or by hash; the newest when neither is given."""

    height: NonNegative | None = None
    hash: Hex32 | None = None
    full: bool = False


class HeaderParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A block by height or by hash; the newest when neither is given."""

    height: NonNegative | None = None
    hash: Hex32 | None = None


class SendParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed transaction in base64, and whether to wait until it stands in a block."""

    transaction: bytes
    wait: Wait = "none"
    timeout_ms: CommitTimeout = 30_000


class SendManyParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed transactions in base64."""

    transactions: Annotated[list[bytes], Meta(min_length=1, max_length=SEND_TRANSACTIONS)]
    wait: Wait = "none"
    timeout_ms: CommitTimeout = 30_000


class CallParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reading method and its arguments: an object by name or a list by position."""

    module: ShortName
    level: Annotated[int, Meta(ge=0, le=255)]
    contract: ShortName
    method: ShortName
    arguments: dict[str, Any] | list[Any] = {}


class HeightParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A height and how long to wait for it."""

    height: NonNegative
    timeout_ms: Annotated[int, Meta(ge=0, le=HEIGHT_TIMEOUT_MS)] = HEIGHT_TIMEOUT_MS


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a sent transaction so far; without a height it is not acknowledged.

    `status` is that of its receipt, or PARTIAL for an envelope whose operations differ, which
    `statuses` then tells apart.
    """

    id: str
    status: str = msgspec.field(default_factory=str)
    block_height: int | None = None
    statuses: tuple[str, ...] = ()


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one transaction of many was refused, and when to try again if that may help."""

    kind: str
    message: str
    retry_after_ms: int = 0


class Refused(msgspec.Struct, frozen=True):
    """The item of a refused transaction."""

    error: Refusal


def build_app(service: NodeService, metrics: Callable[[], bytes]) -> App:
    """The front door of a node: JSON-RPC by POST /, `/healthz` and `/metrics` by GET."""

    async def health(_request: Request) -> Response:
        info = service.info()
        status = HTTPStatus.SERVICE_UNAVAILABLE if info.syncing else HTTPStatus.OK
        body: Json = {"status": "syncing" if info.syncing else "ok", "height": info.height}
        return Response(status, msgspec.json.encode(body))

    made_at, text = -inf, b""

    async def numbers(_request: Request) -> Response:
        nonlocal made_at, text
        if trio.current_time() >= made_at + METRICS_AGE_MS / 1_000:
            made_at, text = trio.current_time(), metrics()
        return Response(HTTPStatus.OK, text, METRICS_TYPE)

    return front_door(Methods(service).registry(), {"/healthz": health, "/metrics": numbers})


class Methods:
    """The handlers, over one node."""

    __slots__ = ("_discovered", "_service")

    def __init__(self, service: NodeService) -> None:
        self._service = service
        self._discovered: Json = {}

    def registry(self) -> Registry:
        """All methods, for the JSON-RPC layer."""
        registry = Registry(
            [
                Method("getinfo", NoParams, self.getinfo, "The node and its chain in one look"),
                Method(
                    "get_transaction",
                    IdParams,
                    self.get_transaction,
                    "A transaction by its id or an operation's id, with receipts and outputs",
                ),
                Method(
                    "get_transaction_receipt",
                    IdParams,
                    self.get_transaction_receipt,
                    "What became of a transaction or operation",
                ),
                Method(
                    "get_block",
                    BlockParams,
                    self.get_block,
                    "A block with the ids of its transactions; `full` adds a line for each",
                ),
                Method(
                    "get_block_header",
                    HeaderParams,
                    self.get_block_header,
                    "A header, its bytes and its certificate",
                ),
                Method(
                    "get_proof",
                    IdParams,
                    self.get_proof,
                    "The proof document of an operation, which verifies without a node",
                ),
                Method(
                    "send_transaction",
                    SendParams,
                    self.send_transaction,
                    "Send a signed transaction; the same bytes again answer the first result",
                ),
                Method(
                    "send_transactions",
                    SendManyParams,
                    self.send_transactions,
                    "Send up to 1,000 signed transactions; each succeeds or fails alone",
                ),
                Method("call", CallParams, self.call, "Run a reading method on the newest state"),
                Method(
                    "get_peers", NoParams, self.get_peers, "The other nodes and the links to them"
                ),
                Method(
                    "get_consensus", NoParams, self.get_consensus, "Where consensus stands here"
                ),
                Method(
                    "wait_height",
                    HeightParams,
                    self.wait_height,
                    "Answer once the height is executed, or at the time limit",
                ),
                *ProofMethods(self._service).methods(),
                *LightMethods(self._service).methods(),
                Method("rpc.discover", NoParams, self.discover, "This list, as OpenRPC"),
            ]
        )
        self._discovered = _openrpc(registry, self._service.info().version)
        return registry

    async def getinfo(self, _params: NoParams, _context: Context) -> Json:
        """The node and its chain in one look.

        `blocks` counts those after genesis, `lowest` is the first of them that this node holds.
        """
        info = self._service.info()
        return {
            "chain_id": info.chain_id,
            "genesis_hash": info.genesis_hash.hex(),
            "group": info.group,
            "suite": self._service.chain.suite.name,
            "version": info.version,
            "protocol_version": info.protocol_version,
            "node": info.node,
            "height": info.height,
            "blocks": info.height,
            "lowest": info.lowest,
            "latest_block_hash": info.latest_block_hash.hex(),
            "latest_block_time": info.latest_block_time,
            "transactions": info.transactions,
            "operations": info.operations,
            "pending": info.pending,
            "masters": info.masters,
            "mode": info.mode,
            "peers": info.peers,
            "syncing": info.syncing,
        }

    async def get_transaction(self, params: IdParams, _context: Context) -> Json:
        """A transaction with everything this node knows about it."""
        found = await self._found(params.id)
        return await transaction_view(self._service, found, self._service.chain.suite)

    async def get_transaction_receipt(self, params: IdParams, _context: Context) -> Json:
        """The receipts alone."""
        found = await self._found(params.id)
        return {"id": params.id, **await receipts_view(self._service, found)}

    async def get_block(self, params: BlockParams, _context: Context) -> Json:
        """A block."""
        block = await self._block(params.height, params.hash)
        view = await block_view(block)
        return {**view, "summaries": await summaries_view(block)} if params.full else view

    async def get_block_header(self, params: HeaderParams, _context: Context) -> Json:
        """A header and its certificate."""
        return header_view(await self._block(params.height, params.hash))

    async def get_proof(self, params: IdParams, _context: Context) -> msgspec.Raw:
        """The proof in its canonical form."""
        proof = await self._service.proof(bytes.fromhex(params.id))
        if proof is None:
            raise unknown_id(self._service, params.id)
        return msgspec.Raw(proof.to_json())

    async def send_transaction(self, params: SendParams, context: Context) -> Sent:
        """Admit one transaction and, if asked, wait for its block."""
        (item,) = await self._service.submit([params.transaction], context.client)
        if isinstance(item, Exception):
            raise item
        await self._wait([item], params.wait, params.timeout_ms, context)
        if self._only_waits(item, params.wait):
            return Sent(item.hex(), "pending")
        return await self._sent(item)

    async def send_transactions(self, params: SendManyParams, context: Context) -> Json:
        """Admit many; one item each, in their order."""
        items = await self._service.submit(params.transactions, context.client)
        admitted = [item for item in items if not isinstance(item, Exception)]
        await self._wait(admitted, params.wait, params.timeout_ms, context)
        results: list[Refused | Sent] = []
        dear = 0
        for item in items:
            if isinstance(item, Exception):
                results.append(_refused(item))
            elif self._only_waits(item, params.wait):  # nearly all; a thousand take 0.5 ms
                results.append(Sent(item.hex(), "pending"))
                continue
            else:
                results.append(await self._sent(item))
            await _breathe(dear)
            dear += 1
        return {"height": self._service.height, "transactions": results}

    async def call(self, params: CallParams, _context: Context) -> Json:
        """Run a reading method."""
        name = f"{params.module}.{params.contract}.{params.method}"
        view = self._service.method(params.module, params.contract, params.method)
        if view is None:
            raise RpcError(NOT_FOUND, f"no method {name} on this chain", "unknown_method")
        if view.writes:
            message = f"{name} writes; send it in a signed transaction"
            raise RpcError(NOT_FOUND, message, "not_a_read")
        arguments = from_json(view.arguments, params.arguments)
        height = self._service.height
        try:
            result = self._service.read(
                params.module, params.level, params.contract, view, arguments
            )
        except Revert as refusal:
            message = f"{name} refused: {refusal.error}"
            data: Json = {"error": refusal.error, "height": height}
            raise RpcError(REVERTED, message, "reverted", data) from None
        return {"height": height, "result": to_json(result)}

    async def get_peers(self, _params: NoParams, _context: Context) -> Json:
        """The other nodes of the allow-list."""
        return {"height": self._service.height, "peers": list(self._service.peers())}

    async def get_consensus(self, _params: NoParams, _context: Context) -> object:
        """Where consensus stands; its `height` is the one being decided."""
        return self._service.consensus()

    async def wait_height(self, params: HeightParams, context: Context) -> Json:
        """A long poll; the answer names the height reached, whether or not it is the asked one."""
        if self._service.height < params.height:
            async with context.waiting():
                with trio.move_on_after(params.timeout_ms / 1000):
                    await self._service.wait_height(params.height)
        return {"height": self._service.height}

    async def discover(self, _params: NoParams, _context: Context) -> Json:
        """The methods and their parameters, generated from the registry."""
        return self._discovered

    async def _wait(
        self, ids: Sequence[TransactionId], wait: Wait, timeout_ms: int, context: Context
    ) -> None:
        """Wait until every id stands in a block, or for the time limit; others run meanwhile."""
        if wait == "none" or not ids:
            return
        try:
            async with context.waiting():
                with trio.move_on_after(timeout_ms / 1000):
                    for number, transaction_id in enumerate(ids):
                        await self._service.wait_committed(transaction_id)
                        await _breathe(number)
        except BusyError:
            return  # Too many wait already: it is admitted, and the answer says `pending`.

    def _only_waits(self, transaction_id: TransactionId, wait: Wait) -> bool:
        """Whether the pool alone knows what became of it, so that the store need not be asked."""
        return wait == "none" and self._service.is_pending(transaction_id)

    async def _sent(self, transaction_id: TransactionId) -> Sent:
        name = transaction_id.hex()
        committed = await self._service.committed(transaction_id)
        return Sent(name, "pending") if committed is None else sent_view(name, committed)

    async def _found(self, any_id: str) -> FoundTransaction:
        found = await self._service.transaction(bytes.fromhex(any_id))
        if found is None:
            raise unknown_id(self._service, any_id)
        return found

    async def _block(self, height: int | None, block_hash: str | None) -> FoundBlock:
        if height is not None and block_hash is not None:
            message = "name a block by height or by hash, not by both"
            raise RpcError(-32602, message, "invalid_params")
        newest = self._service.height
        wanted = newest if height is None else height
        if block_hash is not None:
            wanted = self._service.height_of(bytes.fromhex(block_hash))
        block = None if wanted is None or wanted > newest else await self._service.block(wanted)
        if block is None:
            asked = block_hash or wanted
            genesis = "; height 0 is genesis, which has no block" if wanted == 0 else ""
            message = f"no block {asked} up to height {newest}{genesis}"
            raise RpcError(NOT_FOUND, message, "not_found", {"block": asked, "height": newest})
        return block


async def _breathe(number: int) -> None:
    """A look at the event loop after every few of many items."""
    if number % STEP_ITEMS == STEP_ITEMS - 1:
        await trio.lowlevel.checkpoint()


def sent_view(name: str, committed: Committed) -> Sent:
    """What is told of a transaction that stands in a block."""
    statuses = committed.statuses
    if all(status == statuses[0] for status in statuses):
        return Sent(name, statuses[0], committed.block_height)
    return Sent(name, "PARTIAL", committed.block_height, statuses)


def _refused(error: Exception) -> Refused:
    match error:
        case Rejected():
            retry_after_ms = int(error.facts.get("retry_after_ms", 0))
            return Refused(Refusal(error.reason, str(error), retry_after_ms))
        case UnavailableError():
            return Refused(Refusal("unavailable", str(error), RETRY_AFTER_MS))
        case _:
            raise error


def _openrpc(registry: Registry, version: str) -> Json:
    methods: list[Json] = []
    for method in registry.methods:
        (reference,), components = msgspec.json.schema_components(
            [method.params], ref_template="#/components/schemas/{name}"
        )
        schema = components[reference["$ref"].rpartition("/")[2]]
        required = schema.get("required", [])
        params = [
            {"name": name, "required": name in required, "schema": form}
            for name, form in schema["properties"].items()
        ]
        methods.append({"name": method.name, "summary": method.summary, "params": params})
    return {
        "openrpc": "1.3.2",
        "info": {"title": "Kanglian", "version": version},
        "methods": methods,
    }
