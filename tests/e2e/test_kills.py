"""kill -9 at any moment: the chain goes on, nothing acknowledged is lost, nothing runs twice."""

import random
import time

import pytest

from .checks import check_clean_logs, check_nothing_lost
from .load import Load
from .running import RealNetwork

KILLS = 15
SEED = 20_260_601


@pytest.fixture
def network(tmp_path):
    with RealNetwork(tmp_path, 4) as one:
        one.connected(*one.names)
        yield one


def test_random_kills_of_single_nodes_under_load_lose_nothing(network):
    generator = random.Random(SEED)
    with Load(network) as load:
        for _ in range(KILLS):
            time.sleep(generator.uniform(0.05, 0.6))
            victim = generator.choice(network.names)
            network.kill(victim)
            time.sleep(generator.uniform(0.0, 0.4))
            network.start(victim)
        load.stop()
    check_nothing_lost(network, load)
    check_clean_logs(network)
    assert len(load.acknowledged) > 200


def test_all_nodes_killed_at_once_under_load_go_on_after_a_restart(network):
    with Load(network) as load:
        for _ in range(3):
            time.sleep(1.0)
            network.kill(*network.names)
            network.start(*network.names)
        load.stop()
    check_nothing_lost(network, load)
    check_clean_logs(network)
    assert network.register(1)["status"] == "OK"
