"""The network over memory streams and a jumping clock: who is linked to whom, and when."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from ledger.errors import InvariantError, PeerProtocolError, UnavailableError
from p2p.frames import FrameKind
from p2p.hello import CertificateIdentity
from p2p.network import HALF_OPEN_LINKS
from p2p.peer import Direction, PeerInfo
from p2p.scoring import Standing
from tests.unit.p2p.memory_transport import (
    MemoryNode,
    MemoryTransport,
    MemoryWorld,
    TestNode,
    memory_node,
)

ALICE, BOB, CAROL = TestNode(1), TestNode(2), TestNode(3)
VOTE = FrameKind.VOTE


def simulate(main) -> None:
    async def bounded() -> None:
        with trio.fail_after(10_000):
            await main()

    trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))


@asynccontextmanager
async def running(*nodes: MemoryNode):
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.network.run)
        yield nursery
        nursery.cancel_scope.cancel()


def pair(world: MemoryWorld) -> tuple[MemoryNode, MemoryNode]:
    """Alice dials Bob, who waits."""
    return memory_node(world, ALICE, dials=(BOB,)), memory_node(world, BOB, allowed=(ALICE,))


def test_two_nodes_meet_and_exchange_messages() -> None:
    async def main() -> None:
        alice, bob = pair(MemoryWorld())
        async with running(bob, alice):
            await alice.handler.until(lambda handler: handler.connected == [BOB.address])
            await bob.handler.until(lambda handler: handler.connected == [ALICE.address])
            assert alice.network.send(BOB.address, VOTE, b"from alice")
            assert bob.network.send(ALICE.address, FrameKind.STATUS, b"from bob")
            await bob.handler.until(lambda handler: handler.frames)
            await alice.handler.until(lambda handler: handler.frames)
        assert bob.handler.frames == [(ALICE.address, (VOTE, b"from alice"))]
        assert alice.handler.frames == [(BOB.address, (FrameKind.STATUS, b"from bob"))]
        assert alice.handler.disconnected == [BOB.address]

    simulate(main)


def test_a_link_is_described_for_operators() -> None:
    async def main() -> None:
        alice, bob = pair(MemoryWorld())
        async with running(bob, alice):
            await alice.handler.until(lambda handler: handler.connected)
            await trio.sleep(0.1)
            assert alice.network.peers == (
                PeerInfo(
                    address=BOB.address,
                    role="master",
                    host="node 2",
                    port=1,
                    direction=Direction.OUTBOUND,
                    connected_since_ms=1_700_000_000_000,
                    sent_bytes=26,  # a ping and a pong
                    received_bytes=26,
                    dropped_frames=0,
                    throttled_ms=0,
                    certificate_expires_ms=None,
                    round_trip_ms=0,
                ),
            )
        assert alice.network.peers == ()

    simulate(main)


def test_a_broadcast_reaches_every_linked_node() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice = memory_node(world, ALICE, dials=(BOB, CAROL))
        bob, carol = (memory_node(world, node, allowed=(ALICE,)) for node in (BOB, CAROL))
        async with running(bob, carol, alice):
            await alice.handler.until(lambda handler: len(handler.links) == 2)
            assert alice.network.broadcast(VOTE, b"to all") == 2
            for node in (bob, carol):
                await node.handler.until(lambda handler: handler.frames)
                assert node.handler.frames == [(ALICE.address, (VOTE, b"to all"))]
        assert [info.address for info in alice.network.peers] == []

    simulate(main)


def test_sending_to_an_unknown_node_is_a_plain_no() -> None:
    async def main() -> None:
        alice, _ = pair(MemoryWorld())
        async with running(alice):
            assert not alice.network.send(BOB.address, VOTE, b"")
            assert alice.network.broadcast(VOTE, b"") == 0

    simulate(main)


def mutual(world: MemoryWorld) -> tuple[MemoryNode, MemoryNode]:
    return memory_node(world, ALICE, dials=(BOB,)), memory_node(world, BOB, dials=(ALICE,))


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_links_the_one_dialled_by_the_smaller_address_stays(first) -> None:
    async def main() -> None:
        nodes = mutual(MemoryWorld())
        async with trio.open_nursery() as nursery:
            # Both dial before either hello is done.
            nursery.start_soon(nodes[first].network.run)
            nursery.start_soon(nodes[1 - first].network.run)
            await trio.sleep(5)
            alice, bob = nodes
            assert [info.direction for info in alice.network.peers] == [Direction.OUTBOUND]
            assert [info.direction for info in bob.network.peers] == [Direction.INBOUND]
            for node in nodes:
                handler = node.handler
                assert len(handler.connected) == len(handler.disconnected) + 1 <= 2
            assert bob.network.send(ALICE.address, VOTE, b"still here")
            await alice.handler.until(lambda handler: handler.frames)
            nursery.cancel_scope.cancel()

    simulate(main)


def test_a_second_dial_from_the_larger_address_is_turned_away() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice, bob = pair(world)
        async with running(bob, alice):
            await alice.handler.until(lambda handler: handler.connected)
            again = memory_node(world, BOB, dials=(ALICE,))
            world.listeners.pop(("node 2", 1))
            async with running(again):
                await trio.sleep(3)
                assert alice.handler.connected == [BOB.address]
                assert alice.handler.disconnected == []
                assert bob.handler.disconnected == []

    simulate(main)


def test_a_second_dial_from_the_same_side_replaces_the_first() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice, bob = pair(world)
        async with running(bob, alice):
            await bob.handler.until(lambda handler: handler.connected)
            again = memory_node(world, ALICE, dials=(BOB,))
            world.listeners.pop(("node 1", 1))
            async with running(again):
                await bob.handler.until(lambda handler: len(handler.connected) == 2)
                assert bob.handler.disconnected == [ALICE.address]
                assert bob.handler.reasons == ["replaced by a newer link"]
                assert len(bob.network.peers) == 1
                await trio.sleep(0.01)
        assert len(bob.handler.connected) == len(bob.handler.disconnected)

    simulate(main)


def test_a_node_that_is_down_is_dialled_ever_more_rarely_and_met_when_it_comes() -> None:
    async def main() -> None:
        world = MemoryWorld(delay_s=0)
        alice, bob = pair(world)
        async with running(alice):
            await trio.sleep(60)
            # Three quarters of 0.2, 0.4 ... 10 seconds: at 0, 0.15 ... 9.45, 16.95 ... 54.45.
            assert len(world.dials) == 13
            async with running(bob):
                await alice.handler.until(lambda handler: handler.connected)
                dials = len(world.dials)
                await trio.sleep(60)
                assert len(world.dials) == dials

    simulate(main)


def test_a_peer_that_restarts_is_met_again_at_once_after_a_long_link() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice, bob = pair(world)
        async with running(alice):
            await trio.sleep(60)
            async with running(bob):
                await alice.handler.until(lambda handler: handler.connected)
                await trio.sleep(60)
            await alice.handler.until(lambda handler: handler.disconnected)
            assert alice.handler.reasons == ["closed by the peer"]
            began_at = trio.current_time()
            _, bob_again = pair(world)
            async with running(bob_again):
                await alice.handler.until(lambda handler: len(handler.connected) == 2)
                assert trio.current_time() - began_at < 0.5

    simulate(main)


def test_an_inbound_link_stops_the_dialling() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice, bob = mutual(world)
        async with running(bob):
            await trio.sleep(1)
            async with running(alice):
                await trio.sleep(20)
                world.dials.clear()
                await trio.sleep(100)
                assert world.dials == []

    simulate(main)


def test_a_fault_found_by_the_handler_costs_the_peer_ten_seconds_and_nobody_else() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice, bob = pair(world)
        carol = memory_node(world, CAROL, dials=(ALICE,))
        alice = memory_node(world, ALICE, dials=(BOB,), allowed=(CAROL,))

        def react(peer, frames) -> None:
            if (VOTE, b"bad") in frames:
                raise PeerProtocolError("bad vote")

        alice.handler.react = react
        async with running(bob, alice, carol):
            await alice.handler.until(lambda handler: len(handler.links) == 2)
            began_at = trio.current_time()
            bob.network.broadcast(VOTE, b"bad")
            await alice.handler.until(lambda handler: handler.disconnected)
            assert alice.handler.reasons == ["protocol error: bad vote"]
            await alice.handler.until(lambda handler: handler.connected[2:] == [BOB.address])
            assert 10 <= trio.current_time() - began_at < 21
            assert alice.handler.disconnected == [BOB.address]
            assert alice.log.reasons("peer_fault") == ["bad vote"]
            assert alice.network.standing(BOB.address) is Standing.GOOD
            assert -50 <= alice.network.score(BOB.address) < -40

    simulate(main)


def test_a_ban_closes_the_link_and_holds_in_both_directions_until_it_ends() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice, bob = mutual(world)
        async with running(bob, alice):
            await trio.sleep(5)
            began_at = trio.current_time()
            count = len(alice.handler.connected)
            alice.network.ban(BOB.address, 600, "invalid signatures")
            alice.network.ban(BOB.address, 1, "a shorter one changes nothing")
            assert not alice.network.send(BOB.address, VOTE, b"")
            world.dials.clear()
            await trio.sleep(590)
            assert set(world.dials) == {("node 1", 1)}  # Bob tries, we do not
            assert len(alice.handler.connected) == count
            assert alice.network.peers == ()
            assert f"{BOB.address.hex()} is banned or paused" in alice.log.reasons(
                "inbound_refused"
            )
            await alice.handler.until(lambda handler: len(handler.connected) > count)
            assert trio.current_time() - began_at >= 600

    simulate(main)


def test_a_node_off_the_allow_list_gets_no_link() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice = memory_node(world, ALICE, dials=(BOB,))
        bob = memory_node(world, BOB)
        async with running(bob, alice):
            await trio.sleep(5)
        assert bob.handler.connected == []
        assert bob.log.reasons("inbound_refused")[0] == f"not_allowed: {ALICE.address.hex()}"

    simulate(main)


def test_the_certificate_of_another_node_gets_no_link() -> None:
    async def main() -> None:
        world = MemoryWorld()
        stolen = CertificateIdentity(CAROL.certificate.public_key_hash, (CAROL.uri,))
        alice = memory_node(world, ALICE, dials=(BOB,), certificate=stolen)
        bob = memory_node(world, BOB, allowed=(ALICE, CAROL))
        async with running(bob, alice):
            await trio.sleep(5)
        assert bob.handler.connected == []
        reasons = bob.log.reasons("inbound_refused")
        assert reasons[0] == f"certificate_mismatch: {ALICE.address.hex()}"

    simulate(main)


def test_a_caller_that_says_nothing_is_dropped_at_the_deadline() -> None:
    async def main() -> None:
        world = MemoryWorld()
        _, bob = pair(world)
        async with running(bob):
            caller = MemoryTransport(world, ALICE.certificate)
            connection = await caller.dial("node 2", 1)
            began_at = trio.current_time()
            while await connection.stream.receive_some():
                pass
            assert round(trio.current_time() - began_at, 3) == 5
            await trio.testing.wait_all_tasks_blocked()
        assert bob.log.reasons("inbound_refused") == ["no hello within the deadline"]

    simulate(main)


def test_half_open_links_are_bounded_and_dialling_out_still_works() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice, bob = pair(world)
        bob = memory_node(world, BOB, dials=(CAROL,), allowed=(ALICE,))
        carol = memory_node(world, CAROL, allowed=(BOB,))
        async with running(bob):
            streams = []
            for number in range(HALF_OPEN_LINKS):
                flood = MemoryTransport(world, TestNode(10 + number).certificate)
                connection = await flood.dial("node 2", 1)
                streams.append(connection.stream)
            await trio.testing.wait_all_tasks_blocked()
            refused = await flood.dial("node 2", 1)
            assert await refused.stream.receive_some() == b""
            async with running(carol):
                await bob.handler.until(lambda handler: handler.connected == [CAROL.address])
            await trio.sleep(6)
            async with running(alice):
                await alice.handler.until(lambda handler: handler.connected == [BOB.address])
        assert bob.log.reasons("inbound_refused")[0] == "too many half-open links"
        assert len(streams) == HALF_OPEN_LINKS

    simulate(main)


def test_a_caller_that_leaves_during_the_hello_harms_nobody() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice, bob = pair(world)
        async with running(bob):
            connection = await MemoryTransport(world, ALICE.certificate).dial("node 2", 1)
            await connection.stream.aclose()
            async with running(alice):
                await alice.handler.until(lambda handler: handler.connected)
        assert len(bob.log.reasons("inbound_refused")) == 1

    simulate(main)


def test_a_port_in_use_stops_the_network_with_its_name() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice, _ = pair(world)
        rival, _ = pair(world)
        async with running(alice):
            with pytest.raises(UnavailableError, match="node 1:1"):
                await rival.network.run()

    simulate(main)


def test_our_own_bug_in_the_handler_stops_the_network() -> None:
    async def main() -> None:
        alice, bob = pair(MemoryWorld())

        def react(peer, frames) -> None:
            raise InvariantError("two blocks at one height")

        bob.handler.react = react
        async with running(alice):
            with trio.fail_after(60), pytest.RaisesGroup(InvariantError, flatten_subgroups=True):
                async with trio.open_nursery() as nursery:
                    await nursery.start(bob.network.run)
                    await alice.handler.until(lambda handler: handler.connected)
                    alice.network.broadcast(VOTE, b"v")
        assert bob.handler.disconnected == [ALICE.address]

    simulate(main)
