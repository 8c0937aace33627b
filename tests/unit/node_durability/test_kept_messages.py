"""A driver on a log that kept an own message without its reasons: it stands by what it said."""

import pytest
import trio
from trio.testing import MockClock

from consensus.messages import Signed, Vote, VoteKind
from ledger.codec import encode
from ledger.ids import BlockHash, Height, Round, ValidatorIndex
from node import wire
from node.log_entries import EndedHeight, LoggedVote, LoggedWork, entries_of
from node.log_records import HEAD_BYTES
from node.signer import DoubleSignError, Position, position_of
from node.wal import WriteAheadLog
from p2p.frames import FrameKind
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import CHAIN, LocalChain, make_transaction, register, secret_of
from tests.unit.node_core.memory_network import MemoryNode, running, until

A, B = BlockHash(b"\x0a" * 32), BlockHash(b"\x0b" * 32)


def vote(sender, round_number, value=None, kind=VoteKind.PREVOTE, *, signer=None):
    message = Vote(kind, Height(1), Round(round_number), value, -1, ValidatorIndex(sender))
    secret = secret_of(sender if signer is None else signer)
    return Signed(message, SUITE.sign(secret, wire.digest_of(message, CHAIN)))


def logged(signed, *, own):
    return LoggedVote(encode(wire.vote_message(signed.message, signed.signature)), own)


def damaged_log(path, own, inputs):
    """A bit flips in the first of the inputs, which were synced together with the own vote."""
    log = WriteAheadLog(path)
    log.begin(EndedHeight(0, 7, bytes(32)))
    for entry in [*inputs, logged(own, own=True)]:
        log.append(entry)
    log.sync()
    log.close()
    data = bytearray(path.read_bytes())
    first = next(behind for behind, _ in entries_of(bytes(data)))
    data[first + HEAD_BYTES] ^= 0x01
    path.write_bytes(data)


def skipped_to(round_number):
    """Why a node would be in a later round: others are there."""
    return [logged(vote(sender, round_number), own=False) for sender in (1, 2)]


def play(main):
    trio.run(main, clock=MockClock(autojump_threshold=0))


def positions(node):
    """Where this node sent votes of its own."""
    return [
        position_of(wire.signed_vote(wire.VOTE.decode(payload)).message)
        for payload in node.of_kind(FrameKind.VOTE)
    ]


@pytest.mark.parametrize("life", [1, 2])
@pytest.mark.parametrize("round_number", [0, 1, 5])
def test_the_signer_refuses_another_vote_where_a_kept_one_stands(tmp_path, round_number, life):
    path = tmp_path / "0.wal"
    own = vote(0, round_number, A)
    damaged_log(path, own, [LoggedWork(1), *skipped_to(round_number)])
    for _ in range(life - 1):
        WriteAheadLog(path).close()

    async def main():
        node = MemoryNode(0, LocalChain(), path)
        signer = node.driver._signer
        assert signer.last == position_of(own.message)
        with pytest.raises(DoubleSignError):
            signer.sign(vote(0, round_number, B).message, pytest.fail)
        assert signer.sign(own.message, pytest.fail) == own
        node.log.close()

    play(main)


@pytest.mark.parametrize("round_number", [0, 1, 5])
def test_a_node_that_kept_a_vote_is_silent_where_it_may_not_speak_and_decides(
    tmp_path, round_number
):
    """It must not ask for a vote of an earlier round either: the signer would stop the node."""
    path = tmp_path / "0.wal"
    own = vote(0, round_number)
    damaged_log(path, own, [LoggedWork(1), *skipped_to(round_number)])

    async def main():
        nodes = [MemoryNode(n, LocalChain(), tmp_path / f"{n}.wal") for n in range(4)]
        async with trio.open_nursery() as nursery:
            await nursery.start(nodes[0].run)
            await nodes[0].hear_everybody()
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        assert all(place > position_of(own.message) for place in positions(nodes[0]))

        nodes[0] = MemoryNode(0, LocalChain(), path)
        async with running(*nodes):
            nodes[1].admit([make_transaction(register(1), 1, is_signed=True)])
            await until(lambda: all(node.height >= 1 for node in nodes))
        assert all(place > position_of(own.message) for place in positions(nodes[0]))

    play(main)


def test_a_kept_precommit_locks_the_core(tmp_path):
    path = tmp_path / "0.wal"
    damaged_log(path, vote(0, 3, A, VoteKind.PRECOMMIT), skipped_to(3))

    async def main():
        node = MemoryNode(0, LocalChain(), path)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            await node.hear_everybody()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert (node.driver.core.locked, node.driver.core.status.round) == ((3, A), 3)

    play(main)


@pytest.mark.parametrize("sender", [0, 1])
def test_what_our_key_did_not_sign_is_not_ours_even_if_the_log_says_so(tmp_path, sender):
    """A peer can write a whole record into a block; damage in front of it could uncover it."""
    path = tmp_path / "0.wal"
    damaged_log(path, vote(sender, 9, A, signer=1), [LoggedWork(1)])

    async def main():
        node = MemoryNode(0, LocalChain(), path)
        assert node.driver._signer.last == Position(0, 0, 0)
        assert node.log.recovered.entries == []
        node.log.close()

    play(main)
