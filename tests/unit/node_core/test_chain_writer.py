"""The chain on disk: what recovery makes of every state a crash can leave, and what it refuses."""

from dataclasses import replace

import msgspec
import pytest
import trio

from ledger.block import HEADER
from ledger.codec import encode
from ledger.errors import InvariantError, Reason, Rejected, StoreDamagedError
from ledger.ids import BatchDigest
from ledger.store.blocks import StoredBlock
from ledger.store.memory import MemoryBodies
from ledger.store.port import Place
from node.log_entries import EndedHeight, LoggedBatch, LoggedWork, Memory
from node.synced import FetchedBlock, append_synced
from node.wal import WriteAheadLog
from tests.unit.ledger.worlds import SUITE

from .chains import (
    TIME,
    LocalChain,
    certify,
    facts,
    make_batch,
    make_transaction,
    register,
)
from .memory_network import MemoryNode

NOWHERE = Place(0, 0, 0, 0)


def batch(number):
    return make_batch([make_transaction(register(number), number)], sequence=number)


def store_only(chain, *batches):
    """A block that is durable and not executed: the crash came between."""
    block, certificate = chain.next_block(*batches)
    places = [(one.digest, chain.bodies.append(one.wire)) for one in batches]
    stored = StoredBlock(encode(block), certificate)
    digest = chain.writer.verify_decision(block, certificate).block_hash
    chain.blocks.append(chain.tip.height + 1, digest, stored, places)


def chain_of(count):
    chain = LocalChain()
    for number in range(1, count + 1):
        chain.decide(batch(number))
    return chain


def test_a_block_that_was_stored_is_executed_at_the_start():
    cut, whole = chain_of(2), chain_of(3)
    store_only(cut, batch(3))
    assert cut.tip.height == 2
    cut.restart()
    assert facts(cut) == facts(whole)
    cut.decide(batch(4))
    whole.decide(batch(4))
    assert facts(cut) == facts(whole)


def test_state_without_its_blocks_is_a_broken_promise():
    chain = chain_of(2)
    chain.block_data = LocalChain().block_data
    chain.open()
    with pytest.raises(InvariantError, match="blocks are lost"):
        trio.run(chain.writer.recover, None, lambda _height: None)


def test_a_log_ahead_of_the_blocks_is_a_broken_promise(tmp_path):
    with pytest.raises(InvariantError, match="the log ended height 3"):
        recovered_node(tmp_path, chain_of(2), EndedHeight(3, 0, bytes(32)))


@pytest.mark.parametrize("lost", [2, 3])
def test_state_that_lost_more_than_a_crash_can_take_is_refused(lost):
    """One step behind is a crash; silently executing more would hide that a store lost its end."""
    chain = chain_of(3)
    chain.state_data = chain_of(3 - lost).state_data
    chain.open()
    with pytest.raises(StoreDamagedError, match="state is lost") as stop:
        trio.run(chain.writer.recover, None, lambda _height: None)
    assert (stop.value.store, stop.value.rebuild) == ("state", "state")


def test_a_state_of_another_chain_is_refused():
    chain, other = chain_of(2), LocalChain()
    other.decide(batch(1), time=TIME + 7)
    other.decide(batch(2))
    chain.state_data = other.state_data
    chain.open()
    with pytest.raises(StoreDamagedError, match="does not have"):
        trio.run(chain.writer.recover, None, lambda _height: None)


def recovered_node(tmp_path, chain, *entries):
    """The node that opens these stores and this log, and what its log says after recovery."""
    path = tmp_path / "0.wal"
    writer = WriteAheadLog(path)
    for entry in entries:
        writer.append(entry)
    writer.sync()
    writer.close()

    async def main():
        node = MemoryNode(0, chain, path)
        await node.writer.recover(node.log, node.driver.end_height)
        node.log.sync()
        return node

    node = trio.run(main)
    again = WriteAheadLog(path)
    again.close()
    return node, again.recovered.ended


# A batch number above the clock, from which a node counts otherwise.
NUMBER = 2 * TIME


def test_an_ended_height_that_the_log_lost_is_written_and_its_entries_are_done(tmp_path):
    node, ended = recovered_node(
        tmp_path, chain_of(2), EndedHeight(1, NUMBER, bytes(32)), LoggedWork(2)
    )
    assert node.log.recovered.entries == []
    assert ended == EndedHeight(2, NUMBER, bytes(32))


def test_own_batches_of_a_height_that_recovery_ends_still_count(tmp_path):
    """The next number must be above every number used, also after a second crash."""
    digest = BatchDigest(b"\x07" * 32)
    own, other = LoggedBatch(digest, NOWHERE, NUMBER + 1), LoggedBatch(bytes(32), NOWHERE, -1)
    _, ended = recovered_node(
        tmp_path, chain_of(2), EndedHeight(1, NUMBER, bytes(32)), LoggedWork(2), own, other
    )
    assert ended == EndedHeight(2, NUMBER + 2, digest)


def test_the_first_height_may_end_without_its_mark_in_the_log(tmp_path):
    """A crash came before the first height was ended in the log."""
    digest = BatchDigest(b"\x07" * 32)
    node, ended = recovered_node(
        tmp_path,
        chain_of(1),
        EndedHeight(0, 0, bytes(32)),
        LoggedWork(1),
        LoggedBatch(digest, NOWHERE, NUMBER + 1),
    )
    assert node.log.recovered.entries == []
    assert ended == EndedHeight(1, NUMBER + 2, digest)


@pytest.mark.parametrize(
    ("entries", "memory"), [((), Memory.LOST), ((LoggedWork(2),), Memory.LOST)]
)
def test_a_log_without_a_beginning_beside_a_chain_says_that_memory_is_lost(
    tmp_path, entries, memory
):
    """Nothing is known of what was signed, and nothing may pretend that it is."""
    _, ended = recovered_node(tmp_path, chain_of(1), *entries)
    assert (ended.height, ended.memory) == (1, memory)


def test_a_log_that_is_more_than_one_block_behind_stops_the_node_and_names_the_file(tmp_path):
    chain = chain_of(3)
    with pytest.raises(InvariantError, match=r"0\.wal ended 1 but blocks end at 3.*Move the log"):
        recovered_node(tmp_path, chain, EndedHeight(1, NUMBER, bytes(32)))


class FlippedBodies(MemoryBodies):
    """Bodies on a disk that turned one bit of each."""

    position = 0

    def read(self, place):
        body = bytearray(self._bodies[place.segment])
        body[self.position % len(body)] ^= 1
        self._bodies[place.segment] = bytes(body)
        return super().read(place)


@pytest.mark.parametrize("position", [0, 5, 20, 100, 150, 250, 400, -1])
def test_a_body_that_rotted_is_named_and_never_served(position):
    chain = LocalChain(FlippedBodies())
    chain.decide(batch(1))
    chain.bodies.position = position
    with pytest.raises(InvariantError):
        chain.writer.read_block(1)


def synced(chain, *batches, **changes):
    block, certificate = chain.next_block(*batches)
    return replace(fetched(block, certificate, *batches), **changes)


def fetched(block, certificate, *batches):
    return FetchedBlock(block, HEADER.decode(block.header), certificate, batches)


def take(chain, *items):
    return trio.run(append_synced, chain.writer, items, lambda _height: None)


def test_a_synced_block_is_appended_once():
    chain, twin = LocalChain(), LocalChain()
    item = synced(chain, batch(1))
    assert take(chain, item, item) == 1
    assert take(chain, item) == 0
    twin.decide(batch(1))
    assert facts(chain) == facts(twin)


@pytest.mark.parametrize(
    "changes",
    [
        {"certificate": b""},
        {"certificate": certify(bytes(32), 1)},
        {"batches": ()},
        {"batches": (batch(2),)},
        {"batches": (batch(1), batch(2))},
    ],
)
def test_a_synced_block_that_does_not_fit_is_refused_and_leaves_nothing(changes):
    chain = LocalChain()
    with pytest.raises(Rejected):
        take(chain, synced(chain, batch(1), **changes))
    assert (chain.tip.height, chain.blocks.height) == (0, 0)


@pytest.mark.parametrize(
    "changes", [{"batches": (batch(2).digest,)}, {"batches": ()}, {"certificate": b"\x90"}]
)
def test_what_a_liar_attaches_to_a_decided_header_is_its_fault_and_not_ours(changes):
    """The certificate covers the header alone: digests and old certificate come beside it."""
    chain = LocalChain()
    item = synced(chain, batch(1))
    block = msgspec.structs.replace(item.block, **changes)
    with pytest.raises(Rejected):
        take(chain, replace(item, block=block))
    with pytest.raises(Rejected):
        take(chain, replace(item, block=block, batches=(batch(2),)))
    assert (chain.tip.height, take(chain, item)) == (0, 1)


def test_a_certificate_below_a_quorum_or_of_another_round_is_refused():
    chain = LocalChain()
    block, _ = chain.next_block(batch(1))
    digest = SUITE.digest(b"")
    for certificate in (
        certify(digest, 1, signers=(0, 1)),
        certify(digest, 2),
        certify(digest, 1, signers=(1, 0, 2)),
        certify(digest, 1, signers=(0, 0, 1)),
    ):
        with pytest.raises(Rejected):
            chain.writer.verify_decision(block, certificate)


def test_a_batch_is_ordered_once():
    chain = LocalChain()
    chain.decide(batch(1))
    with pytest.raises(InvariantError, match="ordered before") as stop:
        take(chain, synced(chain, batch(1)))
    assert stop.value.__cause__.reason is Reason.BAD_BLOCK


def test_an_empty_block_without_need_is_refused_until_the_heartbeat():
    chain = LocalChain()
    chain.decide(batch(1))
    chain.decide()  # The block behind transactions may be empty.
    block, certificate = chain.next_block(time=TIME + 59_999)
    with pytest.raises(InvariantError, match="without need"):
        take(chain, fetched(block, certificate))
    block, certificate = chain.next_block(time=chain.tip.time + 60_000)
    assert take(chain, fetched(block, certificate)) == 1


def test_batches_stand_in_one_order_only():
    """The roots are per namespace: without this rule one hash would name two different blocks."""
    registered = make_batch([make_transaction(register(1), 1)], sequence=1)
    other = make_transaction(register(2, 1), 2, module="trial", level=1)
    in_trial = make_batch([other], sequence=2)
    chain = LocalChain()
    block, _ = chain.next_block(registered, in_trial)
    turned, _ = chain.next_block(in_trial, registered)
    header = HEADER.decode(block.header)
    assert turned.header == block.header
    chain.writer.check_block(block, header, (registered, in_trial))
    with pytest.raises(Rejected, match="batches out of order"):
        chain.writer.check_block(turned, header, (in_trial, registered))
    doubled, _ = chain.next_block(registered, registered)
    with pytest.raises(Rejected, match="batches out of order"):
        chain.writer.check_block(doubled, HEADER.decode(doubled.header), (registered, registered))
