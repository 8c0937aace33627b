"""One use of the light client from the command line: open the trust, follow, prove, verify.

What it decides: where trust begins, which documents it takes, and what it says was proven. Times
are milliseconds.
Source: docs/light-client.md.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec

from genesis.networks import read_genesis
from genesis.private_files import read_public, write_public
from ledger.block import HEADER
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.ids import TransactionId
from ledger.light.documents import (
    LIGHT_PROOF_FORMAT,
    TRUST_BYTES,
    WITNESSES,
    LightProof,
    Trust,
    Url,
    begin_trust,
    fork_json,
    is_light_proof,
    parse_light_proof,
    without_certificates,
)
from ledger.proof import PROOF_BYTES, AnchoredProof, RegistrationProof, Verdict, parse_proof
from ledger.receipts import Status
from rpc.client import Client
from rpc.failure import RpcFailure
from rpc.light.anchor import Anchor, AnchoredHeader, verify_light_proof, verify_newer_proof
from rpc.light.follow import Followed, ForkFoundError, Progress
from rpc.light.keeper import (
    DAY_MS,
    TRUST_DAYS,
    TrustKeeper,
    genesis_terms,
    parsed_trust,
    read_trust,
)
from rpc.light.source import HeaderAnswer, Source

HASH_DIGITS = 64
"""A hash in hexadecimal; a height has at most 18 digits."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the user says of a trust: where it begins, and what is to be changed of it."""

    state: Path
    genesis: Path | None = None
    trust: Path | None = None
    witnesses: tuple[str, ...] = ()
    trust_days: int | None = None


@dataclass(frozen=True, slots=True)
class ProvenHeader:
    """A header under the trusted one."""

    height: int
    hash: str
    time_ms: int
    trusted_height: int
    header: str


@dataclass(frozen=True, slots=True)
class ProvenOperation:
    """An operation that succeeded, under the trusted header."""

    transaction: str
    operation: str
    account: str
    module: str
    level: int
    contract: str
    method: str
    height: int
    time_ms: int
    trusted_height: int


@dataclass(frozen=True, slots=True)
class ProvenFailure:
    """A transaction that stands in a block and whose asked operations did not all succeed."""

    transaction: str
    height: int
    time_ms: int
    statuses: tuple[str, ...]
    trusted_height: int


Proven = ProvenHeader | ProvenOperation | ProvenFailure


def begun(wish: Beginning, now_ms: Callable[[], int]) -> TrustKeeper | None:
    """The trust of a file, or a new one; None where nothing says how it begins.

    Raises: PrivateFileError; Rejected(WRONG_CHAIN) for a trust of another chain than the genesis.
    """
    genesis = None if wish.genesis is None else read_genesis(wish.genesis)
    if wish.state.exists():
        trust = read_trust(wish.state)
    elif wish.trust is not None:
        trust = parsed_trust(wish.trust, read_public(wish.trust, TRUST_BYTES))
        trust = replace(trust, witnesses=())
    elif genesis is not None:
        days = TRUST_DAYS if wish.trust_days is None else wish.trust_days
        trust = begin_trust(genesis, genesis_terms(genesis, days), (), now_ms())
    else:
        return None
    keeper = TrustKeeper(_changed(trust, wish), now_ms, wish.state)
    if genesis is not None:
        keeper.check_genesis(genesis)
    return keeper


def _changed(trust: Trust, wish: Beginning) -> Trust:
    if len(wish.witnesses) > WITNESSES:
        raise Rejected(Reason.TOO_LARGE, "witnesses", count=len(wish.witnesses), limit=WITNESSES)
    for witness in wish.witnesses:
        try:
            msgspec.convert(witness, Url)
        except msgspec.ValidationError:
            detail = f"{witness!r} is no address of a witness; write it as http://HOST:PORT"
            raise Rejected(Reason.MALFORMED, detail) from None
    if wish.witnesses:
        trust = replace(trust, witnesses=tuple(dict.fromkeys(wish.witnesses)))
    if wish.trust_days is not None:
        terms = replace(trust.terms, trust_period_ms=wish.trust_days * DAY_MS)
        trust = replace(trust, terms=terms)
    return trust


def is_name(text: str) -> bool:
    """Whether a text is a height or a hash, the two things that can be asked for."""
    return re.fullmatch(r"[1-9][0-9]{0,17}|[0-9a-f]{64}", text) is not None


class Session:
    """One node and the witnesses of a trust; use it as a context."""

    def __init__(self, keeper: TrustKeeper, url: str) -> None:
        """Raises: UnavailableError for an address of another form."""
        self.keeper = keeper
        self._client = Client(url)
        # The node that is asked is no witness of itself.
        others = [witness for witness in keeper.trust.witnesses if witness != url]
        self._others = [Client(witness) for witness in others]
        self.source = Source(self._client)
        self.witnesses = [Source(other) for other in self._others]
        self.anchor = Anchor(self.source, self.witnesses, keeper)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in (self._client, *self._others):
            client.close()

    def sync(self, *, sequential: bool, on_progress: Callable[[Progress], None]) -> Followed:
        """Follow to the newest header. Raises: as `TrustKeeper.follow`."""
        return self.keeper.follow(
            self.source, self.witnesses, sequential=sequential, on_progress=on_progress
        )

    def get(self, name: str) -> tuple[Proven, LightProof | None]:
        """What a height, the hash of a header, or an id of a transaction or operation stands for.

        Raises: Rejected where it is not proven; RpcFailure(not_found) where the node has none.
        """
        if self.keeper.is_young():
            self.anchor.follow()  # else only what lies below the trusted header can be proven
        if len(name) < HASH_DIGITS:
            return self._proven_header(self.anchor.header(int(name))), None
        try:
            return self._operation(name)
        except RpcFailure as failure:
            if failure.kind == Reason.NOT_SUCCESSFUL:
                return self._failure(name), None
            if failure.kind != "not_found":
                raise
        return self._proven_header(self._named_header(name)), None

    def _operation(self, name: str) -> tuple[Proven, LightProof]:
        document = self.source.proof(name)
        proof = self.anchor.light_proof(registration_of(document))
        verdict = verify_light_proof(proof, self.keeper.trust)
        if name not in (verdict.operation.hex(), verdict.transaction.hex()):
            raise Rejected(Reason.BAD_PROOF, "the proof of another operation", id=name)
        return proven_operation(verdict, self.keeper.trust), proof

    def _failure(self, name: str) -> ProvenFailure:
        height = self.source.place("get_transaction_receipt", id=name)
        found = self.anchor.transaction(TransactionId(bytes.fromhex(name)), height)
        first = 0 if found.operation is None else found.operation
        asked = found.receipts[first:] if found.operation is None else (found.receipts[first],)
        return ProvenFailure(
            transaction=found.transaction.id.hex(),
            height=found.block_height,
            time_ms=found.block_time,
            statuses=tuple(Status(item.status).name for item in asked),
            trusted_height=self.keeper.trust.trusted.height,
        )

    def _named_header(self, name: str) -> AnchoredHeader:
        answer = self._client.ask("get_block_header", hash=name)
        said = self.source.converted(answer, HeaderAnswer, "get_block_header")
        anchored = self.anchor.header(said.height)
        if anchored.hash.hex() != name:
            raise Rejected(Reason.BAD_PROOF, "a block of another hash", height=said.height)
        return anchored

    def _proven_header(self, anchored: AnchoredHeader) -> ProvenHeader:
        return ProvenHeader(
            height=anchored.header.height,
            hash=anchored.hash.hex(),
            time_ms=anchored.header.time,
            trusted_height=self.keeper.trust.trusted.height,
            header=anchored.data.hex(),
        )


def proven_operation(verdict: Verdict, trust: Trust) -> ProvenOperation:
    """What a verdict under a trust says."""
    return ProvenOperation(
        transaction=verdict.transaction.hex(),
        operation=verdict.operation.hex(),
        account=verdict.account.hex(),
        module=verdict.module,
        level=verdict.level,
        contract=verdict.contract,
        method=verdict.method,
        height=verdict.height,
        time_ms=verdict.time_ms,
        trusted_height=trust.trusted.height,
    )


def registration_of(document: RegistrationProof | AnchoredProof) -> RegistrationProof:
    """The proof without the way of keys from genesis, which trust replaces."""
    return document.registration if isinstance(document, AnchoredProof) else document


def verify_file(
    path: Path, keeper: TrustKeeper, url: str | None
) -> tuple[ProvenOperation, LightProof | None]:
    """Check a proof file of any form under the trust; with `url` fetch the path that is missing.

    Without it: a re-anchored proof where the trust still stands where it leads to, and a proof of
    the trusted height or of later ones under the same validators.
    Raises: Rejected, PrivateFileError; UnavailableError where a path is missing.
    """
    data = read_public(path, PROOF_BYTES + 1)
    made = parse_light_proof(data) if is_light_proof(data) else None
    proof = registration_of(parse_proof(data)) if made is None else made.registration
    trust = keeper.trust
    height = HEADER.decode(bytes.fromhex(proof.next_header)).height
    if made is None and height == trust.trusted.height:
        made = LightProof(LIGHT_PROOF_FORMAT, without_certificates(proof), height, ())
    is_here = made is not None and made.trusted_height == trust.trusted.height
    if url is not None and not is_here:
        with Session(keeper, url) as session:
            made = session.anchor.light_proof(proof)
    elif made is None:
        if height > trust.trusted.height:
            verdict = verify_newer_proof(proof, trust, keeper.now_ms())
            return proven_operation(verdict, trust), None
        raise UnavailableError(
            f"the proof of height {height} carries no path to the trusted header "
            f"{trust.trusted.height}; name a node with --rpc, which need not be trusted"
        )
    verdict = verify_light_proof(made, keeper.trust)
    return proven_operation(verdict, keeper.trust), made


def write_proof(path: Path, proof: LightProof) -> None:
    """Write a re-anchored proof. Raises: PrivateFileError, also for a file that exists."""
    write_public(path, proof.to_json() + b"\n")


def write_fork(state: Path, fork: ForkFoundError, keeper: TrustKeeper) -> Path:
    """Write evidence beside the trust, under a name of its own; the file.

    Raises: PrivateFileError.
    """
    chain = keeper.trust.chain
    data = fork_json(fork.evidence, fork.validators, chain)
    mark = chain.suite.digest(data).hex()[:16]
    path = state.with_name(f"{state.name}.fork-{fork.found.height}-{mark}.json")
    if not path.exists():
        write_public(path, data)
    return path


def fork_view(fork: ForkFoundError, path: Path) -> dict[str, object]:
    """What a fork is, for programs."""
    return {
        "height": fork.found.height,
        "nodes": list(fork.nodes),
        "signed_both": [address.hex() for address in fork.found.signed_both],
        "equivocators": [address.hex() for address in fork.found.equivocators],
        "evidence": str(path),
    }


def followed_view(done: Followed, now_ms: int) -> dict[str, object]:
    """Where following came to, for programs."""
    trusted = done.trust.trusted
    return {
        "height": trusted.height,
        "hash": trusted.hash.hex(),
        "time": trusted.time_ms,
        "age_ms": now_ms - trusted.time_ms,
        "genesis_hash": done.trust.chain.genesis_hash.hex(),
        "validators": len(trusted.next_validators.members),
        "headers": done.headers,
        "changes": done.changes,
        "witnesses": [msgspec.to_builtins(item) for item in done.witnesses],
    }
