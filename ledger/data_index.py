"""The data index: commitments on chain, and the openings by which a holder shows single parts.

What it decides: how the parts of an index become commitments, and whether an opening matches them.
A 256-bit secret R, fresh for each index, salts every part; it enters as an argument, never leaves
the holder and stands in no opening, so one part can be shown without the others. What it never
does: make secrets, read files, judge what a part says.
Source: docs/format.md sections 9 and 10; requirements section 2; RFC 2104 (HMAC).
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum, unique
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from ledger import limits
from ledger.codec import Document, Record, encode
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected, invariant
from ledger.ids import Address, Bytes32, Count, Hash, Level, TransactionId

DATA_INDEX_CONTRACT = "data_index"
SALT_TAG = b"kl.salt\0"
COMMITMENT_TAG = b"kl.commitment\0"
OBJECT_TAG = b"kl.object\0"
RANDOM_TAG = b"kl.random\0"
OPENING_FORMAT = "kanglian-opening/1"
OPENING_BYTES = 1 * limits.MIB
"""Four descriptive parts and at most a small inline record; a large record lies beside it."""

DIGEST_BLOCK_BYTES = 64
"""The input block of SHA-256 and of SM3, which HMAC pads its key to."""

# `\Z` and not `$`: the latter also matches before a final newline.
HEX32_PATTERN = r"^[0-9a-f]{64}\Z"
Hex32 = Annotated[str, Meta(pattern=HEX32_PATTERN)]
D = TypeVar("D", bound=Document)

canonical_json = msgspec.json.Encoder(order="sorted").encode
"""The one JSON form of a Document: UTF-8, sorted members, no blanks, shortest escapes."""


@unique
class PartLabel(StrEnum):
    """The committed parts of an index."""

    HEAD = "head"
    """Who produced the index: operator and source system."""
    MIDDLE = "middle"
    """The operation: its type and details."""
    TAIL = "tail"
    """The object operated on."""
    REMARKS = "remarks"
    """Free remarks of the root record."""
    RECORD = "record"
    """The record's exact input bytes, which stay off chain."""


class Root(Record, frozen=True):
    """The readable part: operating status (OPT), broadcast level (BL), two commitments."""

    operating_status: Annotated[int, Meta(ge=0, le=255)]
    level: Level
    remarks: Bytes32
    random: Bytes32


class Registration(Record, frozen=True):
    """One index as it stands on chain: the arguments of `data_index.register`."""

    head: Bytes32
    middle: Bytes32
    tail: Bytes32
    record: Bytes32
    object: Bytes32
    root: Root


@unique
class SupersessionKind(IntEnum):
    """How an index stops being current."""

    UPDATE = 1
    DELETE = 2
    SUPERSEDE = 3


class Supersession(Record, frozen=True):
    """The arguments of `data_index.supersede`: the index, its position in the log, its successor.

    That only a delete has no successor is a rule of the contract, which names its refusals.
    """

    index: Bytes32
    sequence: Count
    kind: Annotated[int, Meta(ge=1, le=3)]
    registration: Registration | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The plain bytes behind the five commitments."""

    head: bytes
    middle: bytes
    tail: bytes
    remarks: bytes
    record: bytes

    def get(self, label: PartLabel) -> bytes:
        """The bytes of one part."""
        match label:
            case PartLabel.HEAD:
                return self.head
            case PartLabel.MIDDLE:
                return self.middle
            case PartLabel.TAIL:
                return self.tail
            case PartLabel.REMARKS:
                return self.remarks
            case PartLabel.RECORD:
                return self.record


def hmac(suite: CryptoSuite, key: bytes, message: bytes) -> bytes:
    """HMAC over the digest of the suite, 32 bytes.  Source: RFC 2104 section 2."""
    if len(key) > DIGEST_BLOCK_BYTES:
        key = suite.digest(key)
    padded = key.ljust(DIGEST_BLOCK_BYTES, b"\0")
    inner = suite.digest(bytes(byte ^ 0x36 for byte in padded) + message)
    return suite.digest(bytes(byte ^ 0x5C for byte in padded) + inner)


def salt(suite: CryptoSuite, secret: bytes, label: PartLabel) -> bytes:
    """The 32-byte salt of one part, from the index's 32-byte secret R."""
    invariant(len(secret) == 32, "the secret of an index has 32 bytes")
    return hmac(suite, secret, SALT_TAG + label.encode())


def commitment(
    suite: CryptoSuite, account: bytes, label: PartLabel, part_salt: bytes, part: bytes
) -> Hash:
    """The 32 bytes that stand on chain for a part; the account keeps it from being copied."""
    return suite.digest(COMMITMENT_TAG + encode((account, label.value, part_salt, part)))


def object_id(suite: CryptoSuite, organisation_secret: bytes, identifier: str) -> bytes:
    """The 32-byte pseudonym of an object within one organisation."""
    return hmac(suite, organisation_secret, OBJECT_TAG + identifier.encode())


def register_arguments(
    suite: CryptoSuite,
    account: Address,
    secret: bytes,
    parts: Parts,
    object_pseudonym: bytes,
    operating_status: int,
    level: int,
) -> Registration:
    """The argument record of `register` for these parts; `secret` is the fresh 32-byte R."""

    def commit(label: PartLabel) -> Hash:
        return commitment(suite, account, label, salt(suite, secret, label), parts.get(label))

    return Registration(
        head=commit(PartLabel.HEAD),
        middle=commit(PartLabel.MIDDLE),
        tail=commit(PartLabel.TAIL),
        record=commit(PartLabel.RECORD),
        object=object_pseudonym,
        root=Root(
            operating_status=operating_status,
            level=level,
            remarks=commit(PartLabel.REMARKS),
            random=suite.digest(RANDOM_TAG + secret),
        ),
    )


def parse_canonical_json(data: bytes, kind: type[D], *, max_bytes: int, reason: Reason) -> D:
    """The document whose canonical JSON is `data`; one newline may follow it.

    Raises: Rejected(TOO_LARGE | `reason`).
    """
    if len(data) > max_bytes:
        raise Rejected(
            Reason.TOO_LARGE, kind.__name__, payload_bytes=len(data), limit_bytes=max_bytes
        )
    text = data.removesuffix(b"\n")
    try:
        document = msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(reason, str(error)) from None
    # Repeated members, blanks, escapes and other numerals vanish in decoding; comparing finds them.
    if canonical_json(document) != text:
        raise Rejected(reason, "not the canonical JSON form")
    return document


class _PartDocument(Document, frozen=True):
    """One part as JSON; msgspec writes bytes as Base64 (RFC 4648 section 4, with padding)."""

    salt: Hex32
    content: bytes | None


class _OpeningDocument(Document, frozen=True):
    """An opening as JSON."""

    format: Literal["kanglian-opening/1"]
    index: Hex32
    account: Hex32
    parts: Annotated[dict[PartLabel, _PartDocument], Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class OpenedPart:
    """One part with its salt; `content` None means the record lies beside the opening."""

    label: PartLabel
    salt: bytes
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Opening:
    """What a holder hands to an auditor: some parts of one index, ascending by label."""

    index: TransactionId
    account: Address
    parts: tuple[OpenedPart, ...]

    def only(self, *labels: PartLabel) -> "Opening":
        """The opening of these parts alone.

        Raises: Rejected(BAD_OPENING) when it lacks one of them or none is asked for.
        """
        held = {part.label for part in self.parts}
        for label in labels:
            if label not in held:
                raise Rejected(Reason.BAD_OPENING, "the opening lacks this part", part=label)
        if not labels:
            raise Rejected(Reason.BAD_OPENING, "an opening has at least one part")
        kept = tuple(part for part in self.parts if part.label in labels)
        return Opening(self.index, self.account, kept)

    def to_json(self) -> bytes:
        """The canonical JSON form, without a final newline."""
        return canonical_json(
            _OpeningDocument(
                format=OPENING_FORMAT,
                index=self.index.hex(),
                account=self.account.hex(),
                parts={
                    part.label: _PartDocument(salt=part.salt.hex(), content=part.content)
                    for part in self.parts
                },
            )
        )


def open_parts(
    suite: CryptoSuite, index: TransactionId, account: Address, secret: bytes, parts: Parts
) -> Opening:
    """The opening of all parts; the record stays beside it. `only` narrows it for an auditor."""
    return Opening(
        index,
        account,
        tuple(
            OpenedPart(
                label,
                salt(suite, secret, label),
                None if label == PartLabel.RECORD else parts.get(label),
            )
            for label in sorted(PartLabel)
        ),
    )


def parse_opening(data: bytes) -> Opening:
    """The opening of canonical JSON; one newline may follow it.

    Raises: Rejected(TOO_LARGE | BAD_OPENING).
    """
    document = parse_canonical_json(
        data, _OpeningDocument, max_bytes=OPENING_BYTES, reason=Reason.BAD_OPENING
    )
    for label, part in document.parts.items():
        if part.content is None and label != PartLabel.RECORD:
            raise Rejected(Reason.BAD_OPENING, "only a record may lie beside", part=label)
    return Opening(
        TransactionId(bytes.fromhex(document.index)),
        Address(bytes.fromhex(document.account)),
        tuple(
            OpenedPart(label, bytes.fromhex(part.salt), part.content)
            for label, part in sorted(document.parts.items())
        ),
    )


def verify_opening(
    opening: Opening,
    registration: Registration,
    index: TransactionId,
    account: Address,
    suite: CryptoSuite,
    record: bytes | None,
) -> None:
    """Check every opened part, and the record beside it, against the commitments on chain.

    `index`, `account` and `registration` come from a verified proof. A record that no part of the
    opening speaks of is refused: it would look verified and is not.
    Raises: Rejected(BAD_OPENING) that names the part.  Cost: one hash over each part.
    """
    if opening.index != index:
        raise Rejected(Reason.BAD_OPENING, "another index", index=opening.index.hex())
    if opening.account != account:
        raise Rejected(Reason.BAD_OPENING, "another account", account=opening.account.hex())
    if not opening.parts:
        raise Rejected(Reason.BAD_OPENING, "an opening has at least one part")
    if record is not None and all(part.label != PartLabel.RECORD for part in opening.parts):
        raise Rejected(Reason.BAD_OPENING, "the opening lacks this part", part=PartLabel.RECORD)
    for part in opening.parts:
        content = _content(part, record)
        found = commitment(suite, account, part.label, part.salt, content)
        if found != _committed(registration, part.label):
            raise Rejected(
                Reason.BAD_OPENING, "does not match the commitment on chain", part=part.label
            )


def _content(part: OpenedPart, record: bytes | None) -> bytes:
    content = record if part.content is None else part.content
    if content is None:
        raise Rejected(Reason.BAD_OPENING, "the record is missing", part=part.label)
    if part.label == PartLabel.RECORD and record is not None and content != record:
        raise Rejected(Reason.BAD_OPENING, "two different records", part=part.label)
    return content


def _committed(registration: Registration, label: PartLabel) -> bytes:
    match label:
        case PartLabel.HEAD:
            return registration.head
        case PartLabel.MIDDLE:
            return registration.middle
        case PartLabel.TAIL:
            return registration.tail
        case PartLabel.REMARKS:
            return registration.root.remarks
        case PartLabel.RECORD:
            return registration.record
