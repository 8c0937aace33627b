"""A slice of ByzzFuzz on every test run; `make twins SECONDS=n` runs as many seeds as fit."""

from consensus.messages import Proposal, Vote, VoteKind
from tests.byzzfuzz import solo
from tests.byzzfuzz.plan import TRICKS, draw
from tests.byzzfuzz.world import HEIGHTS, World, run_seed
from tests.twins.seat import signed

SLICE = 40
SOLOS = 150


def test_no_seed_of_the_slice_breaks_a_promise():
    assert [run_seed(seed) for seed in range(SLICE)] == [""] * SLICE


def test_one_core_keeps_its_rules_whatever_its_peers_say():
    assert [solo.run_seed(seed) for seed in range(SOLOS)] == [""] * SOLOS


def test_the_runs_of_one_core_reach_locks_of_several_rounds():
    runs = [solo.Solo(seed) for seed in range(60)]
    for run in runs:
        run.run()

    assert {run.seat.core.locked[0] for run in runs} >= {-1, 0, 1, 2, 3}
    assert any(run.seat.core.valid[0] > run.seat.core.locked[0] >= 0 for run in runs)


def test_a_run_decides_every_height_and_is_a_function_of_its_seed():
    worlds = [World(draw(3)) for _ in range(2)]
    for world in worlds:
        world.run()

    assert sorted(worlds[0].values) == list(range(1, HEIGHTS + 1))
    assert worlds[0].values == worlds[1].values
    assert (worlds[0].events, worlds[0].now_ms) == (worlds[1].events, worlds[1].now_ms)


def test_the_plans_cover_every_trick_and_kind():
    plans = [draw(seed) for seed in range(200)]
    lies = [lie for plan in plans for lie in plan.lies]

    assert {lie.trick for lie in lies} == set(TRICKS)
    assert {lie.kind for lie in lies} == {0, VoteKind.PREVOTE, VoteKind.PRECOMMIT}
    assert {plan.validators for plan in plans} == {4, 7}
    assert any(plan.cuts for plan in plans)


def test_lies_are_told_to_their_victims_alone():
    plan = next(plan for plan in map(draw, range(200)) if len(plan.lies) > 3)
    world = World(plan)
    lie = plan.lies[0]
    node = world.nodes[plan.byzantine]
    value = b"\1" * 32
    if lie.kind == 0:
        message = Proposal(1, lie.round, value, -1, plan.byzantine)
    else:
        message = Vote(lie.kind, 1, lie.round, value, -1, plan.byzantine)
    bystanders = [
        target
        for target in range(plan.validators)
        if not any(
            target in other.victims
            for other in plan.lies
            if (other.round, other.kind) == (lie.round, lie.kind)
        )
    ]
    assert all(node._lies(target, signed(message)) == [signed(message)] for target in bystanders)
