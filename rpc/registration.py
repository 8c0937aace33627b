"""Registering health records: from FHIR files to acknowledged indexes on chain.

What it decides: what the parts of an index say, how resources become transactions, and when each is
registered: only a reply that names a height counts.
Two habits make it safe to interrupt. Openings are on disk before anything is sent, because they
hold the only copy of the salts. What was sent is confirmed by sending the same bytes again: the
node answers the first result, or admits what a crashed node forgot, and never registers twice.
Source: requirements section 2; architecture section 3 (data index); ledger/data_index.py.
"""

import json
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from ledger import limits
from ledger.addresses import AddressKind, encode_text, parse_script
from ledger.codec import encode
from ledger.data_index import (
    DATA_INDEX_CONTRACT,
    Parts,
    hmac,
    object_id,
    open_parts,
    register_arguments,
)
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.ids import TransactionId
from ledger.transaction import Call, operation_ids, parse_transaction
from rpc.client import Json, RpcFailure, Signer, Wait
from rpc.fhir import FILE_BYTES, Slice, split

ORGANISATION_SECRET_TAG = b"kl.organisation-secret\0"
REGISTRATION_METHOD = "register"
OPERATING_STATUS_NORMAL = 0

CALL_TRANSACTIONS = 100
"""Transactions of one call: 48 KB, 5 ms of signature checks for the node."""
CALL_BYTES = 512 * limits.KIB
"""Base64 makes it 683 KiB, below the 896 KiB body that a node takes."""
ENVELOPE_OPERATIONS = 500
"""About 170 KB, a third of the envelope limit; its proofs carry all of it."""
CALLS_IN_FLIGHT = 8
"""Calls sent and not yet confirmed: 800 transactions hide the time of several blocks."""
VALID_FOR_MS = limits.REPLAY_WINDOW_MS - 60_000
"""As long as a chain may stand still and go on; a minute is left for clocks that differ."""
CONFIRM_TIMEOUT_MS = 10_000
"""One wait for a block; then the same bytes are sent again."""
PATIENCE_MS = 120_000
"""Without any progress for so long the chain has stopped, and people must look."""
FIRST_PAUSE_MS = 100
LONGEST_PAUSE_MS = 5_000

_PASSING = (
    *("unavailable", "busy", "behind", "rate_limit"),
    *("pool_full", "sender_limit", "namespace_limit"),
)
"""Refusals that mean: later."""


class Sender(Protocol):
    """The part of the client that is needed here."""

    def send_transactions(
        self, wires: Sequence[bytes], wait: Wait, timeout_ms: int
    ) -> list[dict[str, Any]]:
        """Send transactions; one item each."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """Where indexes go. `envelope` 0 signs each alone; `out` None keeps no openings."""

    module: str = "emr"
    level: int = 0
    envelope: int = 0
    out: Path | None = None
    source: str = "kanglian register"


@dataclass(frozen=True, slots=True)
class Registered:
    """One resource on chain, by the id of its operation."""

    id: str
    block_height: int
    status: str
    resource_type: str
    identifier: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is; `height` is the newest that acknowledged something."""

    registered: int
    total: int
    height: int


@dataclass(frozen=True, slots=True)
class _Index:
    """One resource ready to be signed; the secret stays here."""

    resource: Slice
    parts: Parts
    call: Call
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A signed transaction, and (operation id, resource type, identifier) of what it registers."""

    wire: bytes
    id: str
    resources: tuple[tuple[str, str, str], ...]


def organisation_secret(signer: Signer) -> bytes:
    """The secret of the pseudonyms: HMAC(account secret, tag), so a lost file is never its loss."""
    return hmac(signer.chain.suite, signer.secret, ORGANISATION_SECRET_TAG)


def count_resources(files: Sequence[Path]) -> int:
    """How many resources the files hold; everything is checked before anything is sent.

    Raises: Rejected naming file, entry and offset; UnavailableError.
    """
    return sum(len(_split_file(path)) for path in files)


class Registrar:
    """Registers files through one connection, under one account."""

    def __init__(
        self,
        sender: Sender,
        signer: Signer,
        settings: Settings,
        now_ms: Callable[[], int],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises: Rejected(BAD_ENVELOPE) for an envelope size outside 0 to 500."""
        if not 0 <= settings.envelope <= ENVELOPE_OPERATIONS:
            detail = f"an envelope holds 1 to {ENVELOPE_OPERATIONS} operations, 0 means none"
            raise Rejected(Reason.BAD_ENVELOPE, detail, count=settings.envelope)
        self._sender = sender
        self._signer = signer
        self._settings = settings
        self._now_ms = now_ms
        self._sleep = sleep
        self._organisation_secret = organisation_secret(signer)
        kind = AddressKind(parse_script(signer.script).kind)
        self._operator = encode_text(kind, signer.account)
        self._pause_ms = FIRST_PAUSE_MS
        self._paused_ms = 0
        self._last_problem = ""

    def run(
        self, files: Sequence[Path], on_progress: Callable[[Progress], None]
    ) -> list[Registered]:
        """Register every resource of the files; the results stand in the order of the input.

        Raises: Rejected for an unsound file (before anything is sent), RpcFailure when the node
            refuses for good, UnavailableError when it does not answer or decide for two minutes.
        """
        total = count_resources(files)
        if self._settings.out is not None:
            self._settings.out.mkdir(mode=0o700, parents=True, exist_ok=True)
        done: list[Registered] = []
        in_flight: deque[list[_Prepared]] = deque()

        def settle() -> None:
            done.extend(self._confirm(in_flight.popleft()))
            on_progress(Progress(len(done), total, done[-1].block_height))

        try:
            for call in _calls(self._prepare(files)):
                self._deliver(call)
                in_flight.append(call)
                if len(in_flight) >= CALLS_IN_FLIGHT:
                    settle()
            while in_flight:
                settle()
        except UnavailableError as error:
            detail = f"{error}; {len(done)} of {total} were acknowledged before"
            raise UnavailableError(detail) from None
        return done

    def _prepare(self, files: Sequence[Path]) -> Iterator[_Prepared]:
        """Signed transactions, one for each resource or for each group of an envelope."""
        group: list[_Index] = []
        for path in files:
            for resource in _split_file(path):
                group.append(self._index(path, resource))
                if len(group) >= self._settings.envelope:
                    yield self._sign(group)
                    group = []
        if group:
            yield self._sign(group)

    def _index(self, path: Path, resource: Slice) -> _Index:
        signer, settings = self._signer, self._settings
        suite = signer.chain.suite
        name = resource.identifier or resource.full_url or sha256(resource.data).hexdigest()
        parts = Parts(
            head=_json(operator=self._operator, source=settings.source, file=path.name),
            middle=_json(operation="create", module=settings.module, level=settings.level),
            tail=_json(
                resource_type=resource.resource_type,
                identifier=resource.identifier,
                full_url=resource.full_url,
            ),
            remarks=b"",
            record=resource.data,
        )
        secret = secrets.token_bytes(32)
        arguments = register_arguments(
            suite,
            signer.account,
            secret,
            parts,
            object_id(suite, self._organisation_secret, f"{resource.resource_type}/{name}"),
            OPERATING_STATUS_NORMAL,
            settings.level,
        )
        call = Call(DATA_INDEX_CONTRACT, REGISTRATION_METHOD, encode(arguments))
        return _Index(resource, parts, call, secret)

    def _sign(self, group: Sequence[_Index]) -> _Prepared:
        """One signature over the group, and the openings on disk before anything is sent."""
        signer, settings, now_ms = self._signer, self._settings, self._now_ms()
        place = settings.module, settings.level
        calls = tuple(index.call for index in group)
        if settings.envelope:
            wire = signer.envelope(*place, calls, now_ms=now_ms, valid_for_ms=VALID_FOR_MS)
        else:
            wire = signer.sign(*place, calls[0], now_ms=now_ms, valid_for_ms=VALID_FOR_MS)
        transaction = parse_transaction(wire, signer.chain)
        ids = operation_ids(transaction, signer.chain.suite)
        for operation, index in zip(ids, group, strict=True):
            self._store(operation, index)
        resources = tuple(
            (operation.hex(), index.resource.resource_type, index.resource.identifier)
            for operation, index in zip(ids, group, strict=True)
        )
        return _Prepared(wire, transaction.id.hex(), resources)

    def _store(self, operation: TransactionId, index: _Index) -> None:
        out = self._settings.out
        if out is None:
            return
        signer = self._signer
        opening = open_parts(
            signer.chain.suite, operation, signer.account, index.secret, index.parts
        )
        _write_new(out / f"{operation.hex()}.record", index.parts.record)
        _write_new(out / f"{operation.hex()}.opening.json", opening.to_json() + b"\n")

    def _deliver(self, call: Sequence[_Prepared]) -> None:
        """Hand a call's transactions to the node; whatever is only full or away is asked again."""
        if self._settings.out is not None:
            os.sync()  # one for a hundred openings: as durable as one for each, at a tenth
        waiting = list(call)
        while waiting:
            items = self._ask(waiting, "none", 0)
            later = [one for one, item in zip(waiting, items, strict=True) if _is_later(item)]
            self._pause(progress=len(later) < len(waiting), finished=not later)
            waiting = later

    def _confirm(self, call: Sequence[_Prepared]) -> list[Registered]:
        """Send the same bytes again until every one has a height."""
        results: dict[str, Json] = {}
        waiting = list(call)
        while waiting:
            items = self._ask(waiting, "commit", CONFIRM_TIMEOUT_MS)
            for one, item in zip(waiting, items, strict=True):
                if not _is_later(item) and item.get("block_height") is not None:
                    results[one.id] = item
            later = [one for one in waiting if one.id not in results]
            # An answer without a height came after waiting for one; a refusal came at once.
            waited = any(item.get("error") is None for item in items)
            spent_ms = CONFIRM_TIMEOUT_MS if waited else 0
            self._pause(progress=len(later) < len(waiting), finished=not later, spent_ms=spent_ms)
            waiting = later
        return [registered for one in call for registered in _registered(one, results[one.id])]

    def _ask(self, waiting: Sequence[_Prepared], wait: Wait, timeout_ms: int) -> list[Json]:
        """One call; a node that is away answers `unavailable` for all.

        Raises: RpcFailure for the first refusal that will not pass: it will meet all others too.
        """
        wires = [one.wire for one in waiting]
        try:
            items = self._sender.send_transactions(wires, wait, timeout_ms)
        except UnavailableError as error:
            self._last_problem = str(error)
            return [{"error": {"kind": "unavailable", "message": str(error)}} for _ in wires]
        except RpcFailure as failure:
            if failure.kind not in _PASSING:
                raise
            self._last_problem = failure.message
            return [{"error": {"kind": failure.kind, "message": failure.message}} for _ in wires]
        for item in items:
            error = item.get("error")
            if error is not None and error["kind"] not in _PASSING:
                raise RpcFailure(str(error["kind"]), str(error["message"]), error)
        return items

    def _pause(self, *, progress: bool, finished: bool, spent_ms: int = 0) -> None:
        """Wait a little longer each time nothing moved; `spent_ms` was waited already.

        Raises: UnavailableError after PATIENCE_MS of pauses without progress.
        """
        if progress:
            self._paused_ms, self._pause_ms, self._last_problem = 0, FIRST_PAUSE_MS, ""
        if finished:
            return
        if self._paused_ms >= PATIENCE_MS:
            problem = self._last_problem or "the chain decides nothing"
            raise UnavailableError(f"no progress for two minutes: {problem}")
        self._sleep(self._pause_ms / 1000)
        self._paused_ms += self._pause_ms + spent_ms
        self._pause_ms = min(2 * self._pause_ms, LONGEST_PAUSE_MS)


def _split_file(path: Path) -> list[Slice]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise UnavailableError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return split(data)
    except Rejected as refusal:
        detail = f"{path}: {refusal.detail}"
        raise Rejected(refusal.reason, detail, **refusal.facts) from None


def _calls(prepared: Iterable[_Prepared]) -> Iterator[list[_Prepared]]:
    """Groups for one call each, bounded by count and by bytes."""
    group: list[_Prepared] = []
    group_bytes = 0
    for one in prepared:
        full = len(group) >= CALL_TRANSACTIONS or group_bytes + len(one.wire) > CALL_BYTES
        if group and full:
            yield group
            group, group_bytes = [], 0
        group.append(one)
        group_bytes += len(one.wire)
    if group:
        yield group


def _is_later(item: Json) -> bool:
    return item.get("error") is not None


def _registered(one: _Prepared, item: Json) -> list[Registered]:
    statuses = item.get("statuses") or [item["status"]] * len(one.resources)
    return [
        Registered(operation, int(item["block_height"]), str(status), resource_type, identifier)
        for (operation, resource_type, identifier), status in zip(
            one.resources, statuses, strict=True
        )
    ]


def _json(**members: str | int) -> bytes:
    """The bytes of a described part: sorted members, no blanks, UTF-8."""
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _write_new(path: Path, data: bytes) -> None:
    """A file for its owner alone; ids are fresh, so an existing one is somebody else's."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UnavailableError(f"{path}: cannot be written ({error.strerror})") from None
