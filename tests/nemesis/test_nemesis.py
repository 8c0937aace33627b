"""Real nodes under kills and trouble, and the harness itself: it must see what it is there to see.

Slices of `make kill9` and `make soak`.
"""

import shutil
import subprocess
import sys

import pytest

from ledger.codec import encode
from node.log_entries import LoggedVote
from node.wal import WriteAheadLog
from node.wire import VoteMessage

from .audit import Executed, compare
from .clients import Account
from .cluster import Node, Violation
from .evidence import Evidence
from .kill9 import Run
from .launcher import POINTS, find
from .measures import slope
from .soak import Soak

BLOCK, OTHER = b"\1" * 32, b"\2" * 32


def test_nodes_that_die_at_points_and_at_random_lose_nothing_and_never_sign_twice():
    run = Run(seed=20_260_601, rate=40.0)
    run.kill(25)
    assert run.violation is None, f"{run.violation}; kept in {run.folder}"
    assert run.tally.acknowledged > 100
    assert run.tally.heights > 5


def test_a_planted_mistake_of_durability_is_seen():
    run = Run(seed=3, rate=40.0, bug="stores_behind")
    run.kill(40)
    assert run.violation is not None
    assert (run.folder / "violation.txt").read_text().startswith(run.violation)
    shutil.rmtree(run.folder)


def test_a_network_in_trouble_ends_in_one_state_with_everything_acknowledged():
    soak = Soak(seed=20_260_601, rate=60.0, interval_s=4.0)
    soak.run(0.6)
    assert soak.violation is None, f"{soak.violation}; kept in {soak.folder}"
    assert soak.troubles.total() >= 8
    assert soak.transactions > 100


@pytest.mark.parametrize("name", POINTS)
def test_every_point_of_death_is_a_function_of_the_product(name):
    assert callable(find(POINTS[name].target)[2])


def test_every_mistake_can_be_planted():
    program = "from tests.nemesis.mistakes import BUGS\nfor bug in BUGS.values(): bug()"
    subprocess.run([sys.executable, "-c", program], check=True)


# ---- what the checks see ----------------------------------------------------------------------


@pytest.fixture
def node(tmp_path):
    (tmp_path / "data").mkdir()
    return Node("node0", tmp_path, 1, 2, "kn1")


def write_votes(path, *values):
    log = WriteAheadLog(path)
    for value in values:
        vote = VoteMessage(1, 7, 0, value, -1, 2, bytes(64))
        log.append(LoggedVote(encode(vote), own=False))
    log.sync()
    log.close()


def test_two_votes_of_one_validator_are_seen_across_a_rotation(node):
    evidence = Evidence()
    path = node.data / "consensus.wal"
    write_votes(path, BLOCK)
    evidence.gather([node])
    fresh = node.data / "consensus.new"
    write_votes(fresh, BLOCK, None)
    fresh.replace(path)
    with pytest.raises(Violation, match="double sign: validator 2 at height 7"):
        evidence.gather([node])
    evidence.close()


def test_a_vote_in_a_kept_log_counts_and_the_log_goes(node):
    evidence = Evidence()
    write_votes(node.data / "consensus.wal", BLOCK)
    node.kept.mkdir()
    write_votes(node.kept / "1.wal", OTHER)
    with pytest.raises(Violation, match="double sign"):
        evidence.gather([node])
    evidence.close()


def test_a_torn_end_of_a_log_waits_for_its_rest(node):
    evidence = Evidence()
    path = node.data / "consensus.wal"
    write_votes(path, BLOCK, BLOCK)
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    evidence.gather([node])
    with path.open("ab") as log:
        log.write(data[-5:])
    evidence.gather([node])
    assert evidence.votes == {(2, 7, 0, 1): (BLOCK, -1)}
    evidence.close()


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"a": (5, "OK")}, "lost: a"),
        ({"b": (5, "OK")}, "b was acknowledged as"),
        ({"c": (7, "REVERTED")}, "c was acknowledged as"),
    ],
)
def test_an_acknowledgement_that_is_not_true_is_seen(told, found):
    executed = Executed({"b": (6, "OK"), "c": (7, "OK")}, {"b", "c"})
    account = Account(dict.fromkeys("abc"), told)
    with pytest.raises(Violation, match=found):
        compare(executed, account)


def test_what_nobody_sent_and_what_was_refused_is_seen_in_a_block():
    executed = Executed({}, {"a"})
    with pytest.raises(Violation, match="nobody sent"):
        compare(executed, Account())
    with pytest.raises(Violation, match="refused and yet ordered"):
        compare(executed, Account({"a": None}, {}, {"a": "bad_signature"}))


def test_the_slope_of_memory_does_not_mind_that_a_new_process_begins_lower():
    first = [(float(x), 50.0 + x / 3_600) for x in range(0, 600, 10)]
    second = [(float(x), 40.0 + x / 3_600) for x in range(600, 1_200, 10)]
    assert slope([first, second]) == pytest.approx(1.0)
    assert slope([first[:1]]) is None
