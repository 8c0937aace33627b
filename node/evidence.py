"""Evidence of equivocation on its way to the chain: kept on disk until it stands there.

What it decides: when this node reports. One report is enough for the chain, so validators take
turns: who is later in line finds it recorded and says nothing. A file of each piece outlives
crashes and the log's heights; it goes once the chain has it, or will not take it any more.
Source: architecture section 5; docs/decisions/0025-evidence.md.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from consensus.messages import Evidence, Proposal, Signed
from contracts.evidence import EVIDENCE_CONTRACT, REPORT, OffenceQuery, Report
from contracts.interface import SYSTEM_MODULE
from genesis.private_files import read_private, write_private
from ledger.codec import Schema, encode
from ledger.errors import Rejected, invariant
from ledger.evidence import PROPOSAL, Statement
from ledger.ids import TransactionId
from ledger.limits import EVIDENCE_BYTES, EVIDENCE_HEIGHTS, PROTOCOL_VERSION
from ledger.transaction import TRANSACTION_TAG, Call, SignedTransaction, TransactionBody
from node.chain_writer import ChainWriter
from node.clock import Clock
from node.identity import Identity

HELD_REPORTS = 256
"""Pieces waiting at once: one traitor makes about three a height while nothing gets through."""
TURN_MS = 1_000
"""A block with somebody else's report is decided well within a second."""
VALID_FOR_MS = 60_000
"""A report that no block took by then is signed anew."""

Admit = Callable[[Sequence[bytes]], Awaitable[list[TransactionId | Exception]]]

_REPORT = Schema(Report, max_bytes=EVIDENCE_BYTES)
_log = structlog.get_logger("evidence")


@dataclass(slots=True)
class _Held:
    report: Report
    path: Path
    due_ms: int | None = None
    """When it is this node's turn; known once the block of its height is executed."""


class EvidenceKeeper:
    """Holds what convicts validators until the chain knows it."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        writer: ChainWriter,
        clock: Clock,
        is_recorded: Callable[[OffenceQuery], bool],
    ) -> None:
        """Read what an earlier run left.

        Raises: PrivateFileError.
        """
        self._folder = folder
        self._identity = identity
        self._writer = writer
        self._clock = clock
        self._is_recorded = is_recorded
        self._held: dict[tuple[int, int, int, int], _Held] = {}
        self._news = trio.Event()
        for path in sorted(folder.glob("*.evidence")):
            try:
                report = _REPORT.decode(read_private(path, EVIDENCE_BYTES))
            except Rejected as refusal:
                _log.warning("evidence_damaged", file=str(path), reason=str(refusal))
                continue
            self._hold(report, path)

    def keep(self, evidence: Evidence) -> None:
        """Take what the core found; durable on return. Known pieces change nothing."""
        report = Report(_statement(evidence.first), _statement(evidence.second))
        slot = report.first.slot
        takes_evidence = self._writer.executor.engine.method(
            SYSTEM_MODULE, EVIDENCE_CONTRACT, REPORT
        )
        if takes_evidence is None or slot in self._held:
            return
        if len(self._held) >= HELD_REPORTS:
            _log.warning("evidence_not_kept", height=slot[0], validator=slot[3])
            return
        path = self._folder / ("-".join(str(part) for part in slot) + ".evidence")
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, encode(report))
        self._hold(report, path)

    def _hold(self, report: Report, path: Path) -> None:
        self._held[report.first.slot] = _Held(report, path)
        self._news.set()

    def _turn(self, height: int) -> int:
        """How many others report a piece of this height before this node; the proposers' order."""
        validators = self._writer.validators
        me = validators.index_of(self._identity.address)
        return 0 if me is None else (me - height) % len(validators.members)

    async def run(self, admit: Admit, is_author: Callable[[], bool]) -> None:
        """Report what is due, forget what is settled; sleeps while there is nothing."""
        while True:
            await self._news.wait()
            while self._held:
                self._forget_settled()
                if is_author():
                    await self._report_due(admit)
                await trio.sleep(TURN_MS / 1_000)
            self._news = trio.Event()

    def _forget_settled(self) -> None:
        for slot, held in list(self._held.items()):
            if self._is_settled(held.report.first):
                held.path.unlink(missing_ok=True)
                del self._held[slot]

    def _is_settled(self, statement: Statement) -> bool:
        if statement.height < self._writer.tip.height - EVIDENCE_HEIGHTS:
            return True
        if statement.height > self._writer.tip.height + 1:
            return False
        members = self._writer.validators_at(statement.height).members
        if statement.sender >= len(members):
            return True
        offender = members[statement.sender].address
        query = OffenceQuery(offender, statement.height, statement.round, statement.kind)
        return self._is_recorded(query)

    async def _report_due(self, admit: Admit) -> None:
        now_ms = self._clock.now_ms()
        for held in list(self._held.values()):
            height = held.report.first.height
            if height > self._writer.tip.height:
                continue
            if held.due_ms is None:
                held.due_ms = now_ms + TURN_MS * self._turn(height)
            if held.due_ms > now_ms:
                continue
            held.due_ms = now_ms + VALID_FOR_MS
            (answer,) = await admit([self._transaction(held.report, now_ms)])
            if isinstance(answer, Exception):
                _log.warning("evidence_refused", reason=str(answer))
                held.due_ms = now_ms + TURN_MS

    def _transaction(self, report: Report, now_ms: int) -> bytes:
        """The report under this node's own key."""
        chain = self._writer.chain
        now_ms = max(now_ms, self._writer.tip.time)
        body = encode(
            TransactionBody(
                version=PROTOCOL_VERSION,
                genesis_hash=chain.genesis_hash,
                group=chain.group,
                module=SYSTEM_MODULE,
                level=0,
                account=self._identity.address,
                signer=None,
                nonce=secrets.token_bytes(16),
                valid_until=now_ms + VALID_FOR_MS,
                client_time=now_ms,
                after=None,
                payload=Call(EVIDENCE_CONTRACT, REPORT, encode(report)),
            )
        )
        signature = self._identity.sign(chain.suite.digest(TRANSACTION_TAG + body))
        return encode(SignedTransaction(body, self._identity.script, ((0, signature),), None))


def _statement(signed: Signed) -> Statement:
    message = signed.message
    kind = PROPOSAL if isinstance(message, Proposal) else int(message.kind)
    invariant(len(signed.signature) == 64, "a verified message has a signature of 64 bytes")
    return Statement(
        kind,
        message.height,
        message.round,
        message.value,
        message.valid_round,
        message.sender,
        signed.signature,
    )
