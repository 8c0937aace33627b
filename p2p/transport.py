"""The transport port: how streams between nodes come to be, and its TLS-over-TCP form.

What it decides: nothing about peers; it dials, listens and secures.
What it never does: frames, hellos, retries or deadlines; its callers own those.
A simulator gives the same port over memory streams with made-up certificate identities.
"""

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import trio

from ledger.errors import PeerProtocolError, UnavailableError
from p2p.hello import CertificateIdentity
from p2p.tls import (
    TlsFiles,
    client_context,
    read_own_certificate,
    read_peer_certificate,
    server_context,
)
from p2p.tls_stream import TlsStream


@dataclass(frozen=True, slots=True)
class Connection:
    """A secured stream and what it knows of the other end."""

    stream: trio.abc.Stream
    certificate: CertificateIdentity
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Listening:
    """Open listeners, one per local address of the host name, and the port they took."""

    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]
    port: int


class Transport(Protocol):
    """What p2p needs of the world. Every method may be cancelled and then leaves nothing open."""

    @property
    def own_certificate(self) -> CertificateIdentity:
        """The identity that the other end sees of us."""
        ...

    async def listen(self, host: str, port: int) -> Listening:
        """Open listeners; port 0 takes any free one. Raises: UnavailableError."""
        ...

    async def secure(self, stream: trio.abc.Stream) -> Connection:
        """Secure a stream that a listener accepted. Raises: PeerProtocolError."""
        ...

    async def dial(self, host: str, port: int) -> Connection:
        """Connect and secure. Raises: UnavailableError (no answer), PeerProtocolError (TLS)."""
        ...


class TlsTransport:
    """TLS 1.3 over TCP."""

    __slots__ = ("_client", "_own_certificate", "_server")

    def __init__(self, files: TlsFiles) -> None:
        """Load keys and certificates. Raises: UnavailableError naming the file at fault."""
        self._server = server_context(files)
        self._client = client_context(files)
        self._own_certificate = read_own_certificate(files.certificate)

    @property
    def own_certificate(self) -> CertificateIdentity:
        """The identity in our certificate file."""
        return self._own_certificate

    async def listen(self, host: str, port: int) -> Listening:
        """Open TCP listeners. Raises: UnavailableError saying what to do."""
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; stop the process "
                "that uses this port (is the node already running?) or set another p2p address"
            ) from error
        bound = cast("tuple[str, int]", listeners[0].socket.getsockname())
        return Listening(listeners, bound[1])

    async def secure(self, stream: trio.abc.Stream) -> Connection:
        """Do the server's side of the TLS handshake. Raises: PeerProtocolError."""
        return await _handshake(stream, self._server, server_side=True)

    async def dial(self, host: str, port: int) -> Connection:
        """Connect and do the client's side. Raises: UnavailableError, PeerProtocolError."""
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            raise UnavailableError(f"cannot reach {host}:{port}: {error}") from error
        return await _handshake(stream, self._client, server_side=False)


async def _handshake(
    stream: trio.abc.Stream, context: ssl.SSLContext, *, server_side: bool
) -> Connection:
    """TLS on an open stream; closes it unless it succeeds."""
    secured = TlsStream(stream, context, server_side=server_side)
    try:
        host, port = remote_name(stream)
        certificate_der = await secured.do_handshake()
        if certificate_der is None:
            raise PeerProtocolError("the peer showed no certificate")
        identity = read_peer_certificate(certificate_der)
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(secured)
        raise PeerProtocolError(f"TLS handshake failed: {error.__cause__ or error}") from error
    except BaseException:
        await trio.aclose_forcefully(secured)
        raise
    return Connection(secured, identity, host, port)


def remote_name(stream: trio.abc.Stream) -> tuple[str, int]:
    """Host and port of the other end, for people to read; ("", 0) where there is no such thing."""
    if not isinstance(stream, trio.SocketStream) or stream.socket.family not in (
        socket.AF_INET,
        socket.AF_INET6,
    ):
        return "", 0
    try:
        name = cast("tuple[str, int]", stream.socket.getpeername())
    except OSError:  # it left before we looked
        return "", 0
    return name[0], name[1]
