"""What the driver writes into the log and how it comes back after a crash.

Inputs of the core as log entries, our own messages with their signatures, and the replay: the same
inputs through the same core, with nothing sent until the log ends.
"""

from collections.abc import Iterable, Iterator, Sequence

from consensus.core import Core
from consensus.events import (
    Accuse,
    BlockBuilt,
    BlockChecked,
    Effect,
    Input,
    MessageReceived,
    TimerFired,
    TimerId,
    TimerKind,
    Verdict,
    WorkAvailable,
)
from consensus.messages import Signed, Vote
from ledger.batch import parse_batch
from ledger.codec import encode
from ledger.errors import Rejected, invariant
from ledger.ids import Address, BlockHash, Height, Round, ValidatorIndex
from ledger.membership import EFFECTIVE_AFTER
from ledger.store.port import Place
from ledger.transaction import Chain
from node import wire
from node.batches import BatchPool
from node.candidates import Candidates
from node.chain_writer import ChainWriter
from node.log_entries import (
    EndedHeight,
    Entry,
    LoggedBatch,
    LoggedBuilt,
    LoggedChecked,
    LoggedProposal,
    LoggedRelease,
    LoggedTimer,
    LoggedVote,
    LoggedWork,
    LogMended,
    Recovered,
)
from node.wal import WriteAheadLog
from p2p.frames import FrameKind


def record(log: WriteAheadLog, event: Input, candidates: Candidates) -> None:
    """Append an input to the log, with the bodies that it makes this node answer for."""
    match event:
        case MessageReceived(signed):
            kind, payload = encode_signed(signed, candidates)
            if kind is FrameKind.VOTE:
                log.append(LoggedVote(payload, own=False))
            else:
                log.append(LoggedProposal(payload, own=False))
        case TimerFired(timer) if timer.kind is not TimerKind.STATUS:
            log.append(LoggedTimer(timer.height, timer.round, int(timer.kind)))
        case WorkAvailable(height):
            log.append(LoggedWork(height))
        case BlockBuilt(height, round_number, value):
            _record_batches(log, value, candidates)
            body = candidates.wire(value)
            invariant(body is not None, "a built block is remembered")
            log.append(LoggedBuilt(height, round_number, value, body or b""))
        case BlockChecked(height, round_number, value, verdict):
            # A vote says "I hold all of it", so the bodies are durable before the vote is.
            if verdict is not Verdict.INVALID:
                _record_batches(log, value, candidates)
            log.append(LoggedChecked(height, round_number, value, int(verdict)))
        case _:
            return


def _record_batches(log: WriteAheadLog, value: BlockHash, candidates: Candidates) -> None:
    for digest, place in candidates.unlogged(value):
        log.append(LoggedBatch(digest, place, own_sequence=-1))


def encode_signed(signed: Signed, candidates: Candidates) -> tuple[FrameKind, bytes]:
    """The frame of a signed consensus message."""
    message = signed.message
    if isinstance(message, Vote):
        return FrameKind.VOTE, encode(wire.vote_message(message, signed.signature))
    body = candidates.wire(message.value)
    invariant(body is not None, "a proposal's block is remembered")
    return FrameKind.PROPOSAL, encode(wire.proposal_message(message, signed.signature, body or b""))


def own_entry(kind: FrameKind, payload: bytes) -> Entry:
    """The log entry of a message of our own."""
    if kind is FrameKind.VOTE:
        return LoggedVote(payload, own=True)
    return LoggedProposal(payload, own=True)


def own_messages(entries: Iterable[Entry]) -> Iterator[Signed]:
    """What this node signed, in order, as a log remembers it."""
    for entry in entries:
        if isinstance(entry, LoggedVote) and entry.own:
            yield wire.signed_vote(wire.VOTE.decode(entry.message))
        elif isinstance(entry, LoggedProposal) and entry.own:
            yield wire.signed_proposal(wire.PROPOSAL.decode(entry.message))


def forget_forged(recovered: Recovered, writer: ChainWriter, address: Address) -> None:
    """Drop the own messages of a mended log that this node's key did not sign.

    Bytes that a peer made up lie in the log as well, within records; damage can uncover them.
    """
    recovered.entries[:] = [
        entry
        for entry in recovered.entries
        if all(_is_signed_by(address, own, writer) for own in own_messages([entry]))
    ]


def _is_signed_by(address: Address, signed: Signed, writer: ChainWriter) -> bool:
    message = signed.message
    if message.height > writer.tip.height + EFFECTIVE_AFTER:
        return True  # `ChainWriter.recover` refuses such a log
    members = writer.validators_at(message.height).members
    if message.sender >= len(members) or members[message.sender].address != address:
        return False
    digest = wire.digest_of(message, writer.chain)
    return writer.chain.suite.verify(members[message.sender].key, digest, signed.signature)


def released(release: LoggedRelease, candidates: Candidates, now_ms: int) -> list[Signed]:
    """The messages that justify the lock of a release."""
    votes = [wire.signed_vote(wire.VOTE.decode(item)) for item in release.prevotes]
    proposals = [release.proposal] if release.proposal else []
    return [_proposal(item, candidates, now_ms).signed for item in proposals] + votes


def resent(messages: Sequence[Signed], candidates: Candidates) -> bytes:
    """A frame of messages that a peer may have missed; a proposal needs its block to be known."""
    proposals: list[wire.ProposalMessage] = []
    votes: list[wire.VoteMessage] = []
    for signed in messages:
        message = signed.message
        if isinstance(message, Vote):
            votes.append(wire.vote_message(message, signed.signature))
        elif (body := candidates.wire(message.value)) is not None:
            proposals.append(wire.proposal_message(message, signed.signature, body))
    return encode(wire.Resent(tuple(proposals[-8:]), tuple(votes[-2_048:])))


def replay(
    entries: Iterable[Entry],
    core: Core,
    candidates: Candidates,
    pool: BatchPool,
    chain: Chain,
    now_ms: int,
) -> list[Effect]:
    """Feed the log's entries to the core, do nothing, and return what is still to be done.

    Accusations are told again: the crash may have come before anybody else knew of them.
    """
    accusations: list[Effect] = []
    for entry in entries:
        event: Input | None = None
        match entry:
            case LoggedVote(message):
                event = MessageReceived(wire.signed_vote(wire.VOTE.decode(message)))
            case LoggedProposal(message):
                event = _proposal(message, candidates, now_ms)
            case LoggedTimer(height, round_number, kind):
                timer = TimerId(Height(height), Round(round_number), TimerKind(kind))
                event = TimerFired(timer)
            case LoggedWork(height):
                event = WorkAvailable(Height(height))
            case LoggedBuilt(height, round_number, value, body):
                event = BlockBuilt(Height(height), Round(round_number), BlockHash(value))
                candidates.remember(
                    BlockHash(value),
                    body,
                    round_number=round_number,
                    sender=None,
                    received_ms=now_ms,
                )
            case LoggedChecked(height, round_number, value, verdict):
                event = BlockChecked(
                    Height(height), Round(round_number), BlockHash(value), Verdict(verdict)
                )
            case LoggedBatch(digest, place):
                _restore(pool, digest, place, chain, now_ms)
            case EndedHeight() | LoggedRelease() | LogMended():
                invariant(condition=False, message="the log is read from its last ended height")
        if event is not None and not _lacks_bodies(event, candidates):
            accusations += [item for item in core.step(event) if isinstance(item, Accuse)]
    return accusations + core.resume()


def _lacks_bodies(event: Input, candidates: Candidates) -> bool:
    """Whether a crash took a body after the log said that a block is here as a whole.

    Nothing was signed on it then, for that syncs the bodies first. To vote now would say "I hold
    all of it" of what is gone: the block is checked, or built, once more.
    """
    match event:
        case BlockBuilt(value=value) | BlockChecked(value=value):
            return bool(candidates.missing(value))
        case _:
            return False


def _restore(pool: BatchPool, digest: bytes, place: Place, chain: Chain, now_ms: int) -> None:
    """Take a batch back from disk. One that was never synced is pulled from peers when needed."""
    body = pool.body(place)
    if body is None:
        return
    try:
        batch = parse_batch(body, chain)
    except Rejected:
        return
    if batch.digest == digest:
        pool.restore(batch, place, now_ms)


def _proposal(message: bytes, candidates: Candidates, now_ms: int) -> MessageReceived:
    proposal = wire.PROPOSAL.decode(message)
    candidates.remember(
        BlockHash(proposal.block_hash),
        proposal.block,
        round_number=proposal.round,
        sender=ValidatorIndex(proposal.sender),
        received_ms=now_ms,
    )
    return MessageReceived(wire.signed_proposal(proposal))
