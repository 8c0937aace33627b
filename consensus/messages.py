"""What validators say to each other, and what a quorum of it proves.

Values are opaque 32-byte block hashes. Signatures are checked before a message enters the core and
are kept only to be passed on: inside certificates, evidence and re-sent messages. The bytes under
them are defined by `ledger/votes.py`; nothing here encodes, hashes or verifies.
Source: arXiv 1807.04938, Algorithm 1; "accountable Tendermint" for the valid round of a prevote.
"""

from dataclasses import dataclass
from enum import IntEnum, unique

from ledger.ids import BlockHash, Height, Round, ValidatorIndex

NO_ROUND = Round(-1)
"""The valid round of a value that no round has justified yet (-1 in the paper)."""


@unique
class VoteKind(IntEnum):
    """The two votes of a round."""

    PREVOTE = 1
    PRECOMMIT = 2


@dataclass(frozen=True, slots=True)
class Proposal:
    """The proposer of (height, round) asks for `value`; `valid_round` is -1 for a fresh value."""

    height: Height
    round: Round
    value: BlockHash
    valid_round: int
    sender: ValidatorIndex


@dataclass(frozen=True, slots=True)
class Vote:
    """One validator's vote; `value` None is nil, which is neither an absence nor an empty block.

    `valid_round` of a prevote repeats the valid round of the re-proposal that justified it, so that
    after a fork the culprits can be named; it is -1 for every other vote.
    """

    kind: VoteKind
    height: Height
    round: Round
    value: BlockHash | None
    valid_round: int
    sender: ValidatorIndex


Message = Proposal | Vote


@dataclass(frozen=True, slots=True)
class Signed:
    """A message with its sender's signature over exactly its fields."""

    message: Message
    signature: bytes


@dataclass(frozen=True, slots=True)
class CommitCertificate:
    """All precommits for `value` that a node held when it decided, at least a quorum.

    `signatures` are (validator index, signature), strictly ascending by index.
    """

    height: Height
    round: Round
    value: BlockHash
    signatures: tuple[tuple[ValidatorIndex, bytes], ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two different messages of one validator for the same height, round and kind."""

    first: Signed
    second: Signed
