"""How a running node hands its blocks to a backup: a socket for whoever owns the process.

What it decides: who may ask. The socket is local and abstract: no port, no file that a crash could
leave behind or a copy could trip over. Its name follows from the data folder, and the kernel tells
each end who the other is: only the user of the node, or root, is served.
What it never does: write a file, take anything from the other end, or hold the event loop: a step
reads one batch or a few blocks, and rests after each.
Source: unix(7), "Abstract sockets" and SO_PEERCRED; docs/decisions/0037-backup.md.
"""

import os
import socket
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from ledger.codec import Record, Schema, encode
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.store.archive import (
    ArchivedBlock,
    block_records,
    frame,
    take_block,
    take_record,
)
from ledger.store.blocks import BlockStore
from ledger.transaction import Chain
from node.limits import (
    BACKUP_PAUSE_MS,
    BACKUP_STALL_MS,
    BACKUP_STEP_BLOCKS,
    BACKUP_STEP_BYTES,
    BACKUP_STREAMS,
)

_log = structlog.get_logger("backup")
_VERSION = 1
_CREDENTIALS = struct.Struct("3i")
_ROOT = 0


class StreamHead(Record, frozen=True):
    """The first record: of which chain, up to which height. Then come blocks, from 1 on.

    `lowest` is the first height whose block the node holds; if it is not 1, nothing follows.
    """

    version: int
    genesis_hash: bytes
    group: int
    height: int
    lowest: int


_HEAD_BYTES = 128
_HEAD = Schema(StreamHead, max_bytes=_HEAD_BYTES)


@dataclass(frozen=True, slots=True)
class BlockSource:
    """Blocks from height 1 to `height`, one at a time."""

    height: int
    blocks: Iterator[ArchivedBlock]


# ---- the node's end ---------------------------------------------------------------------------


class BackupChannel:
    """Serves backups of a running node."""

    def __init__(
        self, data_dir: Path, chain: Chain, blocks: BlockStore, height: Callable[[], int]
    ) -> None:
        self._data_dir = data_dir
        self._chain = chain
        self._blocks = blocks
        self._height = height
        self._streams = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. A name that somebody else has taken is no reason to stop a node.

        Raises: StoreDamagedError.
        """
        listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        try:
            await listener.bind(channel_name(self._data_dir))
            listener.listen()
        except OSError as error:
            listener.close()
            _log.error("backup_channel_taken", problem=str(error))
            task_status.started()
            return
        task_status.started()
        await trio.serve_listeners(self.serve, [trio.SocketListener(listener)])

    async def serve(self, stream: trio.SocketStream) -> None:
        """Send all blocks to one client, then close.

        Raises: StoreDamagedError.
        """
        async with stream:
            user = _user_of(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if user not in (os.geteuid(), _ROOT) or self._streams >= BACKUP_STREAMS:
                _log.warning("backup_refused", user=user, running=self._streams)
                return
            self._streams += 1
            try:
                await self._send_all(stream)
            except (trio.BrokenResourceError, trio.TooSlowError):
                _log.warning("backup_broken_off")
            except Rejected as refusal:
                # Pruning may begin while blocks are sent.
                _log.warning("backup_broken_off", problem=str(refusal))
            finally:
                self._streams -= 1

    async def _send_all(self, stream: trio.SocketStream) -> None:
        height, lowest, chain = self._height(), self._blocks.first, self._chain
        _log.info("backup_begins", height=height)
        head = StreamHead(_VERSION, chain.genesis_hash, chain.group, height, lowest)
        await self._send(stream, frame(encode(head)))
        if lowest > 1:
            return
        for piece in self._pieces(height):
            await self._send(stream, piece)
            await trio.sleep(BACKUP_PAUSE_MS / 1_000)
        _log.info("backup_sent", height=height)

    def _pieces(self, height: int) -> Iterator[bytes]:
        """The records of all blocks, in pieces that each take a step."""
        piece = bytearray()
        for number in range(1, height + 1):
            for record in block_records(self._blocks, number):
                piece += frame(record)
                if len(piece) >= BACKUP_STEP_BYTES:
                    yield bytes(piece)
                    piece.clear()
            if number % BACKUP_STEP_BLOCKS == 0 and piece:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)

    async def _send(self, stream: trio.SocketStream, data: bytes) -> None:
        with trio.fail_after(BACKUP_STALL_MS / 1_000):
            await stream.send_all(data)


# ---- the other end ----------------------------------------------------------------------------


@contextmanager
def blocks_from_node(data_dir: Path, chain: Chain) -> Generator[BlockSource]:
    """The blocks of the node that runs on this data folder.

    Raises: Rejected(WRONG_CHAIN), UnavailableError when it does not answer or breaks off.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(BACKUP_STALL_MS / 1_000)
        try:
            link.connect(channel_name(data_dir))
            user = _user_of(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            owner = data_dir.stat().st_uid
        except OSError as error:
            raise UnavailableError(
                f"a process uses {data_dir} but offers no backup ({error.strerror}); if it is a "
                "node, run this on its machine, in its container"
            ) from error
        if user not in (owner, os.geteuid()):
            raise UnavailableError(f"whoever offers backups of {data_dir} does not own the folder")
        with link.makefile("rb") as file:
            yield _source(file.read, chain)


def _source(take: Callable[[int], bytes], chain: Chain) -> BlockSource:
    def read(length: int) -> bytes:
        try:
            data = take(length)
        except OSError as error:
            raise UnavailableError(f"the node does not go on ({error})") from error
        if len(data) < length:
            raise UnavailableError(
                "the node ended the backup: it serves others or another user, or it stopped; its "
                "log says which"
            )
        return data

    head = _HEAD.decode(take_record(read, _HEAD_BYTES))
    if head.version != _VERSION:
        raise UnavailableError("the node has another version; use the command that it came with")
    if (head.genesis_hash, head.group) != (chain.genesis_hash, chain.group):
        raise Rejected(Reason.WRONG_CHAIN, "the node serves another chain than genesis_file")
    require_all(head.lowest)
    return BlockSource(head.height, (take_block(read) for _ in range(head.height)))


def require_all(lowest: int) -> None:
    """Raises: Rejected(PRUNED) when the first blocks of the chain are not there."""
    if lowest > 1:
        detail = "this node does not hold the whole chain; back up one that does"
        raise Rejected(Reason.PRUNED, detail, lowest=lowest)


def channel_name(data_dir: Path) -> str:
    """The abstract name of a folder's channel: the folder itself, however it is reached."""
    found = data_dir.stat()
    return f"\0kanglian-backup-{found.st_dev:x}-{found.st_ino:x}"


def _user_of(credentials: bytes | int) -> int:
    if isinstance(credentials, int):
        return -1
    return _CREDENTIALS.unpack(credentials)[1]
