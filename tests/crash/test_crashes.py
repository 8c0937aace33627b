"""A crash after every disk operation of a node, in every way a disk can lie there, is survived."""

import pytest

from ledger.store import bodies
from node import wal
from tests.crash import mistakes
from tests.crash.machine import record_life
from tests.crash.run import Figures, crash_everywhere


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    """Rotation, new segments and unsynced writes happen in lives of a few blocks."""
    monkeypatch.setattr(wal, "LOG_ROTATE_BYTES", 5_000)
    monkeypatch.setattr(wal, "LOG_BUFFER_BYTES", 1_500)
    monkeypatch.setattr(wal, "LOG_RESERVE_BYTES", 4_096)
    monkeypatch.setattr(bodies, "SEGMENT_BYTES", 3_000)


@pytest.mark.parametrize("seed", range(4))
def test_no_crash_breaks_a_promise(tmp_path, seed):
    figures = Figures()
    for _ in crash_everywhere(record_life(tmp_path, seed), figures):
        assert figures.broken == {}
    assert figures.images > 300


@pytest.mark.parametrize("plant", mistakes.ALL, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_seen(tmp_path, monkeypatch, plant):
    plant(monkeypatch)
    # Which tasks run first is left to chance, so lives of one seed differ as well.
    for seed in (1, 2, 3, 0, *range(4, 32)):
        (tmp_path / str(seed)).mkdir()
        figures = Figures()
        for _ in crash_everywhere(record_life(tmp_path / str(seed), seed), figures):
            if figures.broken:
                return
    pytest.fail("survived")
