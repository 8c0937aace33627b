"""The trust of a client while it runs: where it is kept, and how it moves.

What it decides: that trust only moves by following, and is written down whenever it has moved. The
file is replaced in one step, so that a crash leaves the old trust or the new one.
Source: docs/light-client.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from genesis.private_files import FileProblem, PrivateFileError, read_private, write_private
from ledger.errors import Reason, Rejected
from ledger.genesis import Genesis, genesis_hash
from ledger.light.documents import TRUST_BYTES, Trust, begin_trust, parse_trust, trust_json
from ledger.light.trust import Terms, check_fresh, check_vouches
from rpc.light.follow import Followed, Follower, Progress
from rpc.light.source import Source

AHEAD_MS = 10_000
"""How far a client's clock may go wrong: twenty times what nodes allow each other."""
TRUST_DAYS = 14
"""Where nobody says otherwise. Members who left guard their keys at least that long."""
DAY_MS = 86_400_000
LAG_SPARE_MS = 60_000
"""Beyond the heartbeat of the chain: a block, the way here, and clocks."""


def genesis_terms(genesis: Genesis, trust_days: int = TRUST_DAYS) -> Terms:
    """The terms for a chain: a header may be as old as its heartbeat allows and a minute more."""
    lag_ms = genesis.parameters.heartbeat_ms + LAG_SPARE_MS
    return Terms(trust_days * DAY_MS, lag_ms, AHEAD_MS)


def read_trust(path: Path) -> Trust:
    """The trust of a file of mode 0600.

    Raises: PrivateFileError, with DAMAGED for a file that is not what was written.
    """
    return parsed_trust(path, read_private(path, TRUST_BYTES))


def parsed_trust(path: Path, data: bytes) -> Trust:
    """The trust of the content of a file. Raises: PrivateFileError(DAMAGED) naming the file."""
    try:
        return parse_trust(data)
    except Rejected as refusal:
        detail = f"holds no sound trust: {refusal}"
        remedy = "set it aside, and sync again from genesis or from a trust of somebody you know"
        raise PrivateFileError(FileProblem.DAMAGED, path, detail, remedy) from None


class TrustKeeper:
    """One trust; use it from one thread. `path` None keeps it in memory alone."""

    def __init__(self, trust: Trust, now_ms: Callable[[], int], path: Path | None = None) -> None:
        self.trust = trust
        self.now_ms = now_ms
        self._path = path

    @classmethod
    def of_genesis(
        cls, genesis: Genesis, now_ms: Callable[[], int], witnesses: tuple[str, ...] = ()
    ) -> "TrustKeeper":
        """Trust that begins with a genesis, kept in memory."""
        trust = begin_trust(genesis, genesis_terms(genesis), witnesses, now_ms())
        return cls(trust, now_ms)

    @classmethod
    def of_file(cls, path: Path, now_ms: Callable[[], int]) -> "TrustKeeper":
        """The trust of a file, written back whenever it moves. Raises: PrivateFileError."""
        return cls(read_trust(path), now_ms, path)

    def follow(
        self,
        primary: Source,
        witnesses: Sequence[Source],
        *,
        sequential: bool = False,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> Followed:
        """Move to the newest header that a node shows, and write that down.

        Raises: as `Follower.run`; PrivateFileError.
        """
        self._check_young()
        follower = Follower(self.trust, primary, witnesses, self.now_ms, sequential=sequential)
        done = follower.run(on_progress)
        self.trust = done.trust
        self.save()
        return done

    def is_young(self) -> bool:
        """Whether the trusted header still vouches for newer ones."""
        age_ms = self.now_ms() - self.trust.trusted.time_ms
        return age_ms < self.trust.terms.trust_period_ms

    def _check_young(self) -> None:
        """Raises: Rejected(TRUST_EXPIRED | FROM_FUTURE), saying what to do."""
        try:
            check_vouches(self.trust.trusted, self.trust.terms, self.now_ms())
        except Rejected as refusal:
            what_to_do = "check the clock of this machine"
            if refusal.reason is Reason.TRUST_EXPIRED:
                what_to_do = "begin a new trust with that of somebody you know (--trust)"
            detail = f"{refusal.detail}; {what_to_do}"
            raise Rejected(refusal.reason, detail, **refusal.facts) from None

    def save(self) -> None:
        """Write the trust to its file, if it has one. Raises: PrivateFileError."""
        if self._path is not None:
            write_private(self._path, trust_json(self.trust), replace=True)

    def check_fresh(self, height: int, time_ms: int) -> None:
        """Whether a header is recent enough to pass for the newest.

        Raises: Rejected(STALE | FROM_FUTURE).
        """
        newest = replace(self.trust.trusted, height=height, time_ms=time_ms)
        check_fresh(newest, self.trust.terms, self.now_ms())

    def check_genesis(self, genesis: Genesis) -> None:
        """Raises: Rejected(WRONG_CHAIN) for a trust of another chain than a genesis names."""
        named = genesis_hash(genesis)
        if self.trust.chain.genesis_hash != named:
            own = self.trust.chain.genesis_hash.hex()
            detail = "the trust is of another chain than the genesis file names"
            raise Rejected(Reason.WRONG_CHAIN, detail, trust=own, genesis=named.hex())
