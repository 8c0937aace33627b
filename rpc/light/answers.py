"""The answers of a client that believes no node: proven against its trust, or refused by name.

What it decides: what is answered. Every answer is made here, by the views of a node, from headers,
batches and receipts that the trusted chain commits to, and the node's own answer must be equal; so
a node that changes any member is refused. Members that nothing on chain proves are left out. What
it never does: fall back to what a node says.
Source: docs/light-client.md.
"""

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar, cast

import msgspec
import trio
from msgspec import Meta

from contracts.abi import to_json
from contracts.engine import Engine
from ledger import limits
from ledger.errors import Reason, Rejected
from ledger.genesis import Hex32
from ledger.ids import TransactionId
from ledger.proof import AnchoredProof, Proof, verify_from
from ledger.receipts import Status
from ledger.transaction import Chain, parse_transaction
from node.service import Committed, FoundTransaction
from rpc.failure import Json
from rpc.light.anchor import Anchor, AnchoredHeader, verify_light_proof
from rpc.light.source import HeaderAnswer, Number, Place
from rpc.methods import sent_view
from rpc.views import block_view, receipts_view, transaction_view

T = TypeVar("T")
MEMBERS_SHOWN = 200
"""How much of a lying node's own words a refusal repeats."""
UNPROVEN = {
    "call": "a reading method has no proof yet; read a transaction or its receipt instead",
    "get_peers": "it speaks of one node, not of the chain",
    "get_consensus": "it speaks of a height that is not decided",
}
"""Methods whose answers nothing on chain proves, and what to do."""


class _Info(msgspec.Struct, frozen=True):
    """The members of `getinfo` that the chain proves; it has others, which are not read."""

    genesis_hash: Hex32
    group: int
    suite: str
    protocol_version: int
    height: Number
    blocks: Number
    latest_block_hash: Hex32
    latest_block_time: Number
    masters: Annotated[int, Meta(ge=1, le=limits.VALIDATORS)]


class _Height(msgspec.Struct, frozen=True):
    """The height that an answer speaks of."""

    height: Number


class _Sent(msgspec.Struct, frozen=True):
    """The height at which a transaction is said to stand."""

    block_height: Number | None = None


class _Many(msgspec.Struct, frozen=True):
    """The items of `send_transactions`."""

    transactions: list[dict[str, Any]]


class Answers:
    """What one node answers, verified.

    Cost: a block is fetched whole for a transaction in it, and kept for the next questions.
    """

    def __init__(self, anchor: Anchor) -> None:
        self._anchor = anchor
        self._source = anchor.source
        trust = anchor.keeper.trust
        self._chain = trust.chain
        self._methods = Engine(trust.chain, trust.modules)

    @property
    def chain(self) -> Chain:
        """The chain of the trust."""
        return self._chain

    def refusal(self, method: str) -> Rejected:
        """The refusal of a method that has no proof."""
        what_to_do = UNPROVEN.get(method, "use the method of the client that verifies it")
        detail = f"{method} cannot be verified: {what_to_do}; or ask without trust"
        return Rejected(Reason.UNPROVEN, detail)

    def getinfo(self) -> Json:
        """The proven members, of the newest header that the node has, which must be fresh.

        Raises: Rejected, with STALE for a header that is too old.
        """
        before = self._height
        said = self._convert(self._ask("getinfo"), _Info, "getinfo")
        anchored = self._newest(said.height, before)
        found = _Info(
            genesis_hash=self._chain.genesis_hash.hex(),
            group=self._chain.group,
            suite=self._chain.suite.name,
            protocol_version=anchored.header.version,
            height=anchored.header.height,
            blocks=anchored.header.height,
            latest_block_hash=anchored.hash.hex(),
            latest_block_time=anchored.header.time,
            masters=len(self._anchor.successors(anchored).members),
        )
        return self._same("getinfo", msgspec.to_builtins(said), msgspec.to_builtins(found))

    def get_transaction(self, transaction_id: str) -> Json:
        """A transaction by its id or that of an operation, with what became of it."""
        answer = self._ask("get_transaction", id=transaction_id)
        found = self._found("get_transaction", answer, transaction_id)
        view = _plain(lambda: transaction_view(self._methods, found, self._chain.suite))
        return self._same("get_transaction", answer, view)

    def get_transaction_receipt(self, transaction_id: str) -> Json:
        """What became of it."""
        answer = self._ask("get_transaction_receipt", id=transaction_id)
        found = self._found("get_transaction_receipt", answer, transaction_id)
        view = {
            "id": transaction_id,
            **_plain(lambda: receipts_view(self._methods, found)),
        }
        return self._same("get_transaction_receipt", answer, view)

    def get_block(self, height: int | None, named: str | None) -> Json:
        """A block with the ids of its transactions; the newest must be fresh."""
        before = self._height
        answer = self._ask("get_block", height=height, hash=named)
        anchored = self._named(self._convert(answer, _Height, "get_block"), height, named, before)
        block = self._anchor.block(anchored.header.height)
        return self._same("get_block", answer, _plain(lambda: block_view(block)))

    def get_block_header(self, height: int | None, named: str | None) -> Json:
        """A header with a certificate of the set that ruled it; the newest must be fresh."""
        before = self._height
        answer = self._ask("get_block_header", height=height, hash=named)
        said = self._convert(answer, HeaderAnswer, "get_block_header")
        anchored = self._named(said, height, named, before)
        self._anchor.check_certificate(anchored, bytes.fromhex(said.certificate))
        view = {
            "height": anchored.header.height,
            "hash": anchored.hash.hex(),
            "header": to_json(anchored.header),
            "header_bytes": anchored.data.hex(),
            "certificate": said.certificate,
        }
        return self._same("get_block_header", answer, view)

    def get_proof(self, transaction_id: str) -> Proof:
        """The proof of an operation, every member of it verified, its headers in the history."""
        proof = self._source.proof(transaction_id)
        registration = proof.registration if isinstance(proof, AnchoredProof) else proof
        anchored = self._anchor.light_proof(registration)
        verdict = verify_light_proof(anchored, self._anchor.keeper.trust)
        first = self._anchor.rulers(self._anchor.header(1).header)
        verify_from(proof, first, self._chain)
        named = {verdict.operation.hex()}
        if verdict.operation == verdict.transaction or registration.operation == 0:
            named.add(verdict.transaction.hex())
        if transaction_id not in named:
            raise Rejected(Reason.BAD_PROOF, "the proof of another operation", id=transaction_id)
        return proof

    def send_transaction(self, wire: bytes, wait: str, timeout_ms: int) -> Json:
        """Send one; a height is believed only with the receipts under the next header."""
        own = parse_transaction(wire, self._chain).id
        encoded = base64.b64encode(wire).decode()
        answer = self._ask(
            "send_transaction", transaction=encoded, wait=wait, timeout_ms=timeout_ms
        )
        return self._sent(answer, own)

    def send_transactions(
        self, wires: Sequence[bytes], wait: str, timeout_ms: int
    ) -> list[dict[str, Any]]:
        """Send many; an `error` is the refusal of this node and proves nothing."""
        own = [parse_transaction(wire, self._chain).id for wire in wires]
        encoded = [base64.b64encode(wire).decode() for wire in wires]
        answer = self._ask(
            "send_transactions", transactions=encoded, wait=wait, timeout_ms=timeout_ms
        )
        items = self._convert(answer, _Many, "send_transactions").transactions
        if len(items) != len(own):
            raise Rejected(Reason.BAD_PROOF, "other transactions than were sent", count=len(items))
        return [
            item if "error" in item else self._sent(item, name)
            for item, name in zip(items, own, strict=True)
        ]

    def wait_height(self, height: int, timeout_ms: int) -> int:
        """The newest proven height, once the node says that it has come to this one."""
        said = self._source.wait_height(height, timeout_ms)
        self._anchor.follow()
        if said > self._height:
            raise Rejected(Reason.BAD_PROOF, "no header of the height it says", height=said)
        return self._height

    @property
    def _height(self) -> int:
        return self._anchor.keeper.trust.trusted.height

    def _ask(self, method: str, **params: object) -> Any:
        return self._source.caller.ask(method, **params)

    def _sent(self, answer: object, own: TransactionId) -> Json:
        said = self._convert(answer, _Sent, "send_transaction")
        if said.block_height is None:
            view: Json = {"id": own.hex(), "status": "pending"}
            return self._same("send_transaction", answer, view)
        found = self._anchor.transaction(own, said.block_height)
        statuses = tuple(Status(item.status).name for item in found.receipts)
        committed = Committed(found.block_height, statuses)
        view = msgspec.json.decode(msgspec.json.encode(sent_view(own.hex(), committed)))
        return self._same("send_transaction", answer, view)

    def _found(self, method: str, answer: object, any_id: str) -> FoundTransaction:
        height = self._convert(answer, Place, method).block_height
        return self._anchor.transaction(bytes.fromhex(any_id), height)

    def _named(
        self, said: "_Height | HeaderAnswer", height: int | None, named: str | None, before: int
    ) -> AnchoredHeader:
        """The header that was asked for, which is the newest where nothing was named."""
        if height is None and named is None:
            return self._newest(said.height, before)
        if height is not None and said.height != height:
            raise Rejected(Reason.BAD_PROOF, "a block of another height", height=said.height)
        anchored = self._anchor.header(said.height)
        if named is not None and anchored.hash.hex() != named:
            raise Rejected(Reason.BAD_PROOF, "a block of another hash", height=said.height)
        return anchored

    def _newest(self, height: int, before: int) -> AnchoredHeader:
        """A header that may pass for the newest: it is fresh, and not older than was known."""
        if height < before:
            detail = f"{self._source.name} is behind the trusted header"
            raise Rejected(Reason.STALE, detail, height=height, trusted=before)
        self._anchor.reach(max(height, 1))
        anchored = self._anchor.header(height)
        self._anchor.keeper.check_fresh(height, anchored.header.time)
        return anchored

    def _convert(self, answer: object, kind: type[T], method: str) -> T:
        return self._source.converted(answer, kind, method)

    def _same(self, method: str, said: object, found: Json) -> Json:
        """What is proven, if the node says the same. Raises: Rejected(BAD_PROOF)."""
        if said == found:
            return found
        given = cast("Json", said) if isinstance(said, dict) else {}
        names = sorted({*given, *found})
        wrong = [name for name in names if given.get(name, _NOTHING) != found.get(name, _NOTHING)]
        detail = f"{self._source.name} answered {method} otherwise than is proven"
        raise Rejected(Reason.BAD_PROOF, detail, members=", ".join(wrong)[:MEMBERS_SHOWN])


_NOTHING = object()


def _plain(view: Callable[[], Awaitable[Json]]) -> Json:
    """A view of rpc/views.py as plain JSON; it looks at an event loop, so it gets one."""

    async def made() -> Json:
        return await view()

    return msgspec.json.decode(msgspec.json.encode(trio.run(made)))
