"""Proof that each kind of fault bites: a bug that only this fault can find is planted and found.

Every case plants one bug in the durability or the shell of a node. With its fault the bug is found;
without it nothing is, in runs that have every ordinary fault of the network.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from consensus.events import BlockChecked, Verdict
from consensus.proposal_book import ProposalBook
from ledger.state_root import BlockEntry
from tests.simulation import chain, disk, log, quarantine, replica, state
from tests.simulation.scenario import Scenario
from tests.simulation.world import World

SEEDS = 150
"""Of flipped bits one in many matters; the other faults bite in the first few seeds."""
QUIET_SEEDS = 6
BUSY = Scenario(
    seed=0,
    validators=4,
    loss=0.1,
    late=0.1,
    late_mean_ms=2_000,
    partition_every_ms=4_000,
    idle_mean_ms=400,
)
CRASHES = replace(BUSY, crash_every_ms=1_500)
DAMAGE = replace(BUSY, damaged=(2,), damage_every_ms=2_000)
LIES = replace(BUSY, adversaries=(1,))
CHANGES = replace(BUSY, spares=2, change_every_ms=2_000)
CLOCKS = replace(LIES, skewed=0.5, clock_every_ms=1_500, idle_mean_ms=100)


class Unsynced(replica.Replica):
    """Sends what it signed before it is on disk."""

    def make_durable(self, own):
        self.log.append(own, log.VOTE)


class Acknowledging(replica.Replica):
    """Reports blocks that are not durable."""

    def sync_chain(self):
        if self.shared.rng.random() < 0.5:
            super().sync_chain()

    def _report(self):
        durable, self.chain.synced = self.chain.synced, len(self.chain.blocks)
        super()._report()
        self.chain.synced = durable


class Deaf(replica.Replica):
    """Goes on after a failed sync."""

    def make_durable(self, own):
        try:
            super().make_durable(own)
        except OSError:
            return


class Unafraid(replica.Replica):
    """Votes on with a new log as if nothing had happened."""

    def quarantined_until(self):
        return 0


class Impatient(replica.Replica):
    """Is past quarantine at the next height it knows, whoever is ahead."""

    def quarantined_until(self):
        return self.chain.next_height + 1


class Interrupted(replica.Replica):
    """Forgets the timers that were due while it stood still."""

    def on_resume(self, incarnation):
        self.held = [held for held in self.held if held[0] != self.on_timer]
        super().on_resume(incarnation)


class Trusting(replica.Replica):
    """Believes whatever certificate it is given."""

    def proves(self, certificate):
        return True


class Careless(replica.Replica):
    """Calls every block valid."""

    def _judge(self, body, round_number):
        return Verdict.VALID


class Bodiless(replica.Replica):
    """Judges a block that never came."""

    def _check(self, request):
        if request.value in self.bodies:
            super()._check(request)
        else:
            self._later(1, 20, self.on_blind, request)

    def on_blind(self, payload):
        incarnation, asked = payload
        if (incarnation, asked.height) == (self.incarnation, self.height) and self.is_up:
            self.feed(BlockChecked(asked.height, asked.round, asked.value, Verdict.VALID))


class Timeless(replica.Replica):
    """Finds every time of a block right."""

    def _is_timely(self, body, round_number):
        return True


class Unexecuting(replica.Replica):
    """Starts with the state it finds, whatever block it is of."""

    def _recover(self):
        chain = self.chain
        before, chain.state.height = chain.state.height, len(chain.blocks)
        super()._recover()
        if not chain.blocks:
            chain.state.height = before


class Hasty(replica.Replica):
    """Counts the quorum of the set to come for the height of the one before."""

    def _start_of_height(self):
        start = super()._start_of_height()
        count = len(self.next_members)
        is_possible = all(index < count for index in (*start.proposers, start.me or 0))
        return replace(start, validator_count=count) if is_possible else start


def accept_timely_only(book, round_number, value, verdict):
    """Asks for timeliness again where a quorum has already prevoted (cometbft #2221)."""
    book._verdicts[round_number, value] = verdict
    if verdict is Verdict.VALID:
        book._acceptable.add(value)


@dataclass(frozen=True)
class Case:
    """A fault, a bug that it finds, and how."""

    name: str
    faults: Scenario
    found: str
    quiet: Scenario = BUSY
    node: type[replica.Replica] = replica.Replica
    patch: tuple[Any, str, Any] | None = None


SHELL = (
    Case("a vote is sent before it is synced", CRASHES, "signs twice", node=Unsynced),
    Case("a block is reported before it is", CRASHES, "reported block", node=Acknowledging),
    Case(
        "a folder is not synced after a rename",
        CRASHES,
        "lost its log",
        patch=(disk.SimulatedDisk, "sync_folder", lambda _disk, _folder: None),
    ),
    Case(
        "a log that a crash tore is taken for lost history",
        CRASHES,
        "lost its log",
        patch=(log, "is_lost", lambda behind, _end: bool(behind)),
    ),
    Case(
        "a failed sync is ignored",
        replace(CRASHES, disk_every_ms=2_000),
        "signs twice",
        quiet=CRASHES,
        node=Deaf,
    ),
    Case(
        "a log is cut off at the first damage, whatever stands behind it",
        DAMAGE,
        "node 2 ",
        quiet=CRASHES,
        patch=(log, "_search", lambda _data, _damaged: iter(())),
    ),
    Case("a lost log leads to no quarantine", DAMAGE, "signs twice", CRASHES, Unafraid),
    Case("an old backup leaves quarantine too early", DAMAGE, "signs twice", CRASHES, Impatient),
    Case(
        "quarantine ends one height too early",
        replace(DAMAGE, partition_every_ms=1_500, loss=0.2, late=0.2, idle_mean_ms=10),
        "signs twice",
        patch=(quarantine, "MARGIN", quarantine.MARGIN - 1),
    ),
    Case(
        "timers that a pause delayed are lost",
        replace(BUSY, pause_every_ms=1_500),
        "",
        node=Interrupted,
    ),
    Case("a lying peer is believed", LIES, "bad certificate", CRASHES, Trusting),
    Case("an invalid block is voted for", LIES, "", CRASHES, Careless),
    Case("a withheld block is voted for", LIES, "KeyError", CRASHES, Bodiless),
    Case("a block from the future is voted for", LIES, "ahead of all clocks", CRASHES, Timeless),
    Case(
        "timeliness is asked for at the precommit",
        CLOCKS,
        "found no decision",
        quiet=LIES,
        patch=(ProposalBook, "accept", accept_timely_only),
    ),
    Case(
        "members that nobody voted for",
        LIES,
        "nobody voted for",
        quiet=CRASHES,
        patch=(chain.Chain, "_allows", lambda _chain, _change: True),
    ),
    Case("a quorum of the set to come", replace(CHANGES, validators=7), "", node=Hasty),
    Case(
        "a wrong state root is voted for",
        LIES,
        "commits to another state",
        quiet=CRASHES,
        patch=(chain.Chain, "_has_root", lambda _chain, _root: True),
    ),
    Case("a block that a crash left unexecuted stays so", CRASHES, "", node=Unexecuting),
    Case(
        "demotions are not carried over by identity",
        CHANGES,
        "lost no round",
        patch=(chain, "carried", lambda demotions, _before, _after: demotions),
    ),
)


def show_the_newest(shown):
    """Proves the newest height, whichever was asked for."""
    return lambda held, _height, *question: shown(held, held.height, *question)


def omit_a_transaction(_state, height, item, value):
    """Leaves one transaction out of what the log of the namespace's blocks says."""
    return BlockEntry(height, item.entries, value, item.entries + 1, value)


def omit_empty_logs(touched):
    """Leaves a block out of the log when it appended nothing else."""
    return lambda nonce: [item for item in touched(nonce) if item.entries]


STATE = (
    (state.State, "show", show_the_newest(state.State.show), "shows a wrong state"),
    (state.State, "block_entry", omit_a_transaction, "executes another state"),
    (state, "touched_by", omit_empty_logs(state.touched_by), "executes another state"),
)


def violations(scenario, node, seeds):
    """What is found, from the scenario's own seed on."""
    for seed in range(scenario.seed, scenario.seed + seeds):
        violation = World(replace(scenario, seed=seed), node).run().violation
        if violation:
            yield violation


@pytest.mark.parametrize("case", SHELL, ids=lambda case: case.name.replace(" ", "-"))
def test_a_planted_bug_is_found_by_its_fault_and_by_nothing_else(case, monkeypatch):
    if case.patch is not None:
        monkeypatch.setattr(*case.patch)

    assert case.found in next(violations(case.faults, case.node, SEEDS))
    assert list(violations(case.quiet, case.node, QUIET_SEEDS)) == []


@pytest.mark.parametrize(("owner", "name", "planted", "found"), STATE)
def test_a_wrong_state_is_found(owner, name, planted, found, monkeypatch):
    monkeypatch.setattr(owner, name, planted)

    assert found in next(violations(BUSY, replica.Replica, QUIET_SEEDS))


@pytest.mark.parametrize(
    "faults", list(dict.fromkeys(case.faults for case in SHELL)), ids=lambda _: "faults"
)
def test_without_a_bug_the_same_faults_find_nothing(faults):
    assert list(violations(faults, replica.Replica, QUIET_SEEDS)) == []
