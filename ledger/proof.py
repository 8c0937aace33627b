"""Proof of registration: shows offline that an operation was decided and that it succeeded.

What it decides: whether a proof leads from a transaction to two certified headers of the chain that
a genesis names. Inclusion in block h alone is not success: the OK receipt stands under header
h + 1, so both headers are needed. What it never does: ask a node or a clock.
No member of the document is taken on trust: each is recomputed into a certified hash, and what
follows from others (height, roots, ids, namespace) is not in the document at all.

    transaction -> its namespace in its batch -> batches root of header h <- certificate
    receipt -> receipts of its namespace -> receipts root of header h + 1 <- certificate

Source: docs/format.md section 11; architecture section 3.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ledger import limits
from ledger.batch import Batch
from ledger.block import (
    HEADER,
    NAMESPACE_BATCH_TAG,
    NAMESPACE_TAG,
    Header,
    NamespaceBatch,
    NamespaceShare,
    block_hash,
    namespace_batches,
    namespace_shares,
)
from ledger.codec import Document, Schema, encode
from ledger.data_index import (
    DATA_INDEX_CONTRACT,
    Hex32,
    Registration,
    Supersession,
    canonical_json,
    parse_canonical_json,
)
from ledger.errors import InvariantError, Reason, Rejected, invariant
from ledger.genesis import Genesis, chain_of, genesis_validators
from ledger.ids import (
    Address,
    BroadcastLevel,
    GenesisHash,
    Height,
    ModuleName,
    TimestampMs,
    TransactionId,
)
from ledger.merkle import head_from_path, sized_root
from ledger.proofs.positions import (
    JsonCount,
    Namespace,
    Position,
    ReceiptPlace,
    position_of_entry,
    position_of_leaf,
    receipt_trees_steps,
    receipts_root_above,
    root_above,
)
from ledger.receipts import RECEIPT, Status
from ledger.steps import finish
from ledger.succession import (
    PROOF_CHANGES,
    Hex,
    Succession,
    ValidatorChange,
    certified_header,
    follow_from,
)
from ledger.transaction import (
    Call,
    Chain,
    Transaction,
    operation_ids,
    parse_transaction,
    verify_signatures,
)
from ledger.validators import ValidatorSet

PROOF_FORMAT = "kanglian-proof/1"
ANCHORED_FORMAT = "kanglian-proof/2"
PROOF_BYTES = 4 * limits.MIB
"""Twice (hexadecimal) an envelope, two headers and certificates, a receipt, 20 KiB of paths; and
512 changes of fifteen validators with 5 KiB each."""

_REGISTRATION = Schema(Registration, max_bytes=limits.TRANSACTION_BYTES)
_SUPERSESSION = Schema(Supersession, max_bytes=limits.TRANSACTION_BYTES)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verified proof says. `anchor` is the genesis hash the trust comes from, in hex."""

    transaction: TransactionId
    operation: TransactionId
    account: Address
    module: ModuleName
    level: BroadcastLevel
    contract: str
    method: str
    height: Height
    time_ms: TimestampMs
    anchor: str
    registration: Registration | None


class RegistrationProof(Document, frozen=True):
    """The document; bytes are lower-case hexadecimal.

    `transaction` is the whole wire, so it holds every operation of an envelope; `operation` says
    which is meant (0 in a plain transaction). `namespace_transactions` is the count that the
    namespace's entry in header h holds beside its root. `next_header` is the header of h + 1.
    """

    format: Literal["kanglian-proof/1"]
    transaction: Hex
    operation: Annotated[int, Meta(ge=0, lt=limits.ENVELOPE_OPERATIONS)]
    transaction_position: Position
    batch: Hex32
    batch_position: Position
    namespace_transactions: JsonCount
    namespace_position: Position
    header: Hex
    certificate: Hex
    receipt: Hex
    receipt_position: Position
    receipts_position: Position
    next_header: Hex
    next_certificate: Hex

    @classmethod
    def build(
        cls,
        chain: Chain,
        batches: Sequence[Batch],
        transaction_id: TransactionId,
        operation: int,
        header: bytes,
        certificate: bytes,
        receipts: Mapping[Namespace, Sequence[bytes]],
        next_header: bytes,
        next_certificate: bytes,
    ) -> "RegistrationProof":
        """The proof of one operation of block h at once; see `build_steps`."""
        return finish(
            cls.build_steps(
                chain,
                batches,
                transaction_id,
                operation,
                header,
                certificate,
                receipts,
                next_header,
                next_certificate,
            )
        )

    @classmethod
    def build_steps(
        cls,
        chain: Chain,
        batches: Sequence[Batch],
        transaction_id: TransactionId,
        operation: int,
        header: bytes,
        certificate: bytes,
        receipts: Mapping[Namespace, Sequence[bytes]],
        next_header: bytes,
        next_certificate: bytes,
    ) -> Generator[None, None, "RegistrationProof"]:
        """The proof of one operation of block h, from what a node keeps of h and h + 1.

        `batches` stand in block order; `receipts` holds, for every namespace of the block, the
        receipts in execution order (batches, their transactions, their operations). The result is
        not verified: a proof of a failed operation is built as well, and says so when verified.
        Raises: Rejected(BAD_PROOF) for an operation the transaction does not have;
            InvariantError when the pieces do not belong together.  Cost: hashes of the block, in
            steps of about a millisecond.
        """
        found = _find(batches, transaction_id)
        ids = operation_ids(found.transaction, chain.suite)
        if not 0 <= operation < len(ids):
            raise Rejected(Reason.BAD_PROOF, "no such operation", operation=operation)
        shares = namespace_batches(batches)
        share_entries = [
            NAMESPACE_TAG + encode(share) for share in namespace_shares(shares, chain.suite)
        ]
        batch_entries = [NAMESPACE_BATCH_TAG + encode(item) for item in shares[found.namespace]]
        yield
        trees = yield from receipt_trees_steps(chain.suite.digest, receipts)
        place = trees.place(chain.suite.digest, found.namespace, found.first_receipt + operation)
        invariant(RECEIPT.decode(place.receipt).id == ids[operation], "receipts in another order")
        digest = chain.suite.digest
        return cls(
            format=PROOF_FORMAT,
            transaction=found.transaction.wire.hex(),
            operation=operation,
            transaction_position=position_of_leaf(digest, found.leaves, found.leaf_index),
            batch=found.batch.digest.hex(),
            batch_position=position_of_entry(digest, batch_entries, found.batch_index),
            namespace_transactions=sum(item.count for item in shares[found.namespace]),
            namespace_position=position_of_entry(
                digest, share_entries, list(shares).index(found.namespace)
            ),
            header=header.hex(),
            certificate=certificate.hex(),
            receipt=place.receipt.hex(),
            receipt_position=place.in_namespace,
            receipts_position=place.in_block,
            next_header=next_header.hex(),
            next_certificate=next_certificate.hex(),
        )

    def to_json(self) -> bytes:
        """The canonical JSON form, without a final newline."""
        return canonical_json(self)


class AnchoredProof(Document, frozen=True):
    """A proof of a height that other validators than those of genesis rule.

    `changes` lead from genesis to the validators of h + 1, none left out and none beyond.
    """

    format: Literal["kanglian-proof/2"]
    changes: Annotated[tuple[ValidatorChange, ...], Meta(min_length=1, max_length=PROOF_CHANGES)]
    registration: RegistrationProof

    def to_json(self) -> bytes:
        """The canonical JSON form, without a final newline."""
        return canonical_json(self)


Proof = RegistrationProof | AnchoredProof


def anchored(proof: RegistrationProof, changes: Sequence[ValidatorChange]) -> Proof:
    """The proof with the changes of validators up to height h + 1, where there are any."""
    if not changes:
        return proof
    return AnchoredProof(format=ANCHORED_FORMAT, changes=tuple(changes), registration=proof)


def parse_proof(data: bytes) -> Proof:
    """The proof of canonical JSON; one newline may follow it. Nothing is verified yet.

    Raises: Rejected(TOO_LARGE | BAD_PROOF).
    """
    # Members of the canonical form ascend by name, so the first one tells the two forms apart.
    kind = AnchoredProof if data.startswith(b'{"changes":') else RegistrationProof
    return parse_canonical_json(data, kind, max_bytes=PROOF_BYTES, reason=Reason.BAD_PROOF)


def verify_registration(document: Proof, genesis: Genesis) -> Verdict:
    """Check a proof against the chain that `genesis` names, from nothing else.

    Raises: Rejected with the reason of the first broken step; NOT_SUCCESSFUL, with the status, when
        everything holds but the operation failed.  Cost: one V per signature of the transaction and
        of every certificate.
    """
    return verify_from(document, genesis_validators(genesis), chain_of(genesis))


def verify_from(document: Proof, first: ValidatorSet, chain: Chain) -> Verdict:
    """The same from the validators of height 1, which the caller believes."""
    proof, changes = _parts(document)
    transaction = _transaction(proof, chain)
    headers = _certified_headers(proof, follow_from(changes, first, chain), chain)
    return _verdict(proof, transaction, headers, chain)


def verify_between(proof: RegistrationProof, chain: Chain) -> Verdict:
    """The same where the caller believes `next_header` by its hash: no certificate is looked at.

    Raises: Rejected.  Cost: one V per signature of the transaction.
    """
    headers = tuple(HEADER.decode(bytes.fromhex(it)) for it in (proof.header, proof.next_header))
    return _verdict(proof, _transaction(proof, chain), (headers[0], headers[1]), chain)


def _transaction(proof: RegistrationProof, chain: Chain) -> Transaction:
    transaction = parse_transaction(bytes.fromhex(proof.transaction), chain)
    verify_signatures(transaction, chain)
    if proof.operation >= len(transaction.operations):
        raise Rejected(Reason.BAD_PROOF, "no such operation", operation=proof.operation)
    return transaction


def _verdict(
    proof: RegistrationProof,
    transaction: Transaction,
    headers: tuple[Header, Header],
    chain: Chain,
) -> Verdict:
    operation = operation_ids(transaction, chain.suite)[proof.operation]
    call = transaction.operations[proof.operation]
    header, following = headers
    if following.previous_hash != block_hash(bytes.fromhex(proof.header), chain.suite):
        raise Rejected(Reason.BAD_PROOF, "the headers do not follow one another")
    if following.height != header.height + 1:
        raise Rejected(Reason.BAD_PROOF, "the heights do not follow one another")
    if _batches_root(proof, transaction, chain) != header.batches_root:
        raise Rejected(Reason.BAD_PROOF, "the transaction is not in the block")
    if _receipts_root(proof, transaction, chain) != following.receipts_root:
        raise Rejected(Reason.BAD_PROOF, "the receipt is not in the next block")
    _check_success(proof, operation)
    return Verdict(
        transaction=transaction.id,
        operation=operation,
        account=Address(transaction.body.account),
        module=ModuleName(transaction.body.module),
        level=BroadcastLevel(transaction.body.level),
        contract=call.contract,
        method=call.method,
        height=Height(header.height),
        time_ms=TimestampMs(header.time),
        anchor=GenesisHash(chain.genesis_hash).hex(),
        registration=_registration(call),
    )


def _parts(document: Proof) -> tuple[RegistrationProof, tuple[ValidatorChange, ...]]:
    if isinstance(document, AnchoredProof):
        return document.registration, document.changes
    return document, ()


def _certified_headers(
    proof: RegistrationProof, succession: Succession, chain: Chain
) -> tuple[Header, Header]:
    """Both headers, each by the set of its own height; the succession reaches no further."""
    height = HEADER.decode(bytes.fromhex(proof.header)).height
    succession.must_not_pass(height + 1)
    now, after = succession.at(height), succession.at(height + 1)
    header = certified_header(proof.header, proof.certificate, now, chain)
    return header, certified_header(proof.next_header, proof.next_certificate, after, chain)


def _batches_root(proof: RegistrationProof, transaction: Transaction, chain: Chain) -> bytes:
    digest = chain.suite.digest
    own = proof.transaction_position
    head = head_from_path(digest, transaction.leaf, own.index, own.count, own.hashes())
    batch = NamespaceBatch(
        batch=bytes.fromhex(proof.batch),
        count=own.count,
        root=sized_root(digest, own.count, head),
    )
    share = NamespaceShare(
        module=transaction.body.module,
        level=transaction.body.level,
        count=proof.namespace_transactions,
        root=root_above(digest, NAMESPACE_BATCH_TAG + encode(batch), proof.batch_position),
    )
    return root_above(digest, NAMESPACE_TAG + encode(share), proof.namespace_position)


def _receipts_root(proof: RegistrationProof, transaction: Transaction, chain: Chain) -> bytes:
    namespace = transaction.body.module, transaction.body.level
    receipt = bytes.fromhex(proof.receipt)
    place = ReceiptPlace(receipt, proof.receipt_position, proof.receipts_position)
    return receipts_root_above(chain.suite.digest, namespace, place)


def _check_success(proof: RegistrationProof, operation: TransactionId) -> None:
    receipt = RECEIPT.decode(bytes.fromhex(proof.receipt))
    if receipt.id != operation:
        raise Rejected(Reason.BAD_PROOF, "the receipt of another operation", id=receipt.id.hex())
    if receipt.status != Status.OK:
        raise Rejected(Reason.NOT_SUCCESSFUL, Status(receipt.status).name.lower())


def _registration(call: Call) -> Registration | None:
    if call.contract != DATA_INDEX_CONTRACT:
        return None
    match call.method:
        case "register":
            return _REGISTRATION.decode(call.arguments)
        case "supersede":
            return _SUPERSESSION.decode(call.arguments).registration
        case _:
            return None


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a transaction stands: its batch, its leaf there, its first receipt in the block."""

    transaction: Transaction
    batch: Batch
    namespace: Namespace
    batch_index: int
    leaves: tuple[bytes, ...]
    leaf_index: int
    first_receipt: int


def _find(batches: Sequence[Batch], transaction_id: TransactionId) -> _Found:
    # The first occurrence in execution order is the one that may have succeeded.
    for number, batch in enumerate(batches):
        for transaction in batch.transactions:
            if transaction.id == transaction_id:
                return _found(batches[:number], batch, transaction)
    raise InvariantError("the transaction is not in these batches")


def _found(earlier: Sequence[Batch], batch: Batch, transaction: Transaction) -> _Found:
    namespace = (transaction.body.module, transaction.body.level)
    before = [share for item in earlier if (share := _share(item, namespace))]
    own = _share(batch, namespace)
    leaf_index = next(index for index, item in enumerate(own) if item is transaction)
    preceding = [item for share in before for item in share] + own[:leaf_index]
    return _Found(
        transaction=transaction,
        batch=batch,
        namespace=namespace,
        batch_index=len(before),
        leaves=tuple(item.leaf for item in own),
        leaf_index=leaf_index,
        first_receipt=sum(len(item.operations) for item in preceding),
    )


def _share(batch: Batch, namespace: Namespace) -> list[Transaction]:
    return [item for item in batch.transactions if (item.body.module, item.body.level) == namespace]
