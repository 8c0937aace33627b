"""The blocks of a simulated chain: what headers commit to, and the rules that check them.

A body stands for a whole block with its header. It holds the certificate of the block before, as a
header does, because the demotion list follows from it; the validators of its height and the next;
the state root of the block before; and it may carry a change of membership, which holds two heights
later.
"""

import hashlib
from dataclasses import dataclass, replace

from consensus.messages import CommitCertificate
from consensus.proposer import carried, eligible, next_demotions
from consensus.vote_book import faults_of
from ledger.block import Demotion
from ledger.codec import encode
from ledger.ids import BlockHash
from tests.simulation.state import State

Members = tuple[int, ...]
"""A validator set: the identities of its members, ascending; a signer is named by index."""
LEAST_MEMBERS = 4


@dataclass(frozen=True, slots=True)
class Body:
    """A proposed block; `previous` is the value below it, `change` the set from height + 2 on."""

    value: BlockHash
    height: int
    author: int
    nonce: int
    time_ms: int
    previous: bytes
    last: CommitCertificate | None
    demotions: tuple[Demotion, ...]
    members: Members
    next_members: Members
    change: Members | None
    state_root: bytes


@dataclass(frozen=True, slots=True)
class Decided:
    """A block that a node made durable, with a certificate for it."""

    body: Body
    certificate: CommitCertificate


def value_of(body: Body) -> BlockHash:
    """The hash of everything else in a body."""
    last = body.last
    fields = (
        (body.height, body.author, body.nonce, body.time_ms, body.previous),
        None if last is None else (last.height, last.round, last.value, last.signatures),
        (body.demotions, body.members, body.next_members, body.change),
        body.state_root,
    )
    return BlockHash(hashlib.sha256(encode(fields)).digest())


def sealed(body: Body) -> Body:
    """The body with its hash as value."""
    return replace(body, value=value_of(body))


def may_change(before: Members, after: Members) -> bool:
    """Whether one block may turn a set into another: at most f leave, four stay."""
    removed = [member for member in before if member not in after]
    is_small = len(removed) <= faults_of(len(before)) and len(after) >= LEAST_MEMBERS
    return is_small and before != after and after == tuple(sorted(set(after)))


class Chain:
    """A node's blocks; the block of height h has index h - 1. A block is safe once it is synced."""

    __slots__ = ("_genesis", "_sets", "approved", "blocks", "changes", "state", "synced")

    def __init__(self, genesis: Members, approved: list[Members]) -> None:
        """`approved` are the changes that were voted for, in order; each may be made once."""
        self._genesis = genesis
        self.approved = approved
        self.blocks: list[Decided] = []
        self._sets: list[Members] = [genesis, genesis]
        self.changes = 0
        self.synced = 0
        self.state = State()

    @property
    def next_height(self) -> int:
        """The height that is still to be decided."""
        return len(self.blocks) + 1

    @property
    def time_ms(self) -> int:
        """The time of the newest block; 0 before any."""
        return self.blocks[-1].body.time_ms if self.blocks else 0

    def members(self, height: int) -> Members:
        """The validators of a height, known up to the one after the next."""
        return self._sets[height - 1]

    def append(self, decided: Decided) -> None:
        """Add the next block; it may be lost until `sync`."""
        self.blocks.append(decided)
        change = decided.body.change
        self._sets.append(self._sets[-1] if change is None else change)
        self.changes += change is not None

    def sync(self) -> None:
        """Make all blocks durable."""
        self.synced = len(self.blocks)

    def execute(self) -> None:
        """Run the blocks that were not executed."""
        for decided in self.blocks[self.state.height :]:
            body = decided.body
            self.state.execute(body.height, body.nonce, body.value)

    def cut(self, height: int) -> None:
        """Lose every block above a height; state that is ahead of its blocks is built anew."""
        if self.state.height > height:
            self.state = State()
        del self.blocks[height:]
        del self._sets[height + 2 :]
        self.changes = sum(decided.body.change is not None for decided in self.blocks)
        self.synced = min(self.synced, height)

    def demotions(self, height: int) -> tuple[Demotion, ...]:
        """D(height): empty at genesis."""
        return self.blocks[height - 1].body.demotions if height >= 1 else ()

    def proposers(self, height: int) -> tuple[int, ...]:
        """The eligible list that rules a height."""
        if height == 1:
            return eligible(len(self._genesis), (), height)
        before, members = self.members(height - 1), self.members(height)
        ruling = carried(self.demotions(height - 1), before, members)
        return eligible(len(members), ruling, height)

    def demotions_after(self, last: CommitCertificate | None) -> tuple[Demotion, ...]:
        """What the next header must carry when it holds the certificate `last`."""
        if last is None:
            return ()
        members = self.members(last.height)
        found = next_demotions(
            self.demotions(last.height),
            height=last.height,
            round_number=last.round,
            voters=[index for index, _ in last.signatures],
            proposers=self.proposers(last.height),
            validator_count=len(members),
        )
        return carried(found, members, self.members(last.height + 1))

    def build(self, author: int, nonce: int, now_ms: int) -> Body:
        """The next block."""
        height = self.next_height
        last = self.blocks[-1].certificate if self.blocks else None
        following = self.members(height + 1)
        change = self.approved[self.changes] if self.changes < len(self.approved) else None
        blank = Body(
            value=BlockHash(b""),
            height=height,
            author=author,
            nonce=nonce,
            time_ms=max(now_ms, self.time_ms + 1),
            previous=self.blocks[-1].body.value if self.blocks else b"",
            last=last,
            demotions=self.demotions_after(last),
            members=self.members(height),
            next_members=following,
            change=change if change and may_change(following, change) else None,
            state_root=self.state.root,
        )
        return sealed(blank)

    def accepts(self, body: Body) -> bool:
        """Whether a body may be the next block. Its certificate is checked by the caller."""
        height = self.next_height
        tip = self.blocks[-1].body.value if self.blocks else b""
        last = body.last
        is_next = body.height == height and body.previous == tip and body.time_ms > self.time_ms
        if not is_next or (last is None) != (not self.blocks):
            return False
        if last is not None and (last.height, last.value) != (height - 1, tip):
            return False
        if (body.members, body.next_members) != (self.members(height), self.members(height + 1)):
            return False
        is_derived = body.demotions == self.demotions_after(last) and body.value == value_of(body)
        return is_derived and self._has_root(body.state_root) and self._allows(body.change)

    def _has_root(self, state_root: bytes) -> bool:
        return state_root == self.state.root

    def _allows(self, change: Members | None) -> bool:
        if change is None:
            return True
        is_approved = self.changes < len(self.approved) and self.approved[self.changes] == change
        return is_approved and may_change(self._sets[-1], change)
