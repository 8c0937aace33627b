"""The TLS stream over memory: what it hands over, how it ends, what it refuses."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from p2p.tls import client_context, server_context
from p2p.tls_stream import TlsStream
from tests.unit.p2p.certificates import TestAuthority

RECORD = 16 * 1024


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    authority = TestAuthority(tmp_path_factory.mktemp("authority"))
    return (
        client_context(authority.issue("client", ("node:client",))),
        server_context(authority.issue("server", ("node:server",))),
    )


@asynccontextmanager
async def secured(contexts):
    near, far = trio.testing.memory_stream_pair()
    client = TlsStream(near, contexts[0], server_side=False)
    server = TlsStream(far, contexts[1], server_side=True)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        try:
            yield client, server
        finally:
            await trio.aclose_forcefully(near)
            await trio.aclose_forcefully(far)


def test_all_records_that_arrived_come_in_one_call(contexts):
    data = bytes(range(256)) * 1_000

    async def main():
        async with secured(contexts) as (client, server):
            await client.send_all(data[: 5 * RECORD])
            assert await server.receive_some() == data[: 5 * RECORD]
            # Both ways at once, and never more than was asked for.
            await server.send_all(data[:RECORD])
            await client.send_all(data[:100])
            assert await server.receive_some(60) == data[:60]
            assert await server.receive_some(60) == data[60:100]
            assert await client.receive_some() == data[:RECORD]

    trio.run(main)


def test_a_stream_that_is_cut_ends_after_what_had_arrived(contexts):
    async def main():
        async with secured(contexts) as (client, server):
            await client.send_all(b"the last words")
            await client.aclose()
            assert await server.receive_some() == b"the last words"
            assert await server.receive_some() == b""
            assert await server.receive_some() == b""

    trio.run(main)


def test_a_damaged_record_breaks_the_stream_after_what_was_good(contexts):
    async def main():
        async with secured(contexts) as (client, server):
            await client.send_all(b"good")
            await client.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
            assert await server.receive_some() == b"good"
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError):
                    await server.receive_some()

    trio.run(main)


def test_garbage_instead_of_a_hello_breaks_the_handshake(contexts):
    async def main():
        near, far = trio.testing.memory_stream_pair()
        server = TlsStream(far, contexts[1], server_side=True)
        await near.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError) as caught:
            await server.do_handshake()
        assert "HTTP_REQUEST" in str(caught.value.__cause__)
        await near.aclose()
        await server.aclose()

    trio.run(main)
