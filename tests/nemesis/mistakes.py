"""Mistakes of durability that can be planted in a node, to see that the harness finds them.

Each patches the product in the process of the launcher. A missing fdatasync is not among them:
after SIGKILL the kernel still holds every page that was written, so only a simulated disk can see
it (crash enumeration does).
"""

from consensus.core import Core
from ledger.block import HEADER
from ledger.replay import ReplayWindow
from ledger.store.blocks import BlockStore
from ledger.store.leveldb import LevelStore
from node import journal
from node.chain_writer import ChainWriter
from node.executor import Executor
from node.log_entries import EndedHeight, LoggedBatch, LoggedProposal, LoggedVote
from node.node import RunningNode
from node.wal import WriteAheadLog


def log_behind():
    """The log reaches the operating system at the end of a height, not before a message leaves."""
    end_height = WriteAheadLog.end_height
    write = WriteAheadLog._write

    def later(log, ended):
        end_height(log, ended)
        write(log)

    WriteAheadLog._write = lambda _log: None
    WriteAheadLog.end_height = later


def forget_inputs():
    """The log holds what this node signed, and not what made it sign."""
    append = WriteAheadLog.append

    def only_own(log, entry):
        is_own = isinstance(entry, LoggedVote | LoggedProposal) and entry.own
        if is_own or isinstance(entry, EndedHeight | LoggedBatch):
            append(log, entry)

    WriteAheadLog.append = only_own


def skip_replay():
    """The log is opened, and nothing of it is fed to the core."""
    journal.replay = lambda _entries, core, *_: Core.resume(core)


def forget_log():
    """The log is lost at every start, and the node votes as if it were not."""
    opened = WriteAheadLog.__init__

    def empty(log, path, *rest):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        opened(log, path, *rest)

    WriteAheadLog.__init__ = empty


def end_height_before_block():
    """The log says that a height ended while its block is still on its way to the disk."""
    append = ChainWriter.append

    async def early(writer, block, certificate, batches, places, end_height):
        end_height(HEADER.decode(block.header).height)
        end_height.__self__._log.sync()
        await append(writer, block, certificate, batches, places, lambda _height: None)

    ChainWriter.append = early


def stores_behind():
    """Stores answer before they wrote: every eighth write takes the seven before it along."""
    write, get = LevelStore.write, LevelStore.get
    held = {}

    def later(store, writes):
        pending = held.setdefault(id(store), [])
        pending.append(list(writes))
        if len(pending) >= 8:
            write(store, [one for several in pending for one in several])
            pending.clear()

    def newest(store, key):
        for several in reversed(held.get(id(store), [])):
            for found, value in reversed(several):
                if found == key:
                    return value
        return get(store, key)

    LevelStore.write, LevelStore.get = later, newest


def block_not_written():
    """Every fourth block is executed, and never written."""
    append = BlockStore.append

    def forgetful(store, height, *rest):
        if height % 4:
            append(store, height, *rest)
        else:
            store.height = height

    BlockStore.append = forgetful


def state_in_two_writes():
    """The state of a block is written before its height: a crash between them runs it twice."""
    write = LevelStore.write

    def halves(store, writes):
        tip = [one for one in writes if one[0] == b"t"]
        if any(one[0][:1] == b"y" for one in writes):
            write(store, [one for one in writes if one[0] != b"t"])
            write(store, tip)
        else:
            write(store, writes)

    LevelStore.write = halves


def answer_early():
    """Clients are told a height as soon as their transaction is admitted."""
    committed = RunningNode.committed

    async def hopeful(node, transaction_id):
        found = await committed(node, transaction_id)
        if found is None and node.is_pending(transaction_id):
            from node.service import Committed

            return Committed(node.height + 1, ("OK",))
        return found

    RunningNode.committed = hopeful


def forget_window():
    """Which ids were executed is not remembered over a restart."""
    restore = Executor._restore_window

    def forgetful(executor, tip):
        restore(executor, tip)
        executor.window = ReplayWindow()

    Executor._restore_window = forgetful


def reuse_sequence():
    """Own batches are not logged, and numbers go on from the last ended height's."""
    append = WriteAheadLog.append

    def without_batches(log, entry):
        if not (isinstance(entry, LoggedBatch) and entry.own_sequence >= 0):
            append(log, entry)

    WriteAheadLog.append = without_batches


def skip_execution():
    """A block that was decided but not executed is not executed after a restart either."""

    async def hasty(writer, log, end_height):
        writer._load_demotions()
        recovered = log.recovered
        ended = 0 if recovered.ended is None else recovered.ended.height
        if ended < writer.blocks.height:
            end_height(writer.blocks.height)
            recovered.entries.clear()

    ChainWriter.recover = hasty


BUGS = {
    bug.__name__: bug
    for bug in (
        log_behind,
        forget_inputs,
        skip_replay,
        forget_log,
        end_height_before_block,
        stores_behind,
        block_not_written,
        state_in_two_writes,
        answer_early,
        forget_window,
        reuse_sequence,
        skip_execution,
    )
}
