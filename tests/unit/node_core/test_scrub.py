"""The scrub finds every record that is not what headers commit to, and nothing else."""

import functools

import pytest
import trio
from trio.testing import MockClock

from ledger.codec import encode
from ledger.errors import KanglianError, StoreDamagedError, UnavailableError
from ledger.limits import REPLAY_WINDOW_MS
from ledger.store.port import Place
from ledger.store.results import StateStore
from ledger.transaction import Call
from node.limits import SCRUB_CYCLE_MS
from node.metrics import Metrics
from node.scrub import Scrub
from node.scrub_task import ScrubTask
from node.stages import StageClock
from tests.unit.ledger.worlds import SUITE

from .chains import (
    ADMIN,
    CHAIN,
    STRANGER,
    TIME,
    VALIDATORS,
    LocalChain,
    make_batch,
    make_transaction,
    register,
)

ADD = Call("accounts", "add_account", encode((STRANGER.address, "member")))


def supersede(first, kind=2, registration=None):
    return Call("data_index", "supersede", encode((first.id, 0, kind, registration)))


def busy_chain():
    """Every kind of record: logs, maps written twice, envelopes, refusals, duplicates, silence."""
    chain = LocalChain()
    first = make_transaction(register(1), 1)
    short = make_transaction(register(6), 6, valid_until=TIME + 90)
    chain.run(first, short)
    envelope = make_transaction((register(2), Call("data_index", "register", b""), register(3)), 2)
    chain.run(make_transaction(ADD, 3, by=ADMIN, module="system"), envelope)
    chain.run(first, make_transaction(supersede(first), 4), make_transaction(register(4, 1), 5))
    chain.decide()
    chain.decide(
        make_batch([make_transaction(register(7, 2), 7, level=2)], sequence=70),
        make_batch([make_transaction(register(8), 8), short], sequence=71),
        time=TIME + 20_000,
    )
    return chain


def scrub_of(chain):
    return Scrub(CHAIN, chain.blocks, chain.state, lambda _height: VALIDATORS)


def scrub_all(chain):
    """Open everything anew, as a node does, and check every height; how many slices it took."""
    chain.restart()
    scrub = scrub_of(chain)
    return sum(1 for height in range(scrub.height + 1) for _ in scrub.check(height))


def test_a_whole_store_is_found_whole():
    assert scrub_all(busy_chain()) > 20


def test_a_chain_that_outlived_its_replay_window_is_found_whole():
    chain = busy_chain()
    for number in range(20, 24):
        moment = TIME + number * REPLAY_WINDOW_MS
        chain.run(make_transaction(register(number), number, valid_until=moment), time=moment)
    assert scrub_all(chain) > chain.tip.height


def changes(store):
    """Every single way to lose or to change a record of a store in memory: name, undo."""
    for key, value in list(store.scan(b"", b"\xff" * 80, reverse=False)):
        yield f"{key!r} is gone", key, value, None
        for position in {0, len(value) // 2, len(value) - 1} if value else ():
            flipped = bytearray(value)
            flipped[position] ^= 0x01
            yield f"{key!r} has byte {position} flipped", key, value, bytes(flipped)


@pytest.mark.parametrize("name", ["block_data", "state_data"])
def test_every_record_that_is_lost_or_changed_is_found(name):
    """But for the count of operations, the last byte of the tip: no root covers what is counted."""
    chain = busy_chain()
    store = getattr(chain, name)
    missed, found = [], 0
    for what, key, value, changed in changes(store):
        store.write([(key, changed)])
        try:
            scrub_all(chain)
        except KanglianError:
            found += 1
        else:
            missed.append(what)
        store.write([(key, value)])
    scrub_all(chain)
    last = len(chain.state_data.get(b"t")) - 1
    assert missed == ([f"b't' has byte {last} flipped"] if name == "state_data" else [])
    assert found > 50


def test_a_body_that_is_another_batch_is_found():
    """Its checksum is right: somebody wrote the wrong one."""
    chain = busy_chain()
    digest = make_batch([make_transaction(register(7, 2), 7, level=2)], sequence=70).digest
    other = make_batch([make_transaction(register(9), 9)], sequence=9)
    chain.block_data.write([(b"b" + digest, encode(chain.bodies.append(other.wire)))])
    with pytest.raises(StoreDamagedError, match="another batch") as stop:
        scrub_all(chain)
    assert (stop.value.store, stop.value.rebuild) == ("bodies", "blocks")


def test_a_body_that_is_cut_off_is_named_with_its_place():
    chain = busy_chain()
    digest = make_batch([make_transaction(register(7, 2), 7, level=2)], sequence=70).digest
    chain.block_data.write([(b"b" + digest, encode(Place(0, 0, 10, 1)))])
    with pytest.raises(StoreDamagedError, match=r"segment 0, byte 0: .* cut off or rotten"):
        scrub_all(chain)


class SetClock:
    def __init__(self):
        self.ms = 0

    def now_ms(self):
        return self.ms


def test_a_running_scrub_reads_what_the_clock_says_and_each_height_once_a_cycle():
    chain = LocalChain()
    for number in range(1, 10):
        chain.run(make_transaction(register(number), number))
    clock, scrub = SetClock(), scrub_of(chain)
    task, seen = ScrubTask(scrub, clock, Metrics(StageClock())), []
    check = scrub.check

    def noted(height):
        seen.append(height)
        return check(height)

    scrub.check = noted

    async def main():
        with trio.move_on_after(3_600):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(task.run)
                while clock.ms < 2 * SCRUB_CYCLE_MS:
                    clock.ms += SCRUB_CYCLE_MS // 100
                    await trio.sleep(10)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert seen == [*range(10), *range(10), 0]


def test_a_running_scrub_ends_with_the_name_of_the_damage():
    chain = busy_chain()
    clock, scrub = SetClock(), scrub_of(chain)
    chain.state_data.write([(b"r" + (1).to_bytes(8, "big"), None)])
    clock.ms = SCRUB_CYCLE_MS // 5
    run = functools.partial(ScrubTask(scrub, clock, Metrics(StageClock())).run)
    with pytest.raises(StoreDamagedError, match="height 1: receipts are not those"):
        trio.run(run, clock=MockClock(autojump_threshold=0))


def test_receipts_are_hashed_in_slices_that_are_subtrees():
    from ledger.merkle import root_of_entries
    from node.limits import SCRUB_HASHES

    assert SCRUB_HASHES.bit_count() == 1
    chain = LocalChain()
    scrub = scrub_of(chain)
    for count in (0, 1, SCRUB_HASHES, SCRUB_HASHES + 1, 3 * SCRUB_HASHES - 1):
        entries, found = [b"%d" % number for number in range(count)], []

        def rooted(entries=entries, found=found):
            found.append((yield from scrub._root(b"tag", entries)))

        assert len(list(rooted())) == -(-count // SCRUB_HASHES)
        assert found == [root_of_entries(SUITE.digest, [b"tag" + entry for entry in entries])]


@pytest.mark.parametrize("number", [None, b"1", b"4"])
def test_a_state_store_of_another_format_is_named_and_not_read(number):
    store = busy_chain().state_data
    store.write([(b"v", number)])
    with pytest.raises(UnavailableError, match=f"format {(number or b'1').decode()}, and this"):
        StateStore(store)


def test_logs_longer_than_a_slice_are_checked_in_parts(monkeypatch):
    monkeypatch.setattr("node.scrub.SCRUB_HASHES", 1)
    chain = busy_chain()
    heights = range(chain.state.tip.height + 1)
    logs = [where for height in heights for where in chain.state.writes(height).logs]
    assert max(len(chain.state.log_write(*where).entries) for where in logs) > 1
    scrub_all(chain)
