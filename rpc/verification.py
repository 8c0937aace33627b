"""Verifying files offline: a proof, and the opening and record that belong to it.

What it decides: whether everything that was given holds together under a genesis. It needs no node
and no clock; the rules are those of ledger/proof.py and ledger/data_index.py.
"""

from dataclasses import dataclass
from pathlib import Path

from genesis.networks import read_genesis
from genesis.private_files import read_public
from ledger.addresses import decode_text
from ledger.data_index import OPENING_BYTES, PartLabel, parse_opening, verify_opening
from ledger.errors import Reason, Rejected
from ledger.genesis import Genesis, chain_of
from ledger.ids import GenesisHash
from ledger.proof import PROOF_BYTES, Verdict
from ledger.proofs.family import AnchoredFact, verify_document
from rpc.fhir import FILE_BYTES


@dataclass(frozen=True, slots=True)
class Verification:
    """What holds. `organisation` is empty for an account that genesis does not name.

    `opened` names the verified parts of the opening; `record_checked` whether a record beside it
    was among them.
    """

    transaction: str
    operation: str
    account: str
    organisation: str
    module: str
    level: int
    contract: str
    method: str
    height: int
    time_ms: int
    anchor: str
    opened: tuple[str, ...]
    record_checked: bool


@dataclass(frozen=True, slots=True)
class Proven:
    """What a document of another kind proves, and the genesis hash, in hex, that it rests on."""

    fact: AnchoredFact
    anchor: str


def verify_files(
    proof_path: Path,
    genesis_path: Path,
    record_path: Path | None,
    opening_path: Path | None,
    not_before_ms: int = 0,
) -> Verification | Proven:
    """Check a proof file of any kind, and an opening with its record if given.

    Raises: Rejected with the reason of the first broken step, STALE for a header before
        `not_before_ms`; PrivateFileError for a file that cannot be read.
    """
    genesis = read_genesis(genesis_path)
    # One byte beyond the limit, so that the parser refuses what the reader would cut.
    data = read_public(proof_path, PROOF_BYTES + 1)
    verdict = verify_document(data, genesis, not_before_ms)
    if not isinstance(verdict, Verdict):
        if opening_path is not None:
            raise Rejected(Reason.BAD_OPENING, "only a registration has an opening")
        return Proven(verdict, GenesisHash(chain_of(genesis).genesis_hash).hex())
    record = None if record_path is None else read_public(record_path, FILE_BYTES)
    opened = () if opening_path is None else _opened(verdict, genesis, opening_path, record)
    account, organisation = _owner(genesis, verdict.account)
    return Verification(
        transaction=verdict.transaction.hex(),
        operation=verdict.operation.hex(),
        account=account,
        organisation=organisation,
        module=verdict.module,
        level=verdict.level,
        contract=verdict.contract,
        method=verdict.method,
        height=verdict.height,
        time_ms=verdict.time_ms,
        anchor=verdict.anchor,
        opened=opened,
        record_checked=record is not None and PartLabel.RECORD in opened,
    )


def _opened(
    verdict: Verdict, genesis: Genesis, path: Path, record: bytes | None
) -> tuple[str, ...]:
    opening = parse_opening(read_public(path, OPENING_BYTES + 1))
    if verdict.registration is None:
        raise Rejected(Reason.BAD_OPENING, "the operation registers no index")
    suite = chain_of(genesis).suite
    verify_opening(opening, verdict.registration, verdict.operation, verdict.account, suite, record)
    return tuple(part.label.value for part in opening.parts)


def _owner(genesis: Genesis, account: bytes) -> tuple[str, str]:
    """The account's text and its organisation's name, as far as genesis names them."""
    names = {organisation.id: organisation.name for organisation in genesis.organisations}
    for entry in genesis.accounts:
        if decode_text(entry.address)[1] == account:
            return entry.address, names[entry.organisation]
    return account.hex(), ""
