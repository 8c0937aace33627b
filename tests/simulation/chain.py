"""The blocks of a simulated chain: headers that carry demotions, and the rules that check them.

A body stands for a whole block with its header. It holds the certificate of the block before, as a
header does, because the demotion list follows from it.
"""

import hashlib
from dataclasses import dataclass

from consensus.messages import CommitCertificate
from consensus.proposer import eligible, next_demotions
from ledger.block import Demotion
from ledger.codec import encode
from ledger.ids import BlockHash


@dataclass(frozen=True, slots=True)
class Body:
    """A proposed block; `previous` is the value below it."""

    value: BlockHash
    height: int
    author: int
    nonce: int
    previous: bytes
    last: CommitCertificate | None
    demotions: tuple[Demotion, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """A block that a node made durable, with a certificate for it."""

    body: Body
    certificate: CommitCertificate


def value_of(body: Body) -> BlockHash:
    """The hash of everything else in a body."""
    last = body.last
    certificate = None if last is None else (last.height, last.round, last.value, last.signatures)
    fields = (body.height, body.author, body.nonce, body.previous, certificate, body.demotions)
    return BlockHash(hashlib.sha256(encode(fields)).digest())


class Chain:
    """A node's durable blocks; the block of height h has index h - 1."""

    __slots__ = ("blocks", "validators")

    def __init__(self, validators: int) -> None:
        self.validators = validators
        self.blocks: list[Decided] = []

    @property
    def next_height(self) -> int:
        """The height that is still to be decided."""
        return len(self.blocks) + 1

    def demotions(self, height: int) -> tuple[Demotion, ...]:
        """D(height): empty at genesis."""
        return self.blocks[height - 1].body.demotions if height >= 1 else ()

    def proposers(self, height: int) -> tuple[int, ...]:
        """The eligible list that rules a height."""
        return eligible(self.validators, self.demotions(height - 1), height)

    def demotions_after(self, last: CommitCertificate | None) -> tuple[Demotion, ...]:
        """What the next header must carry when it holds the certificate `last`."""
        if last is None:
            return ()
        return next_demotions(
            self.demotions(last.height),
            height=last.height,
            round_number=last.round,
            voters=[index for index, _ in last.signatures],
            proposers=self.proposers(last.height),
            validator_count=self.validators,
        )

    def build(self, author: int, nonce: int) -> Body:
        """The next block."""
        last = self.blocks[-1].certificate if self.blocks else None
        previous = self.blocks[-1].body.value if self.blocks else b""
        demotions = self.demotions_after(last)
        blank = Body(BlockHash(b""), self.next_height, author, nonce, previous, last, demotions)
        return sealed(blank)

    def accepts(self, body: Body) -> bool:
        """Whether a body may be the next block. Its certificate is checked by the caller."""
        tip = self.blocks[-1].body.value if self.blocks else b""
        last = body.last
        is_next = body.height == self.next_height and body.previous == tip
        if not is_next or (last is None) != (not self.blocks):
            return False
        if last is not None and (last.height, last.value) != (body.height - 1, tip):
            return False
        return body.demotions == self.demotions_after(last) and body.value == value_of(body)


def sealed(body: Body) -> Body:
    """The body with its hash as value."""
    return Body(
        value_of(body),
        body.height,
        body.author,
        body.nonce,
        body.previous,
        body.last,
        body.demotions,
    )
