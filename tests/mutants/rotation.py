"""Chains of proposers with no network: who proposes when some are dead for a while.

A seed draws the size, who is dead when, and plays blocks: a round is lost for each dead proposer,
the living precommit. What the demotion list promises is checked from outside: a dead proposer
costs no more than its turns before the list rules plus its paroles, nobody who never failed is
demoted, at most f are excluded, and who lives again proposes again.
"""

import random

from consensus.proposer import eligible, next_demotions
from ledger.ids import Height, Round
from tests.twins.oracle import Violation

BLOCKS = 700
TURNS = 6
"""Rounds that one death may cost."""


def run_seed(seed: int) -> str:
    """What is wrong with the chain of a seed: "" for nothing."""
    try:
        _play(random.Random(seed))
    except Violation as found:
        return str(found)
    return ""


def _play(rng: random.Random) -> None:
    count = rng.choice((4, 7, 10, 13))
    faults = (count - 1) // 3
    # (first height, who is dead from there on); in the end everybody lives.
    ages = [
        (1 + rng.randint(20, 60) * number, set(rng.sample(range(count), rng.randint(0, faults))))
        for number in range(rng.randint(1, 6))
    ] + [(BLOCKS // 2, set())]
    may_fail = set().union(*(dead for _, dead in ages))
    turns_lost, proposed_late = 0, set()
    ruling, newest = (), ()  # D(height - 1) and D(height)
    for height in range(1, BLOCKS):
        dead = max(
            (age for age in ages if age[0] <= height), key=lambda age: age[0], default=(0, set())
        )[1]
        proposers = eligible(count, ruling, Height(height))
        if len(proposers) < count - faults:
            raise Violation(f"{count - len(proposers)} of {count} are excluded at {height}")
        round_number = 0
        while proposers[(height + round_number) % len(proposers)] in dead:
            round_number += 1
        turns_lost += round_number
        if height >= BLOCKS - 3 * count:
            proposed_late.add(proposers[height % len(proposers)])
        demotions = next_demotions(
            newest,
            height=height,
            round_number=Round(round_number),
            voters=[node for node in range(count) if node not in dead],
            proposers=proposers,
            validator_count=count,
        )
        ruling, newest = newest, demotions
        wrongly = {entry.validator for entry in newest} - may_fail
        if wrongly:
            raise Violation(f"{sorted(wrongly)} never failed and are demoted at {height}")
    # Two turns at most come before the first list rules; each parole costs one more.
    deaths = sum(len(dead) for _, dead in ages)
    if turns_lost > TURNS * deaths:
        raise Violation(f"{deaths} deaths cost {turns_lost} rounds")
    if proposed_late != set(range(count)):
        raise Violation(f"{sorted(set(range(count)) - proposed_late)} live and propose no more")
