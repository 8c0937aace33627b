"""Nodes over real TLS on the loopback interface: admission, large frames, restarts, hostility."""

import ssl
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import NamedTuple

import pytest
import trio
import trio.testing

from ledger.errors import UnavailableError
from p2p import peer as peer_module
from p2p.frames import FrameKind, encode_frame
from p2p.hello import Handshake, LinkFacts
from p2p.network import Network, NetworkConfig, PeerAddress, shake_hands
from p2p.peer import Direction
from p2p.tls import TlsFiles, client_context
from p2p.transport import TlsTransport
from tests.unit.p2p.certificates import TestAuthority
from tests.unit.p2p.memory_transport import (
    RecordingHandler,
    RecordingLog,
    TestNode,
    surroundings,
)

ALICE, BOB, CAROL = TestNode(1), TestNode(2), TestNode(3)
EVERYBODY = (ALICE, BOB, CAROL)
HOST = "127.0.0.1"
VOTE = FrameKind.VOTE


class RunningNode(NamedTuple):
    """A node that listens on `port` until `scope` is cancelled."""

    node: TestNode
    network: Network
    handler: RecordingHandler
    log: RecordingLog
    port: int
    scope: trio.CancelScope


class Consortium:
    """The files of three nodes under one authority, and ways to start them."""

    def __init__(self, folder) -> None:
        self.authority = TestAuthority(folder)
        self.files = {
            node: self.authority.issue(f"node{node.number}", (node.uri,)) for node in EVERYBODY
        }

    async def start(
        self,
        nursery: trio.Nursery,
        node: TestNode,
        *,
        dials: tuple[tuple[TestNode, int], ...] = (),
        allowed: tuple[TestNode, ...] = EVERYBODY,
        port: int = 0,
        files: TlsFiles | None = None,
    ) -> RunningNode:
        known = tuple(PeerAddress(peer.address, HOST, its_port) for peer, its_port in dials)
        handler, log = RecordingHandler(), RecordingLog()
        network = Network(
            NetworkConfig(HOST, port, known),
            node.identity(*allowed),
            TlsTransport(files or self.files[node]),
            handler,
            surroundings(node.secret),
            log,
        )
        scope = trio.CancelScope()

        async def run(task_status) -> None:
            with scope:
                await network.run(task_status)

        bound = await nursery.start(run)
        return RunningNode(node, network, handler, log, bound, scope)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory):
    return Consortium(tmp_path_factory.mktemp("consortium"))


def bounded_run(main) -> None:
    async def bounded() -> None:
        with trio.fail_after(30):
            await main()

    trio.run(bounded)


@asynccontextmanager
async def nursery_that_ends():
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


def reasons(node: RunningNode) -> list[str]:
    return [str(reason) for reason in node.log.reasons("inbound_refused")]


def test_three_nodes_connect_and_exchange_frames_of_one_mebibyte(consortium) -> None:
    batch = bytes(range(256)) * 4 * 1024

    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            bob = await consortium.start(nursery, BOB, dials=((ALICE, alice.port),))
            carol = await consortium.start(
                nursery, CAROL, dials=((ALICE, alice.port), (BOB, bob.port))
            )
            nodes = (alice, bob, carol)
            for node in nodes:
                await node.handler.until(lambda handler: len(handler.links) == 2)
            for node in nodes:
                assert node.network.broadcast(FrameKind.BATCH, batch) == 2
                assert node.network.broadcast(VOTE, b"%d" % node.node.number) == 2
            for node in nodes:
                await node.handler.until(lambda handler: len(handler.frames) == 4)
                assert sorted(node.handler.frames) == sorted(
                    (peer.address, frame)
                    for peer in EVERYBODY
                    if peer is not node.node
                    for frame in ((FrameKind.BATCH, batch), (VOTE, b"%d" % peer.number))
                )
            info = alice.network.peers[0]
            assert (info.address, info.host, info.direction) == (
                BOB.address,
                HOST,
                Direction.INBOUND,
            )
            assert info.received_bytes > len(batch) < info.sent_bytes

    bounded_run(main)


def test_a_certificate_of_another_authority_is_refused(consortium, tmp_path) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            foreign = TestAuthority(tmp_path, "foreign").issue("node2", (BOB.uri,))
            # Bob trusts our authority, but his own certificate comes from another one.
            files = TlsFiles(foreign.certificate, foreign.key, consortium.authority.path)
            bob = await consortium.start(nursery, BOB, dials=((ALICE, alice.port),), files=files)
            await alice.log.until("inbound_refused")
            assert "certificate verify failed" in reasons(alice)[0]
            assert (alice.handler.connected, bob.handler.connected) == ([], [])

    bounded_run(main)


def test_we_refuse_a_server_of_another_authority(consortium, tmp_path) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            foreign = TestAuthority(tmp_path, "foreign").issue("node1", (ALICE.uri,))
            alice = await consortium.start(nursery, ALICE, files=foreign)
            bob = await consortium.start(nursery, BOB, dials=((ALICE, alice.port),))
            await bob.log.until("dial_failed")
            assert "certificate verify failed" in str(bob.log.reasons("dial_failed")[0])
            assert bob.handler.connected == []

    bounded_run(main)


def test_an_expired_certificate_is_refused(consortium, tmp_path) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            expired = consortium.authority.issue("late", (BOB.uri,), until=timedelta(minutes=-1))
            await consortium.start(nursery, BOB, dials=((ALICE, alice.port),), files=expired)
            await alice.log.until("inbound_refused")
            assert "expired" in reasons(alice)[0]

    bounded_run(main)


def test_the_right_authority_without_the_allow_list_is_refused(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE, allowed=(CAROL,))
            await consortium.start(nursery, BOB, dials=((ALICE, alice.port),))
            carol = await consortium.start(nursery, CAROL, dials=((ALICE, alice.port),))
            await carol.handler.until(lambda handler: handler.connected == [ALICE.address])
            await alice.log.until("inbound_refused")
            assert reasons(alice)[0] == f"not_allowed: {BOB.address.hex()}"
            await alice.handler.until(lambda handler: handler.connected)
            assert alice.handler.connected == [CAROL.address]

    bounded_run(main)


def test_the_certificate_of_another_node_is_refused(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            await consortium.start(
                nursery, BOB, dials=((ALICE, alice.port),), files=consortium.files[CAROL]
            )
            await alice.log.until("inbound_refused")
            assert reasons(alice)[0] == f"certificate_mismatch: {BOB.address.hex()}"
            assert alice.handler.connected == []

    bounded_run(main)


async def tls_stream(consortium: Consortium, node: TestNode, port: int) -> trio.SSLStream:
    stream = await trio.open_tcp_stream(HOST, port)
    context = client_context(consortium.files[node])
    secured = trio.SSLStream(stream, context, https_compatible=True)
    await secured.do_handshake()
    return secured


async def accepted_stream(consortium: Consortium, node: TestNode, server: RunningNode):
    """A raw stream on which the hello is done: what follows is up to the test."""
    connection = await TlsTransport(consortium.files[node]).dial(HOST, server.port)
    own = TlsTransport(consortium.files[node]).own_certificate
    facts = LinkFacts(own, connection.certificate, server.node.address)
    handshake = Handshake(node.identity(*EVERYBODY), facts, nonce=bytes(32), height=0)
    await shake_hands(connection.stream, handshake)
    await server.handler.until(lambda handler: node.address in handler.links)
    return connection.stream


async def read_to_the_end(stream: trio.abc.Stream) -> None:
    try:
        while await stream.receive_some(65_536):
            pass
    except trio.BrokenResourceError:
        pass  # a reset is an end as well
    await trio.aclose_forcefully(stream)


def test_garbage_instead_of_tls_and_instead_of_a_hello_closes_only_that_link(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            bob = await consortium.start(nursery, BOB, dials=((ALICE, alice.port),))
            await alice.handler.until(lambda handler: handler.connected)
            raw = await trio.open_tcp_stream(HOST, alice.port)
            await raw.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await read_to_the_end(raw)
            secured = await tls_stream(consortium, CAROL, alice.port)
            await secured.send_all(b"\xff" * 1_000)
            await read_to_the_end(secured)
            assert len(reasons(alice)) == 2
            assert reasons(alice)[0].startswith("TLS handshake failed")
            assert "frame kind 255 is unknown" in reasons(alice)[1]
            assert bob.network.broadcast(VOTE, b"unharmed") == 1
            await alice.handler.until(lambda handler: handler.frames)
            assert alice.handler.disconnected == []

    bounded_run(main)


def test_garbage_after_the_hello_closes_only_that_link_and_keeps_the_node_away(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            bob = await consortium.start(nursery, BOB, dials=((ALICE, alice.port),))
            await alice.handler.until(lambda handler: handler.connected)
            stream = await accepted_stream(consortium, CAROL, alice)
            await stream.send_all(encode_frame(FrameKind.HELLO, b"again"))
            await read_to_the_end(stream)
            await alice.handler.until(lambda handler: handler.disconnected == [CAROL.address])
            carol = await consortium.start(nursery, CAROL, dials=((ALICE, alice.port),))
            await carol.handler.until(lambda handler: handler.disconnected)
            assert f"{CAROL.address.hex()} is banned or paused" in reasons(alice)
            assert bob.network.broadcast(VOTE, b"unharmed") == 1
            await alice.handler.until(lambda handler: handler.frames)

    bounded_run(main)


def test_damaged_tls_records_close_only_that_link(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            stream = await accepted_stream(consortium, CAROL, alice)
            await stream.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
            await alice.handler.until(lambda handler: handler.disconnected == [CAROL.address])
            assert str(alice.handler.reasons[0]).startswith("connection lost")
            await read_to_the_end(stream)

    bounded_run(main)


def test_a_peer_that_leaves_without_a_word_of_tls_ends_its_link_in_order(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            stream = await accepted_stream(consortium, CAROL, alice)
            # Take her ping first: closing with unread bytes would be a reset, not an end.
            await stream.receive_some(65_536)
            await trio.aclose_forcefully(stream)
            await alice.handler.until(lambda handler: handler.disconnected)
            assert alice.handler.reasons == ["closed by the peer"]
            assert "peer_fault" not in [event for event, _ in alice.log.events]

    bounded_run(main)


def test_tls_1_2_is_refused(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            context = client_context(consortium.files[BOB])
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            stream = trio.SSLStream(await trio.open_tcp_stream(HOST, alice.port), context)
            with pytest.raises(trio.BrokenResourceError):
                await stream.do_handshake()
            await trio.aclose_forcefully(stream)

    bounded_run(main)


def test_a_peer_that_restarts_is_met_again(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            bob = await consortium.start(nursery, BOB, dials=((ALICE, alice.port),))
            await bob.handler.until(lambda handler: handler.connected)
            alice.scope.cancel()
            await bob.handler.until(lambda handler: handler.disconnected)
            again = await consortium.start(nursery, ALICE, port=alice.port)
            await bob.handler.until(lambda handler: len(handler.connected) == 2)
            assert bob.network.broadcast(VOTE, b"welcome back") == 1
            await again.handler.until(lambda handler: handler.frames)
            assert again.handler.frames == [(BOB.address, (VOTE, b"welcome back"))]

    bounded_run(main)


def test_a_slow_reader_is_dropped_and_the_others_go_on(consortium, monkeypatch) -> None:
    monkeypatch.setattr(peer_module, "SEND_TIMEOUT_S", 0.5)

    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            bob = await consortium.start(nursery, BOB, dials=((ALICE, alice.port),))
            await alice.handler.until(lambda handler: handler.connected)
            stuck = await accepted_stream(consortium, CAROL, alice)
            batch = bytes(1024 * 1024)
            for _ in range(31):
                assert alice.network.send(CAROL.address, FrameKind.BATCH, batch)
            assert not alice.network.send(CAROL.address, FrameKind.BATCH, batch)
            assert alice.network.send(CAROL.address, VOTE, b"still room for votes")
            await alice.handler.until(lambda handler: handler.disconnected == [CAROL.address])
            assert alice.handler.reasons == ["slow reader: nothing sent within the time-out"]
            assert alice.network.broadcast(VOTE, b"unharmed") == 1
            await bob.handler.until(lambda handler: handler.frames)
            await trio.aclose_forcefully(stuck)

    bounded_run(main)


def test_a_port_in_use_is_named_with_what_to_do(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            alice = await consortium.start(nursery, ALICE)
            rival = Network(
                NetworkConfig(HOST, alice.port, ()),
                BOB.identity(),
                TlsTransport(consortium.files[BOB]),
                RecordingHandler(),
                surroundings(),
                RecordingLog(),
            )
            with pytest.raises(UnavailableError) as caught:
                await rival.run()
            assert f"cannot listen on {HOST}:{alice.port}" in str(caught.value)
            assert "stop the process that uses this port" in str(caught.value)

    bounded_run(main)


def test_nodes_that_dial_each_other_end_with_one_link_each(consortium) -> None:
    async def main() -> None:
        async with nursery_that_ends() as nursery:
            # A first start finds free ports, a second start uses them in both directions.
            first = [await consortium.start(nursery, node) for node in EVERYBODY]
            ports = [node.port for node in first]
            for node in first:
                node.scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            nodes = [
                await consortium.start(
                    nursery, node, port=port, dials=tuple(zip(EVERYBODY, ports, strict=True))
                )
                for node, port in zip(EVERYBODY, ports, strict=True)
            ]
            for node in nodes:
                await node.handler.until(lambda handler: len(handler.links) == 2)
            await trio.sleep(1.5)
            for node in nodes:
                assert len(node.network.peers) == 2
                assert node.network.broadcast(VOTE, b"hi") == 2
            for node in nodes:
                await node.handler.until(lambda handler: len(handler.frames) == 2)
                connected, ended = node.handler.connected, node.handler.disconnected
                assert len(connected) == len(ended) + 2

    bounded_run(main)
