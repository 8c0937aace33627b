"""What must hold after every step, known without looking into a core.

Safety: one value a height; certificates with a quorum of distinct signers of the set that ruled the
height; nobody correct signs two messages for one (height, round, kind), restarts and quarantine
included; no vote against the own lock without a justifying quorum; no precommit without a prevote
quorum; equal demotions for equal headers, of those who lost a round; no change of membership that
nobody voted for; the state root of every block, what each node executed, and what it proves of a
height, the completeness of its namespaces included; heights grow by one; a block that a node
reported is there for ever; no block from the future where clocks are good; bounded memory.
Liveness: after the faults end, a further height within bounded rounds.
Quorum and sets are computed here once more, so that a wrong one in a node is seen.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

from consensus.core import Core
from consensus.height_state import PAST_ROUNDS
from consensus.messages import (
    CommitCertificate,
    Evidence,
    Message,
    Proposal,
    Signed,
    Vote,
    VoteKind,
)
from consensus.next_height import MESSAGES_PER_KIND
from tests.simulation.chain import Body, Chain, Decided, Members
from tests.simulation.scenario import GOOD_CLOCK_MS, LINK_MS, PRECISION_MS, TIMEOUTS, Scenario
from tests.simulation.state_checker import StateModel, question

SLOW_ROUND = (2 * (TIMEOUTS.status_ms + 4 * LINK_MS[1])) // TIMEOUTS.delta_ms
"""From this round on every timeout exceeds 2 * Delta, where Delta is one status interval and a few
links: by then all correct nodes have what one of them has."""

EARLY_MS = PRECISION_MS + 2 * GOOD_CLOCK_MS
"""How far a block may be ahead of true time where only liars have wrong clocks, drift included."""

HELD = 4
"""After one block in so many, a client asks about one of so many newest heights."""

Verify = Callable[[Signed, Members], bool]


class Violation(Exception):
    """The protocol broke a promise: a finding."""


def brief(message: Message) -> str:
    """A message in a few words: kind, value, height/round, valid round."""
    kind = "proposal" if isinstance(message, Proposal) else message.kind.name.lower()
    value = "nil" if message.value is None else message.value.hex()[:8]
    return f"{kind} {value} at {message.height}/{message.round} ({message.valid_round})"


def faults_in(members: Members) -> int:
    """How many members of a set may be faulty; not taken from the code under test."""
    return (len(members) - 1) // 3


def is_proof(certificate: CommitCertificate, members: Members, verify: Verify) -> bool:
    """Whether a quorum of distinct members precommitted the certificate's value."""
    indexes = [index for index, _ in certificate.signatures]
    if len(indexes) < 2 * len(members) // 3 + 1 or indexes != sorted(set(indexes)):
        return False
    height, round_number, value = certificate.height, certificate.round, certificate.value
    return all(
        verify(
            Signed(Vote(VoteKind.PRECOMMIT, height, round_number, value, -1, index), signature),
            members,
        )
        for index, signature in certificate.signatures
    )


class Checker:
    """Watches one run. Nodes are named by identity."""

    def __init__(self, scenario: Scenario, verify: Verify, approved: list[Members]) -> None:
        self._scenario = scenario
        self._approved = approved
        self._verify = verify
        genesis = tuple(range(scenario.validators))
        self._sets: list[Members] = [genesis, genesis]
        self._signed: dict[tuple[int, int, int, int], Message] = {}
        self._prevoters: defaultdict[tuple[int, int, bytes], set[int]] = defaultdict(set)
        self._locks: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._values: dict[int, bytes] = {}
        self._states = StateModel()
        self._proposers: dict[int, tuple[int, ...]] = {1: tuple(range(scenario.validators))}
        self._demoted: dict[int, set[int]] = {0: set()}
        self._proven: dict[tuple[CommitCertificate, Members], bool] = {}
        self._reported: dict[int, int] = {}
        self._room: dict[int, tuple[int, int, int]] = {}
        self._round_limits: dict[int, int] = {}
        self._owed_from: int | None = None

    @property
    def decided(self) -> int:
        """The highest height that a correct node reported."""
        return len(self._values)

    def members(self, height: int) -> Members:
        """The validators of a height, up to the second after the last decided."""
        return self._sets[height - 1]

    # Signatures

    def on_sign(self, node: int, message: Message) -> None:
        """A correct node is about to sign."""
        kind = 0 if isinstance(message, Proposal) else int(message.kind)
        members = self.members(message.height)
        if not 0 <= message.sender < len(members) or members[message.sender] != node:
            raise Violation(f"node {node} signs as {message.sender} of {members}: {brief(message)}")
        key = (node, message.height, message.round, kind)
        before = self._signed.setdefault(key, message)
        if before != message:
            raise Violation(f"node {node} signs twice: {brief(before)} and {brief(message)}")
        if isinstance(message, Vote):
            self._check_vote(node, message)
            self.on_any_vote(node, message)

    def on_any_vote(self, node: int, vote: Vote) -> None:
        """Any node, also an adversary, signed a vote."""
        if vote.kind is VoteKind.PREVOTE and vote.value is not None:
            self._prevoters[vote.height, vote.round, vote.value].add(node)

    def _has_quorum(self, height: int, round_number: int, value: bytes) -> bool:
        members = self.members(height)
        voters = self._prevoters.get((height, round_number, value), ())
        return sum(member in voters for member in members) >= 2 * len(members) // 3 + 1

    def _check_vote(self, node: int, vote: Vote) -> None:
        if vote.value is None:
            return
        lock = self._locks.get((node, vote.height))
        if vote.kind is VoteKind.PRECOMMIT:
            if not self._has_quorum(vote.height, vote.round, vote.value):
                raise Violation(f"node {node} precommits without a quorum: {brief(vote)}")
            self._locks[node, vote.height] = (vote.round, vote.value)
            return
        valid_round = vote.valid_round
        if valid_round >= 0 and not self._has_quorum(vote.height, valid_round, vote.value):
            raise Violation(f"node {node} prevotes on a missing quorum: {brief(vote)}")
        if lock is not None and lock[1] != vote.value and valid_round < lock[0]:
            raise Violation(f"node {node} prevotes against its lock of {lock[0]}: {brief(vote)}")

    def on_accused(self, node: int, evidence: Evidence) -> None:
        """Two messages convict a sender, who must be an adversary or worse."""
        message = evidence.first.message
        accused = self.members(message.height)[message.sender]
        if accused in self._scenario.correct:
            raise Violation(f"node {node} accuses correct node {accused}: {evidence}")

    # Blocks

    def unreported(self, node: int, chain: Chain) -> Iterator[Decided]:
        """The durable blocks that a node has not reported."""
        yield from chain.blocks[self._reported.get(node, 0) : chain.synced]

    def on_decided(self, node: int, decided: Decided, chain: Chain, now_ms: int) -> None:
        """A correct node reports a block, which `chain` holds."""
        body, certificate = decided.body, decided.certificate
        height, value = body.height, body.value
        if height != self._reported.get(node, 0) + 1 or chain.blocks[height - 1] is not decided:
            raise Violation(f"node {node} reports height {height} out of turn")
        self._reported[node] = height
        if self._values.setdefault(height, value) != value:
            raise Violation(f"node {node} decides {value.hex()[:8]} at {height}: a fork")
        self._check_state(node, body, chain)
        if self._scenario.has_good_clocks and body.time_ms > now_ms + EARLY_MS:
            raise Violation(f"block {height} is {body.time_ms - now_ms} ms ahead of all clocks")
        if len(self._sets) < height + 2:
            if body.change is not None and body.change not in self._approved:
                raise Violation(f"block {height} brings members that nobody voted for")
            self._sets.append(self._sets[-1] if body.change is None else body.change)
        if chain.members(height + 2) != self._sets[height + 1]:
            raise Violation(f"node {node} has another set for {height + 2}")
        if certificate.value != value or certificate.height != height:
            raise Violation(f"node {node} holds a certificate for another block at {height}")
        if not self.is_valid(certificate, self.members(height), self._verify):
            where = f"{height}/{certificate.round}"
            raise Violation(f"bad certificate at {where}: {len(certificate.signatures)} signers")
        self._check_demotions(decided)
        proposers = chain.proposers(height + 1)
        if self._proposers.setdefault(height + 1, proposers) != proposers:
            raise Violation(f"node {node} has other proposers for height {height + 1}")
        is_owed = self._owed_from is not None and height >= self._owed_from
        if is_owed and certificate.round > self.round_limit(height):
            raise Violation(f"height {height} took until round {certificate.round}")

    def _check_state(self, node: int, body: Body, chain: Chain) -> None:
        height, states = body.height, self._states
        states.follow(height, body.nonce, body.value)
        if body.state_root != states.root(height - 1):
            raise Violation(f"block {height} commits to another state than {height - 1} has")
        if chain.state.height != height:  # Several were reported at once: the newest is looked at.
            return
        if chain.state.root != states.root(height):
            raise Violation(f"node {node} executes another state at {height}")
        if (height + node) % HELD == 0:
            asked = max(chain.state.held_from, height - (height + node) // HELD % HELD)
            namespace, key = question(height, node)
            shown = chain.state.show(asked, namespace, key)
            fault = states.fault_in(asked, namespace, key, shown)
            if fault:
                raise Violation(f"node {node} shows a wrong state of {asked}: {fault}")

    def _check_demotions(self, decided: Decided) -> None:
        """Whoever is demoted was so before, or lost a round of the height below: by identity."""
        height, last = decided.body.height, decided.body.last
        if height in self._demoted:
            return
        members = self.members(height)
        named = {members[entry.validator] for entry in decided.body.demotions}
        allowed = set(self._demoted[height - 1])
        if last is not None:
            before, turns = self.members(height - 1), self._proposers[height - 1]
            lost = range(height - 1, height - 1 + min(last.round, len(turns)))
            allowed |= {before[turns[turn % len(turns)]] for turn in lost}
        if not named <= allowed:
            raise Violation(f"height {height} demotes {sorted(named - allowed)}, who lost no round")
        self._demoted[height] = named

    def on_boot(self, node: int, height: int) -> None:
        """A correct node starts with the blocks up to `height`."""
        reported = self._reported.get(node, 0)
        if height < reported:
            raise Violation(f"node {node} reported block {reported} and has {height} left")

    def on_loss(self, node: int, height: int) -> None:
        """The world took away a node's blocks above `height`."""
        self._reported[node] = min(height, self._reported.get(node, 0))

    def is_valid(self, certificate: CommitCertificate, members: Members, verify: Verify) -> bool:
        """Whether a certificate proves its decision; looked at once."""
        key = (certificate, members)
        known = self._proven.get(key)
        if known is None:
            known = self._proven[key] = is_proof(certificate, members, verify)
        return known

    # Every step

    def after_step(self, node: int, core: Core, height: int, members: Members) -> None:
        """A correct node finished an input. One input adds one message at most within a round."""
        status = core.status
        if status.height != height:
            raise Violation(f"node {node} works at {status.height}, not after its last block")
        known_height, known_round, room = self._room.get(node, (0, 0, 0))
        if room > 0 and (known_height, known_round) == (status.height, status.round):
            self._room[node] = (known_height, known_round, room - 1)
            return
        rounds = min(status.round + 2, PAST_ROUNDS + 4)
        most = max(len(members), len(self._sets[-1]))
        bound = rounds * (2 + 8 * most) + 3 * MESSAGES_PER_KIND * most
        held = core.held_messages
        if held > bound:
            raise Violation(f"node {node} holds {held} messages, bound {bound}")
        self._room[node] = (status.height, status.round, bound - held)

    # After the faults

    def on_faults_end(self, rounds: dict[int, int]) -> None:
        """From now on links are good. `rounds` is the highest round of a correct node, by height.

        A height needs f + 2 rounds after the first whose timeouts exceed 2 * Delta and which all
        correct nodes enter together: one after the round the first of them is in. What was decided
        before, in whatever round, may reach a node that was down as late as it likes.
        """
        self._owed_from = self.decided + 1
        self._round_limits = {
            height: max(highest + 1, SLOW_ROUND) for height, highest in rounds.items()
        }

    def round_limit(self, height: int) -> int:
        """The last round in which a height may be decided after the faults ended."""
        first = self._round_limits.get(height, SLOW_ROUND)
        return first + faults_in(self.members(height)) + 2
