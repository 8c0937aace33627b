"""Transactions: what an account asks the chain to do, signed once.

What it decides: whether bytes are a well-formed transaction, its id, its leaf, and whether its
signatures are those its script demands. What it never does: look at state or at a clock.

A transaction is `[body, script, signatures, operations]`. The id is the hash of the signed body
alone, so a second signature form never makes a second id; the Merkle leaf is the hash of all bytes.
An *envelope* is one signature for an ordered list of operations of one namespace: the body commits
to their count and root, and the operations travel beside it.
Source: docs/format.md sections 3 and 4; architecture section 3.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from ledger import limits
from ledger.addresses import signatory
from ledger.codec import Record, Schema, encode
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected
from ledger.ids import (
    Bytes16,
    Bytes32,
    Count,
    GenesisHash,
    GroupId,
    Hash,
    Level,
    SignatureBytes,
    TransactionId,
    UncheckedName,
    are_names,
)
from ledger.merkle import LEAF, root_of_entries, root_steps

TRANSACTION_TAG = b"kl.transaction\0"
OPERATION_TAG = b"kl.operation\0"
OPERATION_ID_TAG = b"kl.operation-id\0"
LEAF_TAG = LEAF + b"kl.transaction-leaf\0"


class Call(Record, frozen=True, tag=0):
    """One operation: a method of a contract and its canonically encoded argument record."""

    contract: UncheckedName
    method: UncheckedName
    arguments: bytes


class EnvelopeSummary(Record, frozen=True, tag=1):
    """What the body of an envelope commits to instead of a call."""

    count: Annotated[int, Meta(ge=1, le=limits.ENVELOPE_OPERATIONS)]
    root: Bytes32
    atomic: bool


class TransactionBody(Record, frozen=True):
    """The signed part. Times are in milliseconds; `signer` nil means the account id itself."""

    version: Annotated[int, Meta(ge=0, le=255)]
    genesis_hash: Bytes32
    group: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    module: UncheckedName
    level: Level
    account: Bytes32
    signer: Bytes32 | None
    nonce: Bytes16
    valid_until: Count
    client_time: Count
    after: Bytes32 | None
    payload: Call | EnvelopeSummary


class SignedTransaction(Record, frozen=True):
    """The bytes on the wire: body bytes, redeem script, (key index, signature) pairs."""

    body: bytes
    script: bytes
    signatures: Annotated[
        tuple[tuple[Count, SignatureBytes], ...],
        Meta(min_length=1, max_length=limits.SCRIPT_KEYS),
    ]
    operations: Annotated[tuple[Call, ...], Meta(max_length=limits.ENVELOPE_OPERATIONS)] | None


_SIGNED = Schema(SignedTransaction, max_bytes=limits.ENVELOPE_BYTES)
_BODY = Schema(TransactionBody, max_bytes=limits.TRANSACTION_BYTES)


@dataclass(frozen=True, slots=True)
class Chain:
    """Which chain bytes belong to: everything signed names it."""

    genesis_hash: GenesisHash
    group: GroupId
    suite: CryptoSuite
    account_keys: frozenset[int]
    """Type bytes of the keys that accounts of this chain may use."""


class Transaction(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A well-formed transaction of this chain; its signatures may not be checked yet."""

    wire: bytes
    body: TransactionBody
    script: bytes
    signatures: tuple[tuple[int, bytes], ...]
    operations: tuple[Call, ...]
    id: TransactionId
    leaf: Hash
    is_envelope: bool
    """Whether one signature covers a list of operations."""

    @property
    def is_atomic(self) -> bool:
        """Whether the operations succeed or fail together."""
        payload = self.body.payload
        return isinstance(payload, EnvelopeSummary) and payload.atomic


def parse_transaction(wire: bytes, chain: Chain, *, defers_operations: bool = False) -> Transaction:
    """The transaction of canonical bytes; all rules that need no state, clock or curve.

    Who defers the operations of an envelope must run `operations_steps` before believing them.
    Raises: Rejected(TOO_LARGE | MALFORMED | NON_CANONICAL | UNSUPPORTED_VERSION | WRONG_CHAIN |
        BAD_ENVELOPE).  Cost: two hashes over the bytes, plus the operation tree of an envelope.
    """
    signed = _SIGNED.decode(wire)
    body = _BODY.decode(signed.body)
    digest = chain.suite.digest
    if body.version != limits.PROTOCOL_VERSION:
        raise Rejected(Reason.UNSUPPORTED_VERSION, version=body.version)
    if body.genesis_hash != chain.genesis_hash or body.group != chain.group:
        raise Rejected(Reason.WRONG_CHAIN, genesis_hash=body.genesis_hash.hex(), group=body.group)
    payload = body.payload
    if isinstance(payload, Call):
        if signed.operations is not None:
            raise Rejected(Reason.BAD_ENVELOPE, "operations beside a single call")
        if len(wire) > limits.TRANSACTION_BYTES:
            raise Rejected(Reason.TOO_LARGE, "transaction", payload_bytes=len(wire))
        operations = (payload,)
    else:
        operations = signed.operations or ()
        if len(operations) != payload.count:
            raise Rejected(Reason.BAD_ENVELOPE, "count", count=len(operations))
        if not defers_operations and operations_root(operations, chain.suite) != payload.root:
            raise Rejected(Reason.BAD_ENVELOPE, "root")
    module = body.module
    for call in operations:
        if not are_names(module, call.contract, call.method):
            raise Rejected(Reason.MALFORMED, "TransactionBody: not a name")
    return Transaction(
        wire=wire,
        body=body,
        script=signed.script,
        signatures=signed.signatures,
        operations=operations,
        id=TransactionId(digest(TRANSACTION_TAG + signed.body)),
        leaf=digest(LEAF_TAG + wire),
        is_envelope=signed.operations is not None,
    )


def operations_root(operations: tuple[Call, ...], suite: CryptoSuite) -> bytes:
    """The sized root that an envelope's body holds."""
    return root_of_entries(suite.digest, [OPERATION_TAG + encode(call) for call in operations])


def operations_steps(transaction: Transaction, chain: Chain) -> Generator[None]:
    """Check in steps of under a millisecond that operations are those the body commits to.

    Raises: Rejected(BAD_ENVELOPE).
    """
    payload = transaction.body.payload
    if isinstance(payload, EnvelopeSummary):
        entries = (OPERATION_TAG + encode(call) for call in transaction.operations)
        if (yield from root_steps(chain.suite.digest, entries)) != payload.root:
            raise Rejected(Reason.BAD_ENVELOPE, "root")


def operation_ids(transaction: Transaction, suite: CryptoSuite) -> tuple[TransactionId, ...]:
    """One id per operation: the transaction's own, or H(envelope id || index) in an envelope."""
    if not transaction.is_envelope:
        return (transaction.id,)
    prefix = OPERATION_ID_TAG + transaction.id
    return tuple(
        TransactionId(suite.digest(prefix + index.to_bytes(4, "big")))
        for index in range(len(transaction.operations))
    )


def first_operation_id(envelope_id: bytes, suite: CryptoSuite) -> TransactionId:
    """The id of the first operation of an envelope."""
    return TransactionId(suite.digest(OPERATION_ID_TAG + envelope_id + bytes(4)))


def verify_signatures(transaction: Transaction, chain: Chain) -> None:
    """Check that the script is the stated signer's and that exactly its threshold signed the id.

    Raises: Rejected(BAD_SCRIPT | BAD_SIGNATURE).  Cost: one V per signature.
    """
    signer = signatory(transaction.script, chain.suite)
    body = transaction.body
    if signer.address != (body.signer or body.account):
        raise Rejected(Reason.BAD_SCRIPT, "the script does not hash to the signer")
    if not signer.key_types <= chain.account_keys:
        raise Rejected(Reason.BAD_SCRIPT, "this chain does not accept that type of key")
    pairs = transaction.signatures
    if len(pairs) != signer.threshold:
        raise Rejected(Reason.BAD_SIGNATURE, "wrong number of signatures", count=len(pairs))
    verifiers, digest = signer.verifiers, transaction.id
    previous = -1
    for index, signature in pairs:
        if not previous < index < len(verifiers):
            raise Rejected(Reason.BAD_SIGNATURE, "key indexes must ascend within the script")
        if not verifiers[index](digest, signature):
            raise Rejected(Reason.BAD_SIGNATURE, key_index=index)
        previous = index
