"""The release of a node from quarantine when more than f nodes lost their memory.

What it decides: whether statements of a quorum of organisations allow a node to vote again at the
height in progress, from which round, and locked on what. Every certificate, prevote, proposal and
message in a statement is verified by its own signature and against the set of its own height; a
statement is believed only in what it leaves out, and there a quorum of organisations must agree.
Who may leave something out: the masters of the height in progress, which alone could vote there,
and the organisations that run them. `node/rulers.py` refuses where this node does not know them.
What no statement can show: a certificate that only damaged nodes held. Whoever releases a node is
told so.
Source: architecture section 5; decisions 0023 and 0032.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consensus.messages import NO_ROUND, Signed, Vote, VoteKind
from ledger.addresses import decode_text
from ledger.block import BLOCK, block_hash
from ledger.errors import Reason, Rejected
from ledger.ids import Address, ValidatorIndex
from ledger.membership import NodeRecord
from ledger.transaction import Chain
from ledger.validators import ValidatorSet
from ledger.votes import CERTIFICATE, verify_certificate
from node import wire
from node.limits import RELEASE_ROUNDS
from node.log_entries import LoggedRelease
from node.rulers import Rulers
from node.statement import Statement, statement_digest


@dataclass(frozen=True, slots=True)
class Verified:
    """What one statement proves. `quorum` is (round, value) of its prevotes, None without."""

    address: Address
    node: NodeRecord
    statement: Statement
    block_hash: bytes
    quorum: tuple[int, bytes] | None
    rounds: dict[int, int]
    """The highest round in which each validator is seen, by its own signature."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release and what it rests on."""

    entry: LoggedRelease
    organisations: tuple[str, ...]
    intact_nodes: int
    damaged_nodes: int


def judge(
    chain: Chain,
    rulers: Rulers,
    me: Address,
    statements: Sequence[Statement],
    hash_at: Callable[[int], bytes | None],
) -> Release:
    """The release that these statements allow; `hash_at` tells this node's own blocks by height.

    Raises: Rejected(BAD_STATEMENT | BAD_CERTIFICATE | BAD_SIGNATURE | MALFORMED …).
    """
    top = max(item.height for item in statements)
    if hash_at(top + 1) is not None or rulers.executed > top:
        raise _bad("this node holds newer blocks than any statement: make new ones", height=top)
    validators = rulers.at(top + 1)
    verified = [_verify(chain, rulers, statement) for statement in statements]
    _check_masters(verified, validators, top)
    organisations = _enough_organisations(rulers.organisations(top + 1), verified)
    _check_one_chain(verified, hash_at)
    index = validators.index_of(me)
    if index is None:
        raise _bad("this node does not vote at that height: nothing to release", height=top + 1)
    current = [item for item in verified if item.statement.height == top]
    entry = _entry(current, validators, index, top + 1)
    damaged = sum(item.statement.is_damaged for item in verified)
    return Release(entry, organisations, len(verified) - damaged, damaged)


def _entry(
    current: Sequence[Verified], validators: ValidatorSet, me: ValidatorIndex, height: int
) -> LoggedRelease:
    """What the statements of the newest block say of the height after it, the one in progress."""
    locked = _newest_lock(current)
    after = max(_reached(current, validators), _own_round(current, me)) + RELEASE_ROUNDS
    quorum = None if locked is None else locked.quorum
    locked_round, value = (int(NO_ROUND), None) if quorum is None else quorum
    statement = None if locked is None else locked.statement
    return LoggedRelease(
        height=height,
        after_round=max(after, locked_round),
        locked_round=locked_round,
        locked_value=value,
        proposal=b"" if statement is None else bytes.fromhex(statement.proposal),
        prevotes=() if statement is None else tuple(map(bytes.fromhex, statement.prevotes)),
    )


def _bad(detail: str, **facts: str | int) -> Rejected:
    return Rejected(Reason.BAD_STATEMENT, detail, **facts)


def _verify(chain: Chain, rulers: Rulers, statement: Statement) -> Verified:
    _, address = decode_text(statement.node)
    node = rulers.find(address)
    if node is None:
        raise _bad("not made by a node of this chain", node=statement.node)
    if (statement.genesis_hash, statement.group) != (chain.genesis_hash.hex(), chain.group):
        raise _bad("of another chain", node=node.name)
    digest = statement_digest(statement, chain.suite)
    if not chain.suite.verify(node.key, digest, bytes.fromhex(statement.signature)):
        raise _bad("its signature is not the node's", node=node.name)
    decided = b""
    if statement.height:
        certificate = CERTIFICATE.decode(bytes.fromhex(statement.certificate))
        if certificate.height != statement.height:
            raise _bad("its certificate is of another height", node=node.name)
        verify_certificate(certificate, rulers.at(statement.height), chain)
        decided = certificate.block_hash
    height = statement.height + 1
    messages = _Messages(chain, rulers.at(height), height, node.name)
    quorum = messages.quorum(statement)
    return Verified(address, node, statement, decided, quorum, messages.rounds(statement))


def _check_masters(verified: Sequence[Verified], validators: ValidatorSet, top: int) -> None:
    """Only masters of the height in progress state anything: nobody else could have voted there.

    A certificate proves itself, whoever holds it. If only a node without a vote shows the newest
    one, to leave its statement out would be to forget a decided block.
    """
    holders = [item.address for item in verified if item.statement.height == top]
    strangers = {
        item.address: item.node.name
        for item in verified
        if validators.index_of(item.address) is None
    }
    if all(address in strangers for address in holders):
        raise _bad(
            "only a node that is no master at the next height holds the newest block: start it, "
            "let the masters fetch the block from it, and make new statements",
            node=strangers[holders[0]],
            height=top,
        )
    for name in strangers.values():
        raise _bad(
            "this node is no master at that height: leave its statement out",
            node=name,
            height=top + 1,
        )


class _Messages:
    """Reads the consensus messages of one statement, each verified."""

    def __init__(self, chain: Chain, validators: ValidatorSet, height: int, name: str) -> None:
        self._chain = chain
        self._validators = validators
        self._height = height
        self._name = name

    def quorum(self, statement: Statement) -> tuple[int, bytes] | None:
        """Round and value of the prevotes, which are a quorum, and whose block is there."""
        if not statement.prevotes and not statement.proposal:
            return None
        proposal = wire.PROPOSAL.decode(bytes.fromhex(statement.proposal))
        self._check(wire.signed_proposal(proposal))
        value = proposal.block_hash
        block = BLOCK.decode(proposal.block)
        if block_hash(block.header, self._chain.suite) != value:
            raise _bad("its block is not the one that is proposed", node=self._name)
        votes = [self._vote(bytes.fromhex(item)) for item in statement.prevotes]
        senders = [vote.sender for vote in votes]
        rounds = {vote.round for vote in votes}
        is_for_it = all(vote.kind is VoteKind.PREVOTE and vote.value == value for vote in votes)
        is_quorum = len(senders) >= self._validators.quorum and senders == sorted(set(senders))
        if not (is_for_it and is_quorum and len(rounds) == 1):
            raise _bad("its prevotes are no quorum for its block", node=self._name)
        return rounds.pop(), value

    def rounds(self, statement: Statement) -> dict[int, int]:
        """The rounds that validators reached, by their own messages."""
        found: dict[int, int] = {}
        for item in statement.latest:
            signed = self._any(bytes.fromhex(item))
            found[signed.message.sender] = signed.message.round
        for item in statement.prevotes:
            vote = wire.VOTE.decode(bytes.fromhex(item))
            found[vote.sender] = max(found.get(vote.sender, -1), vote.round)
        return found

    def _vote(self, data: bytes) -> Vote:
        signed = wire.signed_vote(wire.VOTE.decode(data))
        self._check(signed)
        message = signed.message
        if not isinstance(message, Vote):
            raise _bad("not a vote", node=self._name)
        return message

    def _any(self, data: bytes) -> Signed:
        try:
            signed = wire.signed_vote(wire.VOTE.decode(data))
        except Rejected:
            signed = wire.signed_proposal(wire.PROPOSAL.decode(data))
        self._check(signed)
        return signed

    def _check(self, signed: Signed) -> None:
        message, members = signed.message, self._validators.members
        if message.height != self._height or message.sender >= len(members):
            raise _bad("a message of another height or of nobody", node=self._name)
        digest = wire.digest_of(message, self._chain)
        if not self._chain.suite.verify(members[message.sender].key, digest, signed.signature):
            raise _bad("a message whose signature is wrong", node=self._name)


def _enough_organisations(
    all_of_them: frozenset[str], verified: Sequence[Verified]
) -> tuple[str, ...]:
    """The organisations that state something, if they are a quorum of those that run masters."""
    if len({item.address for item in verified}) < len(verified):
        names = sorted(item.node.name for item in verified)
        raise _bad("two statements of one node", nodes=", ".join(names))
    stating = sorted({item.node.organisation for item in verified})
    needed = 2 * len(all_of_them) // 3 + 1
    if len(stating) < needed:
        raise _bad("too few organisations", count=len(stating), needed=needed)
    return tuple(stating)


def _check_one_chain(verified: Sequence[Verified], hash_at: Callable[[int], bytes | None]) -> None:
    """No two certificates of one height decide different blocks, nor one and our own block."""
    decided: dict[int, bytes] = {}
    for item in verified:
        height = item.statement.height
        own = hash_at(height)
        if height and decided.setdefault(height, item.block_hash) != item.block_hash:
            raise _bad("the chain has forked: two certified blocks", height=height)
        if height and own is not None and own != item.block_hash:
            raise _bad("the chain has forked: this node holds another block", height=height)


def _newest_lock(current: Sequence[Verified]) -> Verified | None:
    """The statement with the newest quorum of prevotes."""
    with_lock = [item for item in current if item.quorum is not None]
    values: dict[int, bytes] = {}
    for item in with_lock:
        if item.quorum is not None and values.setdefault(*item.quorum) != item.quorum[1]:
            raise _bad("two blocks have a quorum of prevotes in one round", round=item.quorum[0])
    return max(with_lock, key=lambda item: item.quorum or (NO_ROUND, b""), default=None)


def _own_round(current: Sequence[Verified], me: ValidatorIndex) -> int:
    return max((item.rounds.get(me, int(NO_ROUND)) for item in current), default=int(NO_ROUND))


def _reached(current: Sequence[Verified], validators: ValidatorSet) -> int:
    """The highest round that f + 1 validators have reached: f liars cannot raise it."""
    highest: dict[int, int] = {}
    for item in current:
        for sender, round_number in item.rounds.items():
            highest[sender] = max(highest.get(sender, int(NO_ROUND)), round_number)
    ordered = sorted(highest.values(), reverse=True)
    return ordered[validators.faults] if len(ordered) > validators.faults else int(NO_ROUND)
