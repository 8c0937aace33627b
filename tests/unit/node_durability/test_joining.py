"""Before a node joins from a snapshot: whether it may, and what its log remembers afterwards."""

from dataclasses import replace
from pathlib import Path

import pytest

from ledger.batch import GENESIS_BATCH
from ledger.errors import StoreDamagedError, UnavailableError
from ledger.store.disk import OPERATING_SYSTEM_DISK
from ledger.store.memory import MemoryBodies, MemoryStore
from ledger.store.results import JOINING
from node.config import NodeSection, SyncSection
from node.joining import _move_log, may_join
from node.log_entries import EndedHeight, Memory
from node.ports import Ports
from node.wal import WriteAheadLog
from tests.node_simulation.machine import config_of
from tests.unit.node_core.chains import LocalChain


def ports_of(state):
    return Ports(
        clock=None,
        transport=None,
        state=state,
        blocks=MemoryStore(),
        bodies=MemoryBodies(),
        disk=OPERATING_SYSTEM_DISK,
        usage=None,
        jitter=None,
        random_bytes=None,
    )


@pytest.fixture
def config(tmp_path):
    plain = config_of(0, 4)
    node = NodeSection("node0", Path("key"), tmp_path, Path("genesis"))
    return replace(plain, node=node, sync=SyncSection(snapshot=True))


def ended(path, height, voting_from=0, memory=Memory.COMPLETE):
    log = WriteAheadLog(path / "consensus.wal")
    log.begin(EndedHeight(height, 5, GENESIS_BATCH, voting_from, memory))
    log.close()


def test_a_node_joins_when_it_is_told_to_and_holds_nothing(config):
    assert may_join(config, ports_of(MemoryStore()))
    assert not may_join(replace(config, sync=SyncSection()), ports_of(MemoryStore()))
    assert not may_join(config, ports_of(LocalChain().state_data))


def test_a_join_that_was_begun_goes_on(config, tmp_path):
    state = MemoryStore()
    state.write([(JOINING, b"head"), (b"mkey", b"value")])
    ended(tmp_path, 7)
    assert may_join(config, ports_of(state))


def test_a_state_that_lost_its_tip_is_damaged_and_not_joined(config):
    state = MemoryStore()
    state.write([(b"mkey", b"value")])
    with pytest.raises(StoreDamagedError, match="the tip"):
        may_join(config, ports_of(state))


def test_a_node_whose_log_ended_a_height_is_refused_until_it_is_rebuilt(config, tmp_path):
    ended(tmp_path, 7)
    with pytest.raises(UnavailableError, match=r"ended height 7.*rebuild.*--store blocks"):
        may_join(config, ports_of(MemoryStore()))


@pytest.mark.parametrize(("before", "after"), [(0, 40), (40, 40), (41, 41)])
def test_the_log_ends_the_height_that_was_joined_and_remembers_its_quarantine(
    config, tmp_path, before, after
):
    ended(tmp_path, before, voting_from=55, memory=Memory.LOST)
    _move_log(config, ports_of(MemoryStore()), 40)
    log = WriteAheadLog(tmp_path / "consensus.wal")
    assert log.recovered.ended == EndedHeight(after, 5, GENESIS_BATCH, 55, Memory.LOST)
    log.close()


def test_a_log_without_a_beginning_stays_without(config, tmp_path):
    _move_log(config, ports_of(MemoryStore()), 40)
    log = WriteAheadLog(tmp_path / "consensus.wal")
    assert log.is_blank
    log.close()
