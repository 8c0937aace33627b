"""Short words for the tables of the consensus tests: height 4, 4 validators, r leads round r."""

from consensus.core import Core
from consensus.events import (
    BlockChecked,
    CheckBlock,
    Effect,
    Input,
    MessageReceived,
    SetTimer,
    Sign,
    StartHeight,
    TimerFired,
    TimerId,
    TimerKind,
    Verdict,
    WorkAvailable,
)
from consensus.messages import NO_ROUND, Message, Proposal, Signed, Vote, VoteKind
from consensus.timeouts import Timeouts
from ledger.ids import BlockHash, Height, Round, ValidatorIndex

HEIGHT = 4
A, B, C = (BlockHash(bytes([letter]) * 32) for letter in b"ABC")
TIMEOUTS = Timeouts()
FAR = 2**31


def signed(message: Message) -> Signed:
    return Signed(message, b"signature of %d" % message.sender)


def proposal(value, round_number=0, valid_round=NO_ROUND, *, sender=None, height=HEIGHT):
    sender = (height + round_number) % 4 if sender is None else sender
    return Proposal(Height(height), Round(round_number), value, valid_round, ValidatorIndex(sender))


def prevote(sender, value, round_number=0, valid_round=NO_ROUND, *, height=HEIGHT):
    return _vote(VoteKind.PREVOTE, sender, value, round_number, valid_round, height)


def precommit(sender, value, round_number=0, *, height=HEIGHT):
    return _vote(VoteKind.PRECOMMIT, sender, value, round_number, NO_ROUND, height)


def _vote(kind, sender, value, round_number, valid_round, height):
    return Vote(
        kind, Height(height), Round(round_number), value, valid_round, ValidatorIndex(sender)
    )


def got(message: Message) -> MessageReceived:
    return MessageReceived(signed(message))


def prevotes(value, *senders, round_number=0):
    return [got(prevote(sender, value, round_number)) for sender in senders]


def precommits(value, *senders, round_number=0):
    return [got(precommit(sender, value, round_number)) for sender in senders]


def checked(value, verdict=Verdict.VALID, round_number=0):
    return BlockChecked(Height(HEIGHT), Round(round_number), value, verdict)


def proposed(value, round_number=0, valid_round=NO_ROUND, verdict=Verdict.VALID):
    """A proposal arrives and its block is checked at once."""
    return [
        got(proposal(value, round_number, valid_round)),
        checked(value, verdict, round_number),
    ]


def fired(kind: TimerKind, round_number=0, *, height=HEIGHT):
    return TimerFired(TimerId(Height(height), Round(round_number), kind))


def timer(kind: TimerKind, round_number=0):
    name = TimerId(Height(HEIGHT), Round(round_number), kind)
    return SetTimer(name, TIMEOUTS.after_ms(kind, Round(round_number)))


def check(value, round_number=0):
    return CheckBlock(Height(HEIGHT), Round(round_number), value)


def start(me=1, count=4, height=HEIGHT):
    proposers = tuple(ValidatorIndex(index) for index in range(count))
    return StartHeight(Height(height), count, None if me is None else ValidatorIndex(me), proposers)


def feed(core: Core, *events: Input) -> list[Effect]:
    """The effects of the last input."""
    effects: list[Effect] = []
    for event in events:
        effects = core.step(event)
    return effects


def drive(core: Core, *events: Input) -> list[Effect]:
    """All effects; own messages are signed and handed back first, as a shell does."""
    every: list[Effect] = []
    waiting = list(events)
    while waiting:
        effects = core.step(waiting.pop(0))
        every += effects
        own = [got(effect.message) for effect in effects if isinstance(effect, Sign)]
        waiting = own + waiting
    return every


def running(me=1, count=4) -> Core:
    """A core in round 0 of HEIGHT, at step propose."""
    core = Core(TIMEOUTS)
    feed(core, start(me, count), WorkAvailable(Height(HEIGHT)))
    return core


def messages_signed(effects: list[Effect]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Sign)]


def skip_to(round_number: int) -> list[Input]:
    """Nil precommits of 0, 2, 3 and the timer: validator 1 enters `round_number` by L65."""
    events: list[Input] = []
    for number in range(round_number):
        events += precommits(None, 0, 2, 3, round_number=number)
        events.append(fired(TimerKind.PRECOMMIT, number))
    return events
