"""A node as a light client asks it: every answer is parsed strictly and bounded, nothing believed.

What it decides: whether an answer has the form of what was asked. Whether it is true is decided
where it is verified. What a node answers in another form is a refusal that names the node.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Protocol, TypeVar, cast

import msgspec
from msgspec import Meta

from ledger import limits
from ledger.block import HEADER
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.genesis import Hex32
from ledger.ids import INT64_MAX
from ledger.light.documents import plain_validators
from ledger.light.history import OLD_HEADER, OldHeader
from ledger.light.trust import LIGHT_BLOCK, LightBlock
from ledger.proof import AnchoredProof, Proof, RegistrationProof
from ledger.succession import Hex, NamedValidator
from ledger.validators import ValidatorSet
from rpc.failure import RpcFailure
from rpc.light_methods import HEADERS

T = TypeVar("T")
PATIENCE_TRIES = 40
PATIENCE_PAUSE_MS = 250
"""Ten seconds in all: a block with transactions is followed by another at once."""

RECEIPTS_BYTES = 64 * limits.MIB
"""Receipts of one block that a client takes: 20,000 of 3 KiB; a longer row is refused by name."""

FAILURES = (Rejected, UnavailableError, RpcFailure)
"""How asking a node can fail without anybody of ours being wrong."""

Number = Annotated[int, Meta(ge=0, le=INT64_MAX)]


class Caller(Protocol):
    """The part of the client that is needed here."""

    @property
    def url(self) -> str:
        """The address of the node."""
        ...

    def ask(self, name: str, /, **params: object) -> Any:
        """The result of a method, as the node says it. Raises: RpcFailure, UnavailableError."""
        ...


class _Height(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    height: Number


class _Headers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    height: Number
    first: Number
    light_blocks: Annotated[tuple[Hex, ...], Meta(max_length=HEADERS)]


class _Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    height: Number
    after: Number
    light_blocks: Annotated[tuple[Hex, ...], Meta(max_length=HEADERS)]
    more: bool


class _Validators(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    height: Number
    validators: Annotated[tuple[NamedValidator, ...], Meta(max_length=limits.VALIDATORS)]


class _OldHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    height: Number
    old_header: Hex


class _Batches(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    height: Number
    first: Number
    count: Annotated[int, Meta(ge=0, le=limits.BLOCK_BATCHES)]
    batches: Annotated[tuple[bytes, ...], Meta(max_length=limits.BLOCK_BATCHES)]


class _Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    module: str
    level: Annotated[int, Meta(ge=0, le=255)]
    count: Annotated[int, Meta(ge=1, le=INT64_MAX)]


class _Receipts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    height: Number
    first: Number
    namespaces: tuple[_Share, ...]
    receipts: tuple[Hex, ...]


class Place(msgspec.Struct, frozen=True):
    """The one member of an answer that is needed to find the others."""

    block_height: Number


class HeaderAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer of `get_block_header`; `header` is compared as it stands."""

    height: Number
    hash: Hex32
    header: dict[str, Any]
    header_bytes: Hex
    certificate: Hex


@dataclass(frozen=True, slots=True)
class Source:
    """One node that is asked and not believed."""

    caller: Caller

    @property
    def name(self) -> str:
        """The address of the node."""
        return self.caller.url

    @contextmanager
    def blamed(self) -> Generator[None]:
        """A refusal inside is of what this node showed, and names it."""
        try:
            yield
        except Rejected as refusal:
            if self.name in refusal.detail:
                raise
            detail = f"{self.name}: {refusal.detail}"
            raise Rejected(refusal.reason, detail, **refusal.facts) from None

    def newest_height(self) -> int:
        """The height it says it has executed."""
        return self._ask(_Height, "wait_height", height=0).height

    def wait_height(self, height: int, timeout_ms: int) -> int:
        """The height it says it is at, when this one is reached or the time is over."""
        return self._ask(_Height, "wait_height", height=height, timeout_ms=timeout_ms).height

    def headers(self, first: int, count: int) -> list[LightBlock]:
        """Light blocks of heights from `first` on, one at least.

        Raises: Rejected(MALFORMED | BAD_PROOF) for anything else.
        """
        page = self._ask(_Headers, "get_headers", first=first, count=min(count, HEADERS))
        blocks = self._blocks(page.light_blocks)
        expected = range(first, first + len(blocks))
        if not 1 <= len(blocks) <= count or [height_of(item) for item in blocks] != list(expected):
            raise self._wrong("get_headers", "other heights than were asked for")
        return blocks

    def header(self, height: int) -> LightBlock:
        """The light block of a height."""
        return self.headers(height, 1)[0]

    def changes(self, after: int) -> tuple[list[LightBlock], bool]:
        """Light blocks above `after` that commit to other validators, and whether there are more.

        Raises: Rejected(MALFORMED | BAD_PROOF) for anything else.
        """
        page = self._ask(_Changes, "get_validator_changes", after=after)
        blocks = self._blocks(page.light_blocks)
        heights = [after, *map(height_of, blocks)]
        ascends = all(low < high for low, high in pairwise(heights))
        if not ascends or any(not item.next_validators for item in blocks):
            raise self._wrong("get_validator_changes", "changes must ascend and name who follows")
        if page.more and not blocks:
            raise self._wrong("get_validator_changes", "more without any")
        return blocks, page.more

    def validators(self, height: int) -> ValidatorSet:
        """The set that is said to rule a height."""
        named = self._ask(_Validators, "get_validators", height=height).validators
        return ValidatorSet(plain_validators(named))

    def old_header(self, height: int, under: int) -> OldHeader:
        """A header with its path in the history of a later one."""
        answer = self._ask(_OldHeader, "get_old_header", height=height, under=under)
        return OLD_HEADER.decode(bytes.fromhex(answer.old_header))

    def batches(self, height: int) -> list[bytes]:
        """The wires of all batches of a block.

        Raises: Rejected(MALFORMED | TOO_LARGE) also where pages do not come to an end.
        """
        wires: list[bytes] = []
        count, size = 1, 0
        while len(wires) < count:
            page = self._ask(_Batches, "get_batches", height=height, first=len(wires))
            count = page.count
            wires += page.batches
            size += sum(map(len, page.batches))
            if size > limits.BLOCK_BYTES:
                raise Rejected(Reason.TOO_LARGE, f"{self.name}: batches of a block", size=size)
            if len(wires) > count or (count and not page.batches):
                raise self._wrong("get_batches", "other batches than it counts")
        return wires

    def receipts(self, height: int) -> dict[tuple[str, int], tuple[bytes, ...]]:
        """The receipts of a block by namespace, in the order that is told.

        Raises: Rejected(MALFORMED | TOO_LARGE) also where pages do not come to an end.
        """
        found: list[bytes] = []
        size = 0
        while True:
            page = self._ask(_Receipts, "get_receipts", height=height, first=len(found))
            total = sum(item.count for item in page.namespaces)
            found += map(bytes.fromhex, page.receipts)
            size += sum(map(len, page.receipts)) // 2
            if size > RECEIPTS_BYTES:
                raise Rejected(Reason.TOO_LARGE, f"{self.name}: receipts of a block", size=size)
            if len(found) > total or (len(found) < total and not page.receipts):
                raise self._wrong("get_receipts", "other receipts than it counts")
            if len(found) == total:
                return _by_namespace(page.namespaces, found)

    def place(self, method: str, **params: object) -> int:
        """The height at which something is said to stand, out of an answer with more members."""
        return self._ask(Place, method, **params).block_height

    def proof(self, any_id: str) -> Proof:
        """The proof of an operation; waits a moment for the header that carries its receipt."""
        answer: object = patiently(lambda: self.caller.ask("get_proof", id=any_id))
        is_anchored = isinstance(answer, dict) and "changes" in answer
        kind = AnchoredProof if is_anchored else RegistrationProof
        return self.converted(cast("object", answer), kind, "get_proof")

    def _ask(self, kind: type[T], name: str, **params: object) -> T:
        return self.converted(self.caller.ask(name, **params), kind, name)

    def converted(self, answer: object, kind: type[T], name: str) -> T:
        """An answer to `name` in a strict form. Raises: Rejected(MALFORMED)."""
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as error:
            raise self._wrong(name, str(error)) from None

    def _blocks(self, found: Sequence[str]) -> list[LightBlock]:
        return [LIGHT_BLOCK.decode(bytes.fromhex(item)) for item in found]

    def _wrong(self, method: str, detail: str) -> Rejected:
        return Rejected(
            Reason.MALFORMED, f"{self.name} answered {method} in another form: {detail}"
        )


def height_of(block: LightBlock) -> int:
    """The height that a light block claims. Raises: Rejected."""
    return HEADER.decode(block.header).height


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` answers, once it no longer says `unavailable`, within ten seconds."""
    for _ in range(PATIENCE_TRIES):
        try:
            return ask()
        except RpcFailure as failure:
            if failure.kind != "unavailable":
                raise
        time.sleep(PATIENCE_PAUSE_MS / 1000)
    return ask()


def _by_namespace(
    namespaces: Sequence[_Share], receipts: Sequence[bytes]
) -> dict[tuple[str, int], tuple[bytes, ...]]:
    found: dict[tuple[str, int], tuple[bytes, ...]] = {}
    first = 0
    for item in namespaces:
        found[item.module, item.level] = tuple(receipts[first : first + item.count])
        first += item.count
    return found
