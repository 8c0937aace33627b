"""Following a chain: from a trusted header to the newest that a node shows, with witnesses.

What it decides: which headers are asked for, and when what several nodes show is a fork. Trust
moves in legs, each ended by a header that every witness is asked for as well; whether headers may
be taken on is decided by `ledger/light/`. The new header must hold the old one in its history. What
it never does: keep a file, or call it a fork when a node is only slow or wrong.
Source: docs/decisions/0035-light-client.md; docs/light-client.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, unique
from typing import NoReturn

from ledger.errors import KanglianError, Reason, Rejected, UnavailableError
from ledger.light.documents import Trust
from ledger.light.fork import Fork, ForkEvidence, fork_evidence, verify_fork
from ledger.light.history import verify_old_header
from ledger.light.trust import (
    SKIP_BLOCKS,
    LightBlock,
    TrustedHeader,
    check_vouches,
    follow,
    skip,
)
from ledger.light.witness import Agreement, EarlierSplit, FaultyWitness, Split, compare
from ledger.succession import decided_header
from ledger.validators import ValidatorSet
from rpc.light.source import FAILURES, Source, height_of

WITNESS_WAIT_MS = 5_000
"""How long a witness may take to come to a height that another node has: several blocks."""


@unique
class Standing(StrEnum):
    """What came of asking a witness."""

    AGREES = "agrees"
    """It shows the same headers."""
    BEHIND = "behind"
    """It has not come to the height; it says nothing for or against."""
    FAULTY = "faulty"
    """What it shows does not verify."""
    UNREACHABLE = "unreachable"
    """It does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class WitnessReport:
    """A witness by its address, and why it does not agree."""

    witness: str
    standing: Standing
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is on the way to `target`."""

    height: int
    target: int
    headers: int


@dataclass(frozen=True, slots=True)
class Followed:
    """Where following came to. `headers` were verified, `changes` of them change the set."""

    trust: Trust
    headers: int
    changes: int
    witnesses: tuple[WitnessReport, ...]


_AGREES = WitnessReport("", Standing.AGREES)


class ForkFoundError(KanglianError):
    """Two headers of one height are decided: the chain, or a quorum of old keys, has split."""

    def __init__(self, found: Fork, split: Split, nodes: tuple[str, str]) -> None:
        self.found = found
        self.evidence: ForkEvidence = split.evidence
        self.validators: ValidatorSet = split.validators
        self.nodes = nodes
        guilty = f"{len(found.equivocators)} of them signed both in one round"
        super().__init__(
            f"the chain has forked at height {found.height}: {nodes[0]} and {nodes[1]} show two "
            f"headers that a quorum decided; {len(found.signed_both)} members signed both, {guilty}"
        )


class Follower:
    """One way from a trust to the newest header of a node. Belongs to one call."""

    def __init__(
        self,
        trust: Trust,
        primary: Source,
        witnesses: Sequence[Source],
        now_ms: Callable[[], int],
        *,
        sequential: bool = False,
    ) -> None:
        self._trust = trust
        self._primary = primary
        self._witnesses = {source.name: source for source in witnesses}
        self._reports: dict[str, WitnessReport] = {}
        self._now_ms = now_ms
        self._sequential = sequential
        self._headers = 0
        self._changes = 0

    def run(self, on_progress: Callable[[Progress], None] = lambda _: None) -> Followed:
        """Follow to the newest header that the primary shows.

        Raises: ForkFoundError; Rejected where the primary shows what does not verify, or is behind
            what is trusted already; UnavailableError where no witness agrees; RpcFailure.
        """
        start = self._trust.trusted
        target = self._primary.newest_height()
        if target < start.height:
            detail = f"{self._primary.name} is at {target}, behind the trusted header"
            raise Rejected(Reason.STALE, detail, height=start.height)
        check_vouches(start, self._trust.terms, self._now_ms())
        self._check_start(start)
        if target == start.height:
            self._stay(start)
        while self._trust.trusted.height < target:
            with self._primary.blamed():
                self._leg(target)
            on_progress(Progress(self._trust.trusted.height, target, self._headers))
        if 0 < start.height < target:
            self._check_descends(start)
        reports = tuple(self._reports.values())
        if reports and all(item.standing is not Standing.AGREES for item in reports):
            said = "; ".join(f"{it.witness} {it.standing} {it.detail}".rstrip() for it in reports)
            raise UnavailableError(f"no witness confirms what {self._primary.name} shows: {said}")
        return Followed(self._trust, self._headers, self._changes, reports)

    def _check_start(self, start: TrustedHeader) -> None:
        """Everybody shows the trusted header at its height, or has forked, or is wrong.

        Else a branch that splits below it would only look like headers that do not verify.
        Raises: ForkFoundError; Rejected where the primary shows no decided header there.
        """
        own = self._trust.block
        if own is None:
            return
        with self._primary.blamed():
            self._check_same(self._primary, self._primary.header(start.height), start, own)
        for name, source in self._witnesses.items():
            try:
                shown = self._reach(source, start.height)
                if shown is not None:
                    self._check_same(source, shown, start, own)
                    self._reports[name] = WitnessReport(name, Standing.AGREES)
            except FAILURES as error:
                self._reports[name] = _report(name, error)

    def _stay(self, start: TrustedHeader) -> None:
        """Nothing is newer than what is trusted."""
        own = self._trust.block
        if own is None:
            raise UnavailableError(f"{self._primary.name} has no block yet; try again soon")
        self._trust = self._trust.moved(replace(start, taken_ms=self._now_ms()), own)

    def _leg(self, target: int) -> None:
        """Up to a page of headers, shown by the primary and confirmed by the witnesses."""
        trust, now_ms = self._trust, self._now_ms()
        start = trust.trusted
        blocks = self._next_blocks(start, target)
        if self._sequential:
            reached = start
            for block in blocks:
                reached = follow(reached, block, trust.chain, trust.terms, now_ms)
        else:
            reached = skip(start, blocks, trust.chain, trust.terms, now_ms)
        turns = [item for item in blocks if item.next_validators]
        way = turns if turns and turns[-1] is blocks[-1] else [*turns, blocks[-1]]
        for name, source in self._witnesses.items():
            if self._reports.get(name, _AGREES).standing is Standing.AGREES:
                self._reports[name] = self._ask_witness(source, start, way, reached)
        self._headers += len(blocks)
        self._changes += len(turns)
        self._trust = trust.moved(reached, blocks[-1])

    def _next_blocks(self, start: TrustedHeader, target: int) -> list[LightBlock]:
        if self._sequential:
            return self._primary.headers(start.height + 1, target - start.height)
        page, has_more = self._primary.changes(start.height)
        blocks = [item for item in page if height_of(item) <= target]
        if has_more and len(blocks) == len(page):
            return blocks
        if not blocks or height_of(blocks[-1]) < target:
            blocks.append(self._primary.header(target))
        return blocks

    def _ask_witness(
        self,
        source: Source,
        start: TrustedHeader,
        ours: list[LightBlock],
        reached: TrustedHeader,
    ) -> WitnessReport:
        """What a witness shows for the same leg.

        Raises: ForkFoundError; Rejected where the primary cannot show its own way.
        """
        try:
            last = self._reach(source, reached.height)
            if last is None:
                return self._reports[source.name]
            if last.header == ours[-1].header:
                return WitnessReport(source.name, Standing.AGREES)
            theirs = [*self._changes_between(source, start.height, reached.height), last]
        except FAILURES as error:
            return _report(source.name, error)
        trust, now_ms = self._trust, self._now_ms()
        for _ in range(SKIP_BLOCKS):
            match compare(start, ours, theirs, trust.chain, trust.terms, now_ms):
                case Agreement():
                    return WitnessReport(source.name, Standing.AGREES)
                case FaultyWitness() as finding:
                    return _report(source.name, finding.refusal)
                case Split() as finding:
                    self._raise_fork(finding, source)
                case EarlierSplit(height):
                    ours = _with_height(ours, self._primary, height)
            try:
                theirs = _with_height(theirs, source, height)
            except FAILURES as error:
                return _report(source.name, error)
        raise Rejected(Reason.TOO_LARGE, "headers to compare", limit=SKIP_BLOCKS)

    def _reach(self, source: Source, height: int) -> LightBlock | None:
        """The header of a witness, once it is there; None, and a report, when it is not."""
        at = source.newest_height()
        if at < height:
            at = source.wait_height(height, WITNESS_WAIT_MS)
        if at < height:
            report = WitnessReport(source.name, Standing.BEHIND, f"at height {at}")
            self._reports[source.name] = report
            return None
        return source.header(height)

    def _changes_between(self, source: Source, above: int, end: int) -> list[LightBlock]:
        found: list[LightBlock] = []
        has_more = True
        while has_more and len(found) < SKIP_BLOCKS:
            page, has_more = source.changes(height_of(found[-1]) if found else above)
            found += [item for item in page if height_of(item) < end]
            has_more = has_more and height_of(page[-1]) < end
        return found

    def _check_same(
        self, source: Source, shown: LightBlock, start: TrustedHeader, own: LightBlock
    ) -> None:
        """Whether a node shows the trusted header at its height.

        Raises: ForkFoundError for another one that the same set decided, else Rejected.
        """
        if shown.header == own.header:
            return
        chain = self._trust.chain
        header, _ = decided_header(shown.header, shown.certificate, start.validators, chain)
        if header.height != start.height:
            raise Rejected(Reason.BAD_PROOF, "a header of another height", height=header.height)
        self._raise_fork(Split(fork_evidence(own, shown, chain), start.validators), source)

    def _check_descends(self, start: TrustedHeader) -> None:
        """The new header has the trusted one in its past.

        Raises: Rejected(BAD_PROOF).
        """
        trust = self._trust
        proof = self._primary.old_header(start.height, trust.trusted.height)
        if verify_old_header(proof, trust.trusted, trust.chain).hash != start.hash:
            detail = f"{self._primary.name} shows a history without the trusted header"
            raise Rejected(Reason.BAD_PROOF, detail, height=start.height)

    def _raise_fork(self, split: Split, source: Source) -> NoReturn:
        found = verify_fork(split.evidence, split.validators, self._trust.chain)
        other = source.name if source is not self._primary else "the trust kept here"
        raise ForkFoundError(found, split, (self._primary.name, other))


def _with_height(blocks: list[LightBlock], source: Source, height: int) -> list[LightBlock]:
    if any(height_of(item) == height for item in blocks):
        return blocks
    return sorted([*blocks, source.header(height)], key=height_of)


def _report(name: str, error: KanglianError) -> WitnessReport:
    standing = Standing.FAULTY if isinstance(error, Rejected) else Standing.UNREACHABLE
    return WitnessReport(name, standing, str(error))
