"""What a stopped node states of itself, so that damaged ones can be released from quarantine.

A statement holds the node's last certificate; the newest quorum of prevotes of the height after it,
with the block; and of every validator the message of the highest round that it saw there. All of
that is signed by others already; the node's own signature makes its organisation answer for having
left nothing out.
Source: architecture section 5; decision 0023.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from consensus.messages import VoteKind
from ledger.addresses import AddressKind, encode_text
from ledger.codec import Document, encode
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected
from ledger.ids import Hash
from ledger.store.blocks import BlockStore
from ledger.transaction import Chain
from ledger.validators import ValidatorSet
from node import wire
from node.identity import Identity
from node.limits import STATEMENT_BYTES
from node.log_entries import Entry, LoggedProposal, LoggedVote, Memory, Recovered

STATEMENT_TAG = b"kl.statement\0"
Hex = Annotated[str, Meta(pattern=r"^([0-9a-f]{2})*\Z")]


class Statement(Document, frozen=True):
    """The file; `height` is that of the certificate, 0 and "" before the first block.

    `is_damaged`: the node knows that its log does not hold all that it signed.
    `prevotes`: a quorum for one block in one round, with a `proposal` of it; or nothing at all.
    `latest`: signed messages at height + 1, at most one of a validator; proposals without blocks.
    """

    format: Literal["kanglian-statement/1"]
    genesis_hash: Hex
    group: int
    node: str
    made_ms: int
    is_damaged: bool
    height: Annotated[int, Meta(ge=0)]
    certificate: Hex
    proposal: Hex
    prevotes: Annotated[tuple[Hex, ...], Meta(max_length=128)]
    latest: Annotated[tuple[Hex, ...], Meta(max_length=128)]
    signature: Hex


def statement_digest(statement: Statement, suite: CryptoSuite) -> Hash:
    """The 32 bytes that the node signs: every field but the signature."""
    fields = msgspec.to_builtins(statement)
    del fields["signature"]
    return Hash(suite.digest(STATEMENT_TAG + encode(tuple(fields.values()))))


def make_statement(
    identity: Identity,
    chain: Chain,
    validators: ValidatorSet,
    blocks: BlockStore,
    log: tuple[Recovered, bool],
    now_ms: int,
) -> Statement:
    """The statement of a stopped node; `log` is what `read_log` gives."""
    height = blocks.height
    decided = blocks.decided(height)
    recovered, is_whole = log
    ended = recovered.ended
    is_intact = (
        is_whole
        and ended is not None
        and ended.memory is Memory.COMPLETE
        and ended.voting_from <= height + 1
    )
    seen = _Seen(height + 1)
    seen.take(recovered.entries)
    proposal, prevotes = seen.newest_quorum(validators.quorum)
    unsigned = Statement(
        format="kanglian-statement/1",
        genesis_hash=chain.genesis_hash.hex(),
        group=chain.group,
        node=encode_text(AddressKind.NODE, identity.address),
        made_ms=now_ms,
        is_damaged=not is_intact,
        height=height,
        certificate="" if decided is None else decided.certificate.hex(),
        proposal=proposal.hex(),
        prevotes=tuple(item.hex() for item in prevotes),
        latest=tuple(item.hex() for item in seen.latest()),
        signature="",
    )
    signature = identity.sign(statement_digest(unsigned, chain.suite))
    return msgspec.structs.replace(unsigned, signature=signature.hex())


def parse_statement(data: bytes) -> Statement:
    """The statement of a file; nothing in it is verified.

    Raises: Rejected(TOO_LARGE | BAD_STATEMENT).
    """
    if len(data) > STATEMENT_BYTES:
        raise Rejected(Reason.TOO_LARGE, "statement", payload_bytes=len(data))
    try:
        return msgspec.json.decode(data, type=Statement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(Reason.BAD_STATEMENT, str(error)) from None


class _Seen:
    """The messages of one height that a log holds."""

    def __init__(self, height: int) -> None:
        self._height = height
        self._prevotes: dict[tuple[int, bytes], dict[int, bytes]] = {}
        self._proposals: dict[bytes, bytes] = {}
        self._latest: dict[int, tuple[int, bytes]] = {}

    def take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            match entry:
                case LoggedVote(message):
                    self._take_vote(message)
                case LoggedProposal(message):
                    self._take_proposal(message)
                case _:
                    pass

    def _take_vote(self, message: bytes) -> None:
        vote = wire.VOTE.decode(message)
        if vote.height != self._height:
            return
        self._note(vote.sender, vote.round, message)
        if vote.kind == VoteKind.PREVOTE and vote.block_hash is not None:
            place = (vote.round, vote.block_hash)
            self._prevotes.setdefault(place, {}).setdefault(vote.sender, message)

    def _take_proposal(self, message: bytes) -> None:
        proposal = wire.PROPOSAL.decode(message)
        if proposal.height == self._height:
            self._proposals.setdefault(proposal.block_hash, message)
            bare = msgspec.structs.replace(proposal, block=b"")
            self._note(proposal.sender, proposal.round, encode(bare))

    def _note(self, sender: int, round_number: int, message: bytes) -> None:
        if round_number > self._latest.get(sender, (-1, b""))[0]:
            self._latest[sender] = (round_number, message)

    def newest_quorum(self, quorum: int) -> tuple[bytes, list[bytes]]:
        """A proposal of the block that a quorum prevoted last, and those prevotes."""
        for (_, value), votes in sorted(self._prevotes.items(), reverse=True):
            if len(votes) >= quorum and value in self._proposals:
                return self._proposals[value], [votes[sender] for sender in sorted(votes)]
        return b"", []

    def latest(self) -> list[bytes]:
        """The message of the highest round of each validator, ascending by validator."""
        return [self._latest[sender][1] for sender in sorted(self._latest)]
