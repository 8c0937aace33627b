"""Proof that each kind of fault bites: a bug that only this fault can find is planted and found.

Every case names the fault, plants one bug in the durability or the shell of a node, and gives the
scenario. The same bug with that fault switched off is not found: so it was this fault that found it.
"""

from dataclasses import replace

from tests.simulation import log, replica
from tests.simulation.log import Logged
from tests.simulation.scenario import Scenario
from tests.simulation.world import World

SEEDS = 150
BUSY = Scenario(
    seed=0,
    validators=4,
    loss=0.1,
    late=0.1,
    late_mean_ms=2_000,
    partition_every_ms=4_000,
    idle_mean_ms=400,
)


def first_violation(scenario, make_node=replica.Replica, seeds=SEEDS):
    """What the first seed that finds anything finds, or nothing."""
    for seed in range(seeds):
        violation = World(replace(scenario, seed=seed), make_node).run().violation
        if violation:
            return violation
    return ""


def quiet_run(scenario, make_node=replica.Replica, seeds=12):
    return first_violation(scenario, make_node, seeds)


class Unsynced(replica.Replica):
    """Sends what it signed before it is on disk."""

    def make_durable(self, own: Logged):
        self.log.append(own, log.VOTE)


class Acknowledging(replica.Replica):
    """Reports blocks that are not durable."""

    def sync_chain(self):
        if self.shared.rng.random() < 0.5:
            super().sync_chain()

    def _report(self):
        self.chain.synced, kept = len(self.chain.blocks), self.chain.synced
        super()._report()
        self.chain.synced = kept


class Unafraid(replica.Replica):
    """Votes on with a new log as if nothing had happened."""

    def quarantined_until(self):
        return 0


class Impatient(replica.Replica):
    """Leaves quarantine at the next height, whoever is ahead."""

    def quarantined_until(self):
        return self.chain.next_height + 1


class Hasty(replica.Replica):
    """Counts the quorum of the set that is to come."""

    def ruling_members(self, height):
        known = len(self.chain.blocks) + 2
        return self.chain.members(min(height + 1, known))


class Trusting(replica.Replica):
    """Believes whatever a peer serves."""

    def proves(self, certificate):
        return True


def test_a_power_cut_finds_a_vote_that_was_sent_before_it_was_synced():
    assert "signs twice" in first_violation(replace(BUSY, crash_every_ms=1_500), Unsynced)
    assert quiet_run(BUSY, Unsynced) == ""
