"""What must hold after every step, known without looking into a core.

Safety: one value a height; certificates with a quorum of distinct signers; nobody correct signs two
messages for one (height, round, kind), restarts included; no vote against the own lock without a
justifying quorum; no precommit without a prevote quorum; equal demotions for equal headers; heights
grow by one; bounded memory. Liveness: after the faults end, a further height within bounded rounds.
The quorum is computed here once more, so that a wrong one in the core is seen.
"""

from collections import defaultdict
from collections.abc import Callable

from consensus.core import Core
from consensus.height_state import PAST_ROUNDS
from consensus.messages import CommitCertificate, Message, Proposal, Signed, Vote, VoteKind
from consensus.next_height import MESSAGES_PER_KIND
from tests.simulation.chain import Chain, Decided
from tests.simulation.scenario import LINK_MS, TIMEOUTS, Scenario

SLOW_ROUND = (2 * (TIMEOUTS.status_ms + 4 * LINK_MS[1])) // TIMEOUTS.delta_ms
"""From this round on every timeout exceeds 2 * Delta, where Delta is one status interval and a few
links: by then all correct nodes have what one of them has."""


class Violation(Exception):
    """The protocol broke a promise: a finding."""


def brief(message: Message) -> str:
    """A message in a few words: kind, value, height/round, valid round."""
    kind = "proposal" if isinstance(message, Proposal) else message.kind.name.lower()
    value = "nil" if message.value is None else message.value.hex()[:8]
    return f"{kind} {value} at {message.height}/{message.round} ({message.valid_round})"


class Checker:
    """Watches one run."""

    def __init__(self, scenario: Scenario, verify: Callable[[Signed], bool]) -> None:
        count = scenario.validators
        self._quorum = 2 * count // 3 + 1
        self._faults = (count - 1) // 3
        self._verify = verify
        self._signed: dict[tuple[int, int, int, int], Message] = {}
        self._prevoters: defaultdict[tuple[int, int, bytes], set[int]] = defaultdict(set)
        self._locks: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._values: dict[int, bytes] = {}
        self._proposers: dict[int, tuple[int, ...]] = {}
        self._certificates: set[CommitCertificate] = set()
        self._heights: dict[int, int] = {}
        self._round_limits: dict[int, int] | None = None

    def on_sign(self, node: int, message: Message) -> None:
        """A correct node is about to sign."""
        kind = 0 if isinstance(message, Proposal) else int(message.kind)
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
        return len(self._prevoters.get((height, round_number, value), ())) >= self._quorum

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

    def on_decided(self, node: int, decided: Decided, chain: Chain) -> None:
        """A correct node made a block durable; `chain` already holds it."""
        height, value = decided.body.height, decided.body.value
        if height != len(chain.blocks) or self._heights.get(node, 0) >= height:
            raise Violation(f"node {node} appends height {height} out of turn")
        self._heights[node] = height
        if self._values.setdefault(height, value) != value:
            raise Violation(f"node {node} decides {value.hex()[:8]} at {height}: a fork")
        if decided.certificate.value != value or decided.certificate.height != height:
            raise Violation(f"node {node} holds a certificate for another block at {height}")
        self.check_certificate(decided.certificate)
        proposers = chain.proposers(height + 1)
        if self._proposers.setdefault(height + 1, proposers) != proposers:
            raise Violation(f"node {node} has other proposers for height {height + 1}")
        limits = self._round_limits
        if limits is not None and decided.certificate.round > limits.get(height, limits[0]):
            raise Violation(f"height {height} took until round {decided.certificate.round}")

    def check_certificate(self, certificate: CommitCertificate) -> None:
        """Raise Violation unless a quorum of distinct validators precommitted the value."""
        if certificate in self._certificates:
            return
        if not self.is_valid(certificate):
            where = f"{certificate.height}/{certificate.round}"
            raise Violation(f"bad certificate at {where}: {len(certificate.signatures)} signers")
        self._certificates.add(certificate)

    def is_valid(self, certificate: CommitCertificate) -> bool:
        """Whether a certificate proves its decision."""
        indexes = [index for index, _ in certificate.signatures]
        if len(indexes) < self._quorum or indexes != sorted(set(indexes)):
            return False
        height, round_number, value = certificate.height, certificate.round, certificate.value
        return all(
            self._verify(
                Signed(Vote(VoteKind.PRECOMMIT, height, round_number, value, -1, index), signature)
            )
            for index, signature in certificate.signatures
        )

    def after_step(self, node: int, core: Core, chain: Chain) -> None:
        """A correct node finished an input."""
        status = core.status
        if status.height != len(chain.blocks) + 1:
            raise Violation(f"node {node} works at {status.height}, not after its last block")
        rounds = min(status.round + 2, PAST_ROUNDS + 4)
        bound = rounds * (2 + 8 * chain.validators) + 3 * MESSAGES_PER_KIND * chain.validators
        if core.held_messages > bound:
            raise Violation(f"node {node} holds {core.held_messages} messages, bound {bound}")

    def on_faults_end(self, rounds: dict[int, int]) -> None:
        """From now on links are good. `rounds` is the highest round of a correct node, by height.

        A height needs f + 2 rounds after the first whose timeouts exceed 2 * Delta and which all
        correct nodes enter together: one after the round the first of them is in.
        """
        first_good = {height: max(highest + 1, SLOW_ROUND) for height, highest in rounds.items()}
        self._round_limits = {
            0: SLOW_ROUND + self._faults + 2,
            **{height: first + self._faults + 2 for height, first in first_good.items()},
        }

    def round_limit(self, height: int) -> int:
        """The last round in which a height may be decided after the faults ended."""
        limits = self._round_limits or {0: 0}
        return limits.get(height, limits[0])
