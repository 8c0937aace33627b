"""The whole interface of the consensus core: what goes in, what comes out.

`Core.step(Input) -> list[Effect]`. The shell performs effects strictly in list order and answers
them by later inputs. It writes every input to its log before applying it; only `StartHeight`,
`PeerStatus` and STATUS timers need no entry, for they decide nothing. It hands its own signed
messages back ahead of any other waiting input, so that replaying the log repeats the same steps.
Nothing here computes.
Source: architecture section 5; research consensus-reliability section 1.5.
"""

from dataclasses import dataclass
from enum import IntEnum, unique

from consensus.messages import CommitCertificate, Evidence, Message, Signed
from ledger.ids import BlockHash, Height, Round, ValidatorIndex


@unique
class Step(IntEnum):
    """Where a height stands. IDLE has no timers; DECIDED waits for the next `StartHeight`."""

    IDLE = 0
    PROPOSE = 1
    PREVOTE = 2
    PRECOMMIT = 3
    DECIDED = 4


@unique
class TimerKind(IntEnum):
    """What a timer waits for. STATUS belongs to a height and always carries round 0."""

    PROPOSE = 1
    PREVOTE = 2
    PRECOMMIT = 3
    STATUS = 4


@unique
class Verdict(IntEnum):
    """What the shell found of a block. UNTIMELY: valid but for its time, so no fresh prevote."""

    VALID = 1
    UNTIMELY = 2
    INVALID = 3


@dataclass(frozen=True, slots=True)
class TimerId:
    """Names one timer; the core ignores it once height, round or step have moved on."""

    height: Height
    round: Round
    kind: TimerKind


@dataclass(frozen=True, slots=True)
class Status:
    """Where a core stands. `height` 0 is before the first `StartHeight`."""

    height: Height
    round: Round
    step: Step


# Inputs


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a node without memory takes over from others before it may vote again at a height.

    It is locked on `locked_value` as of `locked_round` (-1 and None: on nothing) and takes part
    only after round `after_round`, which no message that it may have signed has reached.
    """

    after_round: Round
    locked_round: Round
    locked_value: BlockHash | None


@dataclass(frozen=True, slots=True)
class StartHeight:
    """The block below `height` is durable. Heights only grow; they may jump after a block sync.

    `me` is None for an observer, which never signs. `proposers` are the eligible validators in
    order (see `consensus/proposer.py`), never empty. `adopted` is set after a release alone.
    """

    height: Height
    validator_count: int
    me: ValidatorIndex | None
    proposers: tuple[ValidatorIndex, ...]
    adopted: Adopted | None = None


@dataclass(frozen=True, slots=True)
class WorkAvailable:
    """There is something to propose, or a block must follow: leave the idle step."""

    height: Height


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message whose signature was verified, from a peer or from this node itself."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that `SetTimer` asked for is due."""

    timer: TimerId


@dataclass(frozen=True, slots=True)
class BlockBuilt:
    """The answer to `BuildBlock`; the block's body is durable."""

    height: Height
    round: Round
    value: BlockHash


@dataclass(frozen=True, slots=True)
class BlockChecked:
    """The answer to `CheckBlock`; VALID and UNTIMELY promise that the body is at hand."""

    height: Height
    round: Round
    value: BlockHash
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Where a peer says it stands. Unsigned: it may cause re-sending and nothing else."""

    peer: bytes
    height: int
    round: int
    step: int


Input = (
    StartHeight
    | WorkAvailable
    | MessageReceived
    | TimerFired
    | BlockBuilt
    | BlockChecked
    | PeerStatus
)


# Effects


@dataclass(frozen=True, slots=True)
class Sign:
    """Make message and signature durable, send them to all, hand them back as an input."""

    message: Message


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send stored messages to one peer again, each proposal with its block."""

    peer: bytes
    messages: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class BroadcastStatus:
    """Tell all peers where this node stands."""

    height: Height
    round: Round
    step: Step


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Answer with `TimerFired(timer)` after `after_ms`."""

    timer: TimerId
    after_ms: int


@dataclass(frozen=True, slots=True)
class BuildBlock:
    """Build a block for (height, round); answer `BlockBuilt`."""

    height: Height
    round: Round


@dataclass(frozen=True, slots=True)
class CheckBlock:
    """Fetch what is missing of a proposed block and judge it; answer `BlockChecked`, or never."""

    height: Height
    round: Round
    value: BlockHash


@dataclass(frozen=True, slots=True)
class Decide:
    """`value` is the block of `height`: make it durable, then `StartHeight(height + 1)`."""

    height: Height
    round: Round
    value: BlockHash
    certificate: CommitCertificate


@dataclass(frozen=True, slots=True)
class Accuse:
    """A validator signed two different messages where it may sign one."""

    evidence: Evidence


Effect = Sign | SendTo | BroadcastStatus | SetTimer | BuildBlock | CheckBlock | Decide | Accuse
