"""Who may be linked, for how long, and what offences and slow reading cost."""

from dataclasses import replace

import pytest
import trio
import trio.lowlevel
import trio.testing

from ledger.errors import InvariantError
from ledger.ids import TimestampMs
from p2p import network as network_module
from p2p.frames import FrameKind, encode_frame
from p2p.hello import CertificateIdentity
from p2p.metering import READ_FRAMES, SIGNATURES
from p2p.network import BAN_S, CONNECTIONS_PER_NODE, FAULT_PAUSE_S, SPARED_PAUSE_S
from p2p.scoring import Offence, PeerOffenceError, Standing
from tests.unit.p2p.memory_transport import (
    MemoryNode,
    MemoryTransport,
    MemoryWorld,
    TestNode,
    memory_node,
)
from tests.unit.p2p.test_network import pair, running, simulate

ALICE, BOB, CAROL, DAVE = (TestNode(number) for number in range(1, 5))
VOTE = FrameKind.VOTE
DAY_MS = 86_400_000


def with_voters(node: MemoryNode, *voters: TestNode) -> MemoryNode:
    addresses = [voter.address for voter in voters]
    network = node.network
    network._surroundings = replace(network._surroundings, voters=lambda: addresses)
    return node


def with_nonce(node: MemoryNode, letter: bytes) -> None:
    network = node.network
    network._surroundings = replace(network._surroundings, random_bytes=lambda size: letter * size)


def change_admission(node: MemoryNode, **changes) -> None:
    node.network._identity = replace(node.network._identity, **changes)
    node.network.enforce_admission()


def test_an_invalid_signature_costs_a_node_that_can_be_spared_ten_minutes() -> None:
    async def main() -> None:
        alice, bob = pair(MemoryWorld())

        def react(peer, frames) -> None:
            raise PeerOffenceError(Offence.INVALID_SIGNATURE, "vote: bad_signature")

        alice.handler.react = react
        async with running(bob, alice):
            await alice.handler.until(lambda handler: handler.connected)
            await bob.handler.until(lambda handler: handler.links)
            began_at = trio.current_time()
            bob.network.broadcast(VOTE, b"forged")
            await alice.handler.until(lambda handler: handler.disconnected)
            await trio.sleep(0.01)
            assert alice.network.standing(BOB.address) is Standing.BANNED
            assert alice.network.score(BOB.address) == -100
            banned = "invalid_signature: vote: bad_signature"
            assert alice.log.reasons("peer_banned") == [banned]
            await trio.sleep(BAN_S - 1)
            assert len(alice.handler.connected) == 1
            await alice.handler.until(lambda handler: len(handler.connected) == 2)
            assert BAN_S <= trio.current_time() - began_at < BAN_S + 30
            await trio.sleep(60)
            assert alice.network.standing(BOB.address) is Standing.GOOD
            assert alice.log.reasons("peer_restored") == [None]

    simulate(main)


def test_a_node_that_cannot_be_spared_is_demoted_once_comes_back_and_is_restored() -> None:
    async def main() -> None:
        alice, bob = pair(MemoryWorld())
        with_voters(alice, ALICE, BOB, CAROL)
        async with running(bob, alice):
            await alice.handler.until(lambda handler: handler.connected)
            await trio.sleep(0.1)
            for _ in range(3):
                alice.network.blame(BOB.address, Offence.INVALID_SIGNATURE, "vote")
            assert len(alice.log.reasons("peer_demoted")) == 1
            assert alice.log.reasons("peer_banned") == []
            assert alice.handler.disconnected == []
            # Read at a sixteenth: half a burst more than it has takes 16 times as long.
            frames = int(READ_FRAMES.burst + READ_FRAMES.rate)
            await bob_floods(bob, frames)
            await trio.sleep(5)
            assert alice.network.peers[0].throttled_ms >= 15_000
            await trio.sleep(180)
            assert alice.network.standing(BOB.address) is Standing.GOOD
            assert alice.handler.links[BOB.address]._meter._share == 1.0

    async def bob_floods(bob: MemoryNode, frames: int) -> None:
        stream = bob.handler.links[ALICE.address]._connection.stream
        await stream.send_all(encode_frame(VOTE, b"v") * frames)

    simulate(main)


def test_a_broken_link_to_a_node_that_cannot_be_spared_is_dialled_again_soon() -> None:
    async def main() -> None:
        for voters, least, most in (
            ((ALICE, BOB, CAROL), SPARED_PAUSE_S, FAULT_PAUSE_S),
            ((), FAULT_PAUSE_S, 30.0),
        ):
            alice, bob = pair(MemoryWorld())
            with_voters(alice, *voters)
            async with running(bob, alice):
                await alice.handler.until(lambda handler: handler.connected)
                await trio.sleep(0.1)
                began_at = trio.current_time()
                stream = bob.handler.links[ALICE.address]._connection.stream
                await stream.send_all(b"\xff" * 64)
                await alice.handler.until(lambda handler: len(handler.connected) == 2)
                assert least <= trio.current_time() - began_at < most

    simulate(main)


def test_only_so_many_masters_are_banned_that_a_quorum_stays() -> None:
    async def main() -> None:
        world = MemoryWorld()
        others = (BOB, CAROL, DAVE)
        alice = with_voters(memory_node(world, ALICE, dials=others), ALICE, *others)
        nodes = [memory_node(world, node, allowed=(ALICE,)) for node in others]
        async with running(*nodes, alice):
            await alice.handler.until(lambda handler: len(handler.links) == 3)
            for node in others:
                alice.network.blame(node.address, Offence.INVALID_SIGNATURE, "vote")
            standings = [alice.network.standing(node.address) for node in others]
            assert standings == [Standing.BANNED, Standing.DEMOTED, Standing.DEMOTED]
            await trio.sleep(1)
            assert len(alice.network.peers) == 2

    simulate(main)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_allowed": {}.get}, "not_allowed"),
        ({"is_allowed": {BOB.address: CAROL.public_key}.get}, "not_allowed"),
        ({"is_revoked": [BOB.certificate.public_key_hash].__contains__}, "revoked"),
    ],
)
def test_a_link_ends_when_its_node_is_admitted_no_more_and_stays_away(changes, reason) -> None:
    async def main() -> None:
        alice, bob = pair(MemoryWorld())
        async with running(bob, alice):
            await alice.handler.until(lambda handler: handler.connected)
            alice.network.enforce_admission()
            await trio.sleep(1)
            assert alice.handler.disconnected == []
            change_admission(alice, **changes)
            await alice.handler.until(lambda handler: handler.disconnected)
            assert alice.handler.reasons == [f"no longer admitted: {reason}"]
            assert alice.log.reasons("peer_expelled") == [reason]
            await trio.sleep(60)
            assert len(alice.handler.connected) == 1

    simulate(main)


def test_a_change_during_the_hello_is_noticed_at_its_end() -> None:
    async def main() -> None:
        alice, bob = pair(MemoryWorld())
        greet = alice.network._greet

        async def slowly(connection, expected):
            remote = await greet(connection, expected)
            change_admission(alice, is_allowed={}.get)
            return remote

        alice.network._greet = slowly
        async with running(bob, alice):
            await trio.sleep(2)
            assert alice.handler.connected == []

    simulate(main)


def test_a_twin_is_reported_and_may_stop_the_node() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice = memory_node(world, ALICE, allowed=(ALICE,))
        seen = []
        alice.network.on_twin(lambda host, port: seen.append((host, port)))
        # The twin has another configuration, in which somebody else lives at Alice's place.
        twin = memory_node(world, ALICE, dials=(BOB,), allowed=(ALICE,))
        with_nonce(twin, b"t")
        async with running(alice):
            world.listeners["node 2", 1] = world.listeners.pop(("node 1", 1))
            with pytest.raises(ExceptionGroup) as caught:
                twin.network.on_twin(stop)
                async with running(twin):
                    await trio.sleep(5)
            assert caught.group_contains(InvariantError, match="node 2")
            await trio.sleep(0.1)
            assert seen == [("caller", 0)]
            assert len(alice.log.reasons("twin_seen")) == 1

    def stop(host: str, port: int) -> None:
        raise InvariantError(f"this node runs twice, the other at {host}:{port}")

    simulate(main)


def test_a_node_that_dials_itself_is_no_twin() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice = memory_node(world, ALICE, dials=(BOB,), allowed=(ALICE,))
        alice.network.on_twin(lambda host, port: pytest.fail(f"{host}:{port}"))
        async with trio.open_nursery() as nursery:
            await nursery.start(alice.network.run)
            world.listeners["node 2", 1] = world.listeners["node 1", 1]
            await trio.sleep(5)
            assert alice.log.reasons("dial_failed")[-1] == "self"
            assert alice.log.reasons("twin_seen") == []
            world.listeners.pop(("node 2", 1))
            nursery.cancel_scope.cancel()

    simulate(main)


def test_who_only_claims_our_address_is_no_twin() -> None:
    async def main() -> None:
        world = MemoryWorld()
        alice = memory_node(world, ALICE, allowed=(ALICE, BOB))
        alice.network.on_twin(lambda host, port: pytest.fail(f"{host}:{port}"))
        liar = memory_node(world, ALICE, dials=(CAROL,), certificate=BOB.certificate)
        with_nonce(liar, b"l")
        async with running(alice):
            world.listeners["node 3", 1] = world.listeners.pop(("node 1", 1))
            async with running(liar):
                await trio.sleep(1)
            refused = f"certificate_mismatch: {ALICE.address.hex()}"
            assert refused in alice.log.reasons("inbound_refused")

    simulate(main)


def test_a_node_has_two_connections_at_most() -> None:
    async def main() -> None:
        world = MemoryWorld()
        bob = memory_node(world, BOB, allowed=(ALICE, CAROL))
        async with running(bob):
            caller = MemoryTransport(world, ALICE.certificate)
            links = [await caller.dial("node 2", 1) for _ in range(CONNECTIONS_PER_NODE + 1)]
            await trio.testing.wait_all_tasks_blocked()
            refused = f"too many connections of {ALICE.uri}"
            assert bob.log.reasons("inbound_refused") == [refused]
            carol = memory_node(world, CAROL, dials=(BOB,))
            async with running(carol):
                await bob.handler.until(lambda handler: handler.connected == [CAROL.address])
            await trio.sleep(6)  # The silent ones ran into their deadline.
            alice = memory_node(world, ALICE, dials=(BOB,))
            async with running(alice):
                await bob.handler.until(lambda handler: ALICE.address in handler.links)
            assert len(links) == 3

    simulate(main)


def test_living_links_are_bounded_in_all(monkeypatch) -> None:
    monkeypatch.setattr(network_module, "LINKS", 1)

    async def main() -> None:
        world = MemoryWorld()
        bob = memory_node(world, BOB, allowed=(ALICE, CAROL))
        alice, carol = (memory_node(world, node, dials=(BOB,)) for node in (ALICE, CAROL))
        async with running(bob, alice):
            await bob.handler.until(lambda handler: handler.connected)
            async with running(carol):
                await trio.sleep(3)
            assert bob.handler.connected == [ALICE.address]
            assert bob.log.reasons("inbound_refused")[0] == "too many living links"

    simulate(main)


def test_a_slow_reader_is_met_again_after_one_second_then_two_then_four() -> None:
    async def main() -> None:
        alice, bob = pair(MemoryWorld())
        pauses = []
        async with running(bob, alice):
            for count in range(1, 9):
                await trio.sleep(pauses[-1] if pauses else 0)
                await alice.handler.until(lambda handler, n=count: len(handler.connected) == n)
                alice.handler.links[BOB.address].is_slow = True
                alice.handler.links[BOB.address].close("slow reader")
                began_at = trio.current_time()
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                await trio.sleep(0.001)
                pauses.append(round(alice.network._away_until[BOB.address] - began_at, 2))
            assert pauses == [0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 45.0, 45.0]

    simulate(main)


def test_certificates_are_warned_of_before_they_end() -> None:
    async def main() -> None:
        world = MemoryWorld()
        now_ms = 1_700_000_000_000
        ends = {ALICE: 6.5, BOB: 29.5}
        nodes = {}
        for node, other in ((ALICE, BOB), (BOB, ALICE)):
            certificate = CertificateIdentity(
                node.certificate.public_key_hash,
                (node.uri,),
                TimestampMs(now_ms + round(ends[node] * DAY_MS)),
            )
            dials = {"dials": (other,)} if node is ALICE else {"allowed": (other,)}
            nodes[node] = memory_node(world, node, certificate=certificate, **dials)
        async with running(nodes[BOB], nodes[ALICE]):
            await trio.sleep(300)
        warnings = [
            facts for name, facts in nodes[ALICE].log.events if name == "certificate_expires"
        ]
        assert warnings == [
            {"node": ALICE.address.hex(), "own": True, "days": 6},
            {"node": BOB.address.hex(), "own": False, "days": 29},
        ]
        assert nodes[ALICE].network.own_expires_ms == now_ms + round(6.5 * DAY_MS)

    simulate(main)


def test_a_flood_is_read_slowly_and_blamed_only_when_it_goes_on() -> None:
    async def main() -> None:
        alice, bob = pair(MemoryWorld())
        async with running(bob, alice):
            await alice.handler.until(lambda handler: handler.connected)
            link = alice.handler.links[BOB.address]
            link.charge_signatures(int(SIGNATURES.burst + 20 * SIGNATURES.rate))
            bob.network.broadcast(VOTE, b"once")
            await trio.sleep(65)
            assert alice.network.score(BOB.address) == 0
            assert alice.network.peers[0].throttled_ms == 20_000
            link.charge_signatures(int(SIGNATURES.burst + 100 * SIGNATURES.rate))
            bob.network.broadcast(VOTE, b"again")
            await trio.sleep(60)
            assert -50 <= alice.network.score(BOB.address) < -40
            assert alice.handler.disconnected == []

    simulate(main)
