"""The payloads of node-to-node frames; `p2p` moves them without knowing what they mean.

Signed consensus messages, requests and answers, as positional records. The digests that are signed
are those of `ledger/votes.py`; nothing here is signed as a whole. A question carries a number, and
its one answer begins with the same number as eight raw bytes, so that an answer nobody asked for
is refused before anything of it is decoded. Source: docs/format.md section 12.
"""

from typing import Annotated

from msgspec import Meta

from consensus.messages import Proposal, Signed, Vote, VoteKind
from ledger import limits
from ledger.codec import Record, Schema
from ledger.errors import Reason, Rejected
from ledger.ids import (
    BlockHash,
    Bytes32,
    Count,
    Hash,
    Height,
    Round,
    SignatureBytes,
    ValidatorIndex,
)
from ledger.snapshot import Item
from ledger.transaction import Chain
from ledger.votes import VoteType, proposal_digest, vote_digest
from node.limits import SNAPSHOT_PART_BYTES, SYNC_BLOCKS

Index = Annotated[int, Meta(ge=0, lt=limits.VALIDATORS)]
ValidRound = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
BatchBytes = Annotated[bytes, Meta(max_length=limits.BATCH_BYTES)]
BlockBytes = Annotated[bytes, Meta(max_length=limits.BLOCK_RECORD_BYTES)]


class VoteMessage(Record, frozen=True):
    """A signed vote."""

    kind: Annotated[int, Meta(ge=1, le=2)]
    height: Count
    round: Count
    block_hash: Bytes32 | None
    valid_round: ValidRound
    sender: Index
    signature: SignatureBytes


class ProposalMessage(Record, frozen=True):
    """A signed proposal with the block it proposes."""

    height: Count
    round: Count
    block_hash: Bytes32
    valid_round: ValidRound
    sender: Index
    signature: SignatureBytes
    block: BlockBytes


class StatusMessage(Record, frozen=True):
    """Where a node's consensus stands: the height it works on, round and step."""

    height: Count
    round: Count
    step: Annotated[int, Meta(ge=0, le=255)]


class BatchRequest(Record, frozen=True):
    """Ask for one batch by digest. Answer: number and wire of the batch, no wire if not here."""

    number: Count
    digest: Bytes32


class BlockRequest(Record, frozen=True):
    """Ask for decided blocks from a height on. Answer: number and BlockResponse."""

    number: Count
    start: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    count: Annotated[int, Meta(ge=1, le=SYNC_BLOCKS)]


class SyncedBlock(Record, frozen=True):
    """A decided block and a certificate for it; its batches are asked for one by one."""

    block: BlockBytes
    certificate: Annotated[bytes, Meta(max_length=limits.CERTIFICATE_BYTES)]


class BlockResponse(Record, frozen=True):
    """Consecutive blocks from the requested height on.

    `tip` is the newest that the sender executed, `first` the lowest that it holds.
    """

    tip: Count
    blocks: Annotated[tuple[SyncedBlock, ...], Meta(max_length=SYNC_BLOCKS)]
    first: Count = 1


class SnapshotRequest(Record, frozen=True):
    """Ask for a part of an item of a snapshot, from a byte on; height 0 is the newest one.

    Answer: number and SnapshotPart.
    """

    number: Count
    height: Count
    item: Item
    offset: Count


class SnapshotPart(Record, frozen=True):
    """A part of an item and the size of the whole item; nothing of size 0 when it is not here."""

    height: Count
    size: Count
    data: Annotated[bytes, Meta(max_length=SNAPSHOT_PART_BYTES)]


class Resent(Record, frozen=True):
    """Consensus messages that the receiver may have missed."""

    proposals: Annotated[tuple[ProposalMessage, ...], Meta(max_length=64)]
    votes: Annotated[tuple[VoteMessage, ...], Meta(max_length=4_096)]


VOTE = Schema(VoteMessage, max_bytes=512)
PROPOSAL = Schema(ProposalMessage, max_bytes=limits.BLOCK_RECORD_BYTES + 512)
STATUS = Schema(StatusMessage, max_bytes=64)
BATCH_REQUEST = Schema(BatchRequest, max_bytes=64)
BLOCK_REQUEST = Schema(BlockRequest, max_bytes=64)
BLOCK_RESPONSE = Schema(BlockResponse, max_bytes=limits.MIB)
SNAPSHOT_REQUEST = Schema(SnapshotRequest, max_bytes=2 * limits.KIB)
SNAPSHOT_PART = Schema(SnapshotPart, max_bytes=SNAPSHOT_PART_BYTES + 64)
RESENT = Schema(Resent, max_bytes=1 * limits.MIB)


_NUMBER_BYTES = 8


def answer(number: int, body: bytes) -> bytes:
    """The payload of an answer."""
    return number.to_bytes(_NUMBER_BYTES, "big") + body


def split_answer(payload: bytes) -> tuple[int, bytes]:
    """Number and body of an answer. Raises: Rejected(MALFORMED) when it is too short."""
    if len(payload) < _NUMBER_BYTES:
        raise Rejected(Reason.MALFORMED, "an answer without a number", payload_bytes=len(payload))
    return int.from_bytes(payload[:_NUMBER_BYTES], "big"), payload[_NUMBER_BYTES:]


def digest_of(message: Proposal | Vote, chain: Chain) -> Hash:
    """The 32 bytes that the sender of a consensus message signs."""
    if isinstance(message, Vote):
        return vote_digest(
            chain,
            VoteType(message.kind),
            message.height,
            message.round,
            message.value,
            valid_round=message.valid_round,
        )
    return proposal_digest(chain, message.height, message.round, message.value, message.valid_round)


def vote_message(vote: Vote, signature: bytes) -> VoteMessage:
    """The record of a signed vote."""
    return VoteMessage(
        int(vote.kind),
        vote.height,
        vote.round,
        vote.value,
        vote.valid_round,
        vote.sender,
        signature,
    )


def signed_vote(record: VoteMessage) -> Signed:
    """The consensus message of a record."""
    value = None if record.block_hash is None else BlockHash(record.block_hash)
    vote = Vote(
        kind=VoteKind(record.kind),
        height=Height(record.height),
        round=Round(record.round),
        value=value,
        valid_round=record.valid_round,
        sender=ValidatorIndex(record.sender),
    )
    return Signed(vote, record.signature)


def proposal_message(proposal: Proposal, signature: bytes, block: bytes) -> ProposalMessage:
    """The record of a signed proposal and its block."""
    return ProposalMessage(
        proposal.height,
        proposal.round,
        proposal.value,
        proposal.valid_round,
        proposal.sender,
        signature,
        block,
    )


def signed_proposal(record: ProposalMessage) -> Signed:
    """The consensus message of a record."""
    proposal = Proposal(
        height=Height(record.height),
        round=Round(record.round),
        value=BlockHash(record.block_hash),
        valid_round=record.valid_round,
        sender=ValidatorIndex(record.sender),
    )
    return Signed(proposal, record.signature)
