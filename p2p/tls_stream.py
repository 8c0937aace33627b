"""A TLS stream that takes everything that has arrived at once.

What it decides: nothing; it moves bytes between a socket and OpenSSL.
What it never does: look into plain text, or close politely: frames carry their length, so a cut
stream cannot pass for a whole one, and closing never waits for a stuck peer.
`trio.SSLStream` gives one record (16 KiB) per call, which under load is 250 turns of the event loop
a second for every link; this one decrypts all records of one read in one turn (decision 0019).
Source: RFC 8446 (TLS 1.3 has no renegotiation: writing never waits for a read).
"""

import ssl

import trio

from ledger.limits import KIB

_RECEIVE_BYTES = 256 * KIB
"""Cipher text taken from the socket at once; what it decrypts to is as large at most."""
_RECORD_BYTES = 16 * KIB
"""Most plain text in one TLS record: a larger read would only allocate more (RFC 8446, 5.1)."""


class TlsStream(trio.abc.Stream):
    """One secured stream. One task may send while another receives."""

    def __init__(
        self, stream: trio.abc.Stream, context: ssl.SSLContext, *, server_side: bool
    ) -> None:
        """Wrap an open stream; `do_handshake` comes first."""
        self.transport_stream = stream
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._failure: ssl.SSLError | None = None

    async def do_handshake(self) -> bytes | None:
        """Agree on keys; the peer's certificate in DER form, whose chain is verified.

        Raises: trio.BrokenResourceError; `__cause__` is what OpenSSL found.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._refill()
            except ssl.SSLError as error:
                # The alert tells the other end why.
                await self._flush()
                raise trio.BrokenResourceError from error
            else:
                await self._flush()
                return self._tls.getpeercert(binary_form=True)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send. Raises: trio.BrokenResourceError, trio.ClosedResourceError."""
        if data:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes something."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """All plain text at hand, up to `max_bytes`, waiting for the first; b"" at the end.

        Raises: trio.BrokenResourceError, trio.ClosedResourceError.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        wanted = _RECEIVE_BYTES if max_bytes is None else max_bytes
        try:
            while (data := self._decrypted(wanted)) is None:
                await self._refill()
        except ssl.SSLEOFError:
            return b""
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error
        return data

    def _decrypted(self, wanted: int) -> bytes | None:
        """What can be read without waiting, b"" at the end; None when no record is complete yet."""
        if self._failure is not None:
            raise self._failure
        parts: list[bytes] = []
        # Asked first, because OpenSSL says "nothing yet" by an exception, twice for every read.
        while wanted > 0 and self._holds_more():
            try:
                part = self._tls.read(min(wanted, _RECORD_BYTES))
            except ssl.SSLWantReadError:
                break  # A record that is not whole.
            except ssl.SSLError as error:
                # What came before is still good. OpenSSL names an error once; later it says "end".
                self._failure = error
                if not parts:
                    raise
                break
            if not part:
                return b"".join(parts)
            parts.append(part)
            wanted -= len(part)
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _holds_more(self) -> bool:
        """Whether OpenSSL could read on: plain text, cipher text, or an end."""
        incoming = self._incoming
        return incoming.pending > 0 or incoming.eof or self._tls.pending() > 0

    async def _refill(self) -> None:
        data = await self.transport_stream.receive_some(_RECEIVE_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        await self.transport_stream.send_all(self._outgoing.read())

    async def aclose(self) -> None:
        """Close the socket below at once."""
        await self.transport_stream.aclose()
