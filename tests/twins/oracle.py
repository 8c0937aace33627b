"""Algorithm 1 once more, as what one node may and must do given what it has heard.

An oracle hears what its core hears and judges after every input: what was signed must be allowed,
and nothing that a rule demands may be left undone. It counts votes by itself (bit sets of senders),
so a wrong count in the core is seen. It follows this node's readings of the paper, which stand in
`consensus/rules.py` and `consensus/vote_book.py`: L42 for past rounds, and a second, conflicting
vote counts if it is nil or was proposed in its round.
Source: arXiv 1807.04938, Algorithm 1, line numbers below.
"""

from consensus.core import Core
from consensus.events import CheckBlock, Decide, SetTimer, Step, TimerKind, Verdict
from consensus.messages import Evidence, Message, Proposal, Signed, Vote, VoteKind

PROPOSALS_KEPT = 2
TIMER_OF_STEP = {Step.PROPOSE: TimerKind.PROPOSE, Step.PREVOTE: TimerKind.PREVOTE}


class Violation(Exception):
    """A core broke a rule or a promise: a finding."""


def brief(message: Message) -> str:
    """A message in a few words."""
    kind = "proposal" if isinstance(message, Proposal) else message.kind.name.lower()
    value = "nil" if message.value is None else message.value.hex()[:8]
    where = f"{message.height}/{message.round} ({message.valid_round})"
    return f"{kind} {value} of {message.sender} at {where}"


class Oracle:
    """One node at one height. Copied with its core, so every field is replaced or copied."""

    __slots__ = (
        "_accused",
        "_asked",
        "_heard",
        "_highest",
        "_longest",
        "_owed",
        "_proposals",
        "_signed",
        "_verdicts",
        "_voted",
        "_voters",
        "faults",
        "is_decided",
        "leader",
        "lock",
        "me",
        "quorum",
        "round",
        "timers",
    )

    def __init__(self, me: int, validators: int, leader) -> None:
        """`leader` tells the proposer of a round."""
        self.me = me
        self.leader = leader
        self.quorum = 2 * validators // 3 + 1
        self.faults = (validators - 1) // 3
        self.lock: tuple[int, bytes | None] = (-1, None)
        self.is_decided = False
        self.round = 0
        self.timers: tuple[int, int] = (0, 0)
        """The round, and the set of timers (as bits by kind) that were asked for in it."""
        self._voters: dict[tuple[int, int, bytes | None], int] = {}
        self._voted: dict[tuple[int, int], int] = {}
        self._proposals: dict[int, tuple[tuple[bytes, int], ...]] = {}
        self._verdicts: dict[tuple[int, bytes], Verdict] = {}
        self._highest: dict[int, int] = {}
        self._signed: dict[tuple[int, int], Message] = {}
        self._longest: dict[TimerKind, tuple[int, int]] = {}
        self._heard: dict[tuple[int, int, int, bytes | None], bytes] = {}
        self._asked: dict[tuple[int, bytes], None] = {}
        self._owed: dict[tuple[int, int, int], None] = {}
        self._accused: dict[tuple[int, int, int], None] = {}
        """(sender, round, kind) of whoever was heard to, and was said to, contradict itself."""

    def copy(self) -> "Oracle":
        """An oracle that knows the same."""
        twin = Oracle.__new__(Oracle)
        for name in ("me", "leader", "quorum", "faults", "lock", "is_decided", "round", "timers"):
            setattr(twin, name, getattr(self, name))
        for name in (
            "_asked",
            "_owed",
            "_accused",
            "_voters",
            "_voted",
            "_proposals",
            "_verdicts",
            "_highest",
            "_signed",
            "_longest",
            "_heard",
        ):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    # What the node knows

    def hear(self, signed: Signed, round_now: int) -> bool:
        """A message reached the core, which is in `round_now` after it; whether it is kept."""
        message = signed.message
        if self.is_decided or not self._is_sound(message):
            return False
        self._highest[message.sender] = max(message.round, self._highest.get(message.sender, -1))
        if message.round > max(round_now, self._reached()) + 1:
            return False
        if isinstance(message, Proposal):
            return self._hear_proposal(message)
        return self._hear_vote(message, signed.signature)

    def _is_sound(self, message: Message) -> bool:
        if message.round < 0 or not -1 <= message.valid_round < message.round:
            return message.valid_round == -1 and message.round >= 0
        if isinstance(message, Proposal):
            return message.sender == self.leader(message.round)
        is_prevote = message.kind is VoteKind.PREVOTE and message.value is not None
        return message.valid_round == -1 or is_prevote

    def _hear_proposal(self, proposal: Proposal) -> bool:
        held = self._proposals.get(proposal.round, ())
        if held and (proposal.value, proposal.valid_round) not in held:
            self._owed.setdefault((proposal.sender, proposal.round, 0))
        entry = (proposal.value, proposal.valid_round)
        if entry not in held and len(held) < PROPOSALS_KEPT:
            held = self._proposals[proposal.round] = (*held, entry)
        return entry in held

    def _hear_vote(self, vote: Vote, signature: bytes) -> bool:
        is_own_lock = vote.sender == self.me and vote.kind is VoteKind.PRECOMMIT
        if is_own_lock and vote.value is not None and vote.round > self.lock[0]:
            self.lock = (vote.round, vote.value)
        slot, bit = (int(vote.kind), vote.round), 1 << vote.sender
        voted = self._voted.get(slot, 0)
        if voted & bit and not self._voters.get((*slot, vote.value), 0) & bit:
            self._owed.setdefault((vote.sender, vote.round, slot[0]))
        if voted & bit and vote.value is not None:
            proposed = self._proposals.get(vote.round, ())
            is_first = self._voters.get((*slot, vote.value), 0) & bit
            if not is_first and all(value != vote.value for value, _ in proposed):
                return False
        self._voted[slot] = voted | bit
        key = (*slot, vote.value)
        if not self._voters.get(key, 0) & bit:
            self._voters[key] = self._voters.get(key, 0) | bit
            self._heard[(*slot, vote.sender, vote.value)] = signature
        return True

    def judge(self, round_number: int, value: bytes, verdict: Verdict) -> None:
        """The core was told what a block is worth; the first word counts."""
        self._verdicts.setdefault((round_number, value), verdict)

    def is_acceptable(self, value: bytes) -> bool:
        """Whether a check of any round found the value valid, timely or not."""
        return any(
            held == value and verdict is not Verdict.INVALID
            for (_, held), verdict in self._verdicts.items()
        )

    def has_quorum(self, kind: VoteKind, round_number: int, value: bytes | None) -> bool:
        """Whether a quorum voted for a value in a round."""
        return self._voters.get((kind, round_number, value), 0).bit_count() >= self.quorum

    def has_any_quorum(self, kind: VoteKind, round_number: int) -> bool:
        """Whether a quorum voted in a round, for whatever."""
        return self._voted.get((kind, round_number), 0).bit_count() >= self.quorum

    def decision(self) -> tuple[int, bytes] | None:
        """L49: a round and value that may be decided now."""
        for kind, round_number, value in self._voters:
            if kind == VoteKind.PRECOMMIT and value is not None:
                is_proven = self.has_quorum(VoteKind.PRECOMMIT, round_number, value)
                if is_proven and self.is_acceptable(value):
                    return round_number, value
        return None

    def newest_valid(self, before: int) -> tuple[int, bytes | None]:
        """L42: the newest acceptable value with a prevote quorum in a round below `before`."""
        newest: tuple[int, bytes | None] = (-1, None)
        for kind, round_number, value in self._voters:
            if kind != VoteKind.PREVOTE or value is None or not newest[0] < round_number < before:
                continue
            if self.has_quorum(VoteKind.PREVOTE, round_number, value) and self.is_acceptable(value):
                newest = (round_number, value)
        return newest

    # What it may do

    def on_sign(self, message: Message, cause: TimerKind | None) -> None:
        """The core asks for a signature; `cause` is the timer that fired, if one did."""
        kind = 0 if isinstance(message, Proposal) else int(message.kind)
        before = self._signed.setdefault((message.round, kind), message)
        if before != message or message.sender != self.me:
            raise Violation(f"signs twice: {brief(before)} and {brief(message)}")
        if self.decision() is not None:
            raise Violation(f"goes on instead of deciding (L49 before all): {brief(message)}")
        if isinstance(message, Proposal):
            self._check_proposal(message)
        elif message.kind is VoteKind.PREVOTE:
            self._check_prevote(message, cause)
        else:
            self._check_precommit(message, cause)

    def _check_proposal(self, proposal: Proposal) -> None:
        if self.leader(proposal.round) != self.me:
            raise Violation(f"proposes out of turn: {brief(proposal)}")
        newest = self.newest_valid(proposal.round)
        if newest[0] >= 0 and newest != (proposal.valid_round, proposal.value):
            raise Violation(f"proposes not the newest valid value (L16): {brief(proposal)}")
        if newest[0] < 0 and proposal.valid_round != -1:
            raise Violation(f"claims a quorum it has not seen (L16): {brief(proposal)}")

    def _check_prevote(self, vote: Vote, cause: TimerKind | None) -> None:
        entries = self._proposals.get(vote.round, ())
        answers = [self._answer(vote.round, *entry) for entry in entries]
        if vote.value is None:
            if cause is not TimerKind.PROPOSE and None not in answers:
                raise Violation(f"prevotes nil without a reason (L22, L28): {brief(vote)}")
        elif (vote.value, vote.valid_round) not in [
            entry for entry, answer in zip(entries, answers, strict=True) if answer == entry[0]
        ]:
            raise Violation(f"prevotes what it must not (L22, L28): {brief(vote)}")

    def _answer(self, round_number: int, value: bytes, valid_round: int) -> bytes | bool | None:
        """The prevote that a proposal demands: a value, nil, or False for none yet (L22, L28)."""
        locked_round, locked_value = self.lock
        verdict = self._verdicts.get((round_number, value))
        if valid_round == -1:
            if verdict is None:
                return False
            is_free = locked_round == -1 or locked_value == value
            return value if verdict is Verdict.VALID and is_free else None
        if not self.has_quorum(VoteKind.PREVOTE, valid_round, value):
            return False
        is_acceptable = self.is_acceptable(value)
        if not is_acceptable and verdict is None:
            return False
        is_free = locked_round <= valid_round or locked_value == value
        return value if is_acceptable and is_free else None

    def _check_precommit(self, vote: Vote, cause: TimerKind | None) -> None:
        winner = self._winner(vote.round)
        if vote.value is not None:
            if winner != vote.value:
                raise Violation(f"precommits without a quorum (L36): {brief(vote)}")
            self.lock = (vote.round, vote.value)
        elif winner is not False and winner is not None:
            raise Violation(f"precommits nil against a quorum (L36): {brief(vote)}")
        elif winner is False and cause is not TimerKind.PREVOTE:
            raise Violation(f"precommits nil without a reason (L44, L61): {brief(vote)}")

    def _winner(self, round_number: int) -> bytes | bool | None:
        """What a quorum prevoted: an acceptable value, nil, or False for nothing (L36, L44)."""
        value = self.newest_valid(round_number + 1)
        if value[0] == round_number:
            return value[1]
        return None if self.has_quorum(VoteKind.PREVOTE, round_number, None) else False

    def on_timer(self, effect: SetTimer) -> None:
        """The core asks for a timer of a round; a later round waits longer."""
        kind, round_number = effect.timer.kind, effect.timer.round
        before = self._longest.get(kind)
        if before is not None and before[0] < round_number and before[1] >= effect.after_ms:
            raise Violation(f"timeouts do not grow: {effect.after_ms} ms in round {round_number}")
        self._longest[kind] = (round_number, effect.after_ms)
        held = self.timers[1] if self.timers[0] == round_number else 0
        self.timers = (round_number, held | 1 << kind)

    def on_check(self, effect: CheckBlock) -> None:
        """The core asks what a block is worth."""
        self._asked.setdefault((effect.round, effect.value))

    def on_decide(self, decide: Decide, together: list[type]) -> None:
        """The core decides; `together` are the effects of the same input."""
        certificate = decide.certificate
        round_number, value = certificate.round, certificate.value
        indexes = [index for index, _ in certificate.signatures]
        heard = [self._heard.get((2, round_number, index, value)) for index in indexes]
        is_proven = len(indexes) >= self.quorum and indexes == sorted(set(indexes))
        signatures = [signature for _, signature in certificate.signatures]
        if not is_proven or heard != signatures or value != decide.value:
            raise Violation(f"bad certificate at {decide.height}/{round_number}: {indexes}")
        if not self.is_acceptable(value):
            raise Violation(f"decides what it never found valid: {value.hex()[:8]}")
        if SetTimer in together:
            raise Violation("starts a round instead of deciding (L49 before L55)")
        self.is_decided = True

    def on_accuse(self, evidence: Evidence) -> None:
        """The core convicts somebody: of two different messages in one slot."""
        first, second = evidence.first.message, evidence.second.message
        kinds = [int(getattr(message, "kind", 0)) for message in (first, second)]
        is_proof = first != second and kinds[0] == kinds[1]
        if not is_proof or (first.sender, first.round) != (second.sender, second.round):
            raise Violation(f"accuses without proof: {brief(first)} and {brief(second)}")
        self._accused.setdefault((first.sender, first.round, kinds[0]))

    # What it must have done

    def at_rest(self, core: Core, cause: TimerKind | None) -> None:
        """An input and all that followed from it are done; `cause` is the timer that it was."""
        if self.is_decided:
            return
        status = core.status
        allowed = self.round + 1 if cause is TimerKind.PRECOMMIT else self.round
        own = self._highest.get(self.me, -1)  # It has been there, whoever of it remembers.
        if status.round > max(allowed, self._reached(), own):
            raise Violation(f"enters a round without a reason (L55, L65) at {status}")
        self.round = status.round
        if self.decision() is not None:
            raise Violation(f"does not decide (L49) at {status}")
        if self._reached() > status.round:
            raise Violation(f"does not follow f + 1 to their round (L55) at {status}")
        if own > status.round:
            raise Violation(f"does not return to the round of an own message at {status}")
        unproven = self._owed.keys() - self._accused.keys()
        if unproven:
            raise Violation(f"does not accuse (sender, round, kind): {sorted(unproven)}")
        self._check_step(status.round, status.step)
        if core.locked != self.lock:
            raise Violation(f"is locked on {core.locked}, should be on {self.lock}")
        known = self.newest_valid(status.round + (status.step >= Step.PREVOTE))
        if core.valid != known:
            raise Violation(f"holds {core.valid} valid (L42), should hold {known}")

    def _is_under_way(self, round_number: int, value: bytes, valid_round: int) -> bool:
        """Whether nothing needs to be asked of a proposal's block."""
        is_known = valid_round != -1 and self.is_acceptable(value)
        key = (round_number, value)
        return is_known or key in self._verdicts or key in self._asked

    def inherit(self, other: "Oracle") -> None:
        """Know what was signed before a restart: it binds, whatever the node remembers."""
        self._signed = other._signed

    def _reached(self) -> int:
        rounds = sorted(self._highest.values(), reverse=True)
        return rounds[self.faults] if len(rounds) > self.faults else -1

    def _check_step(self, round_number: int, step: Step) -> None:
        wanted = 0
        if step is Step.PROPOSE:
            wanted |= 1 << TimerKind.PROPOSE
            for entry in self._proposals.get(round_number, ()):
                if self._answer(round_number, *entry) is not False:
                    raise Violation(f"does not prevote (L22, L28) in round {round_number}")
                if not self._is_under_way(round_number, *entry):
                    raise Violation(f"asks for no check of a proposal in round {round_number}")
        elif step is Step.PREVOTE:
            if self._winner(round_number) is not False:
                raise Violation(f"does not precommit (L36, L44) in round {round_number}")
            if self.has_any_quorum(VoteKind.PREVOTE, round_number):
                wanted |= 1 << TimerKind.PREVOTE
        if self.has_any_quorum(VoteKind.PRECOMMIT, round_number):
            wanted |= 1 << TimerKind.PRECOMMIT
        held = self.timers[1] if self.timers[0] == round_number else 0
        if held & wanted != wanted:
            raise Violation(f"sets no timer (L21, L34, L47) in round {round_number}")
