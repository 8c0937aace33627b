"""Work on the data folder of a stopped node: make its statement, release it from quarantine.

The folder is locked meanwhile, so no node can start on it.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from consensus.messages import NO_ROUND
from genesis.networks import read_genesis
from ledger.block import block_hash
from ledger.errors import Reason, Rejected
from ledger.genesis import chain_of
from ledger.store.blocks import BlockStore
from ledger.store.bodies import BodyFiles
from ledger.store.leveldb import LevelStore
from ledger.store.results import StateStore
from ledger.transaction import Chain
from node import journal
from node.config import NodeConfig
from node.folder_lock import locked
from node.identity import Identity, identify
from node.keystore import PassphraseSource, load_key
from node.limits import RELEASE_ROUNDS
from node.log_entries import LoggedRelease, Memory, Recovered
from node.members import Members
from node.quarantine import open_log
from node.release import Release, judge
from node.rulers import Rulers
from node.statement import Statement, make_statement
from node.wal import WriteAheadLog, read_log

LOG_FILE = "consensus.wal"
"""The write-ahead log in a data folder."""


@dataclass(frozen=True, slots=True)
class StoppedNode:
    """A node that does not run, with its folder locked."""

    chain: Chain
    identity: Identity
    blocks: BlockStore
    rulers: Rulers
    log_path: Path

    def statement(self, now_ms: int) -> Statement:
        """What this node states of itself.

        Raises: UnavailableError when the log cannot be read, Rejected when the state is so far
        behind the blocks that it does not say who votes at the next height.
        """
        log = read_log(self.log_path)
        validators = self.rulers.at(self.blocks.height + 1)
        return make_statement(self.identity, self.chain, validators, self.blocks, log, now_ms)

    def release(self, statements: Sequence[Statement], now_ms: int) -> Release:
        """Release this node by these statements; durable when this returns.

        Raises: Rejected when it is not in quarantine, or the statements do not suffice.
        """
        me = self.identity.address
        release = judge(self.chain, self.rulers, me, statements, self._hash_at)
        log = open_log(self.log_path, self.blocks.height, now_ms)
        try:
            entry = _beyond_own_rounds(release.entry, log.recovered)
            self._check_quarantine(log, entry)
            log.append(entry)
            log.sync()
        finally:
            log.close()
        return Release(entry, release.organisations, release.intact_nodes, release.damaged_nodes)

    @property
    def _name(self) -> str:
        return self.identity.name

    def _hash_at(self, height: int) -> bytes | None:
        decided = self.blocks.decided(height)
        return None if decided is None else block_hash(decided.header, self.chain.suite)

    def _check_quarantine(self, log: WriteAheadLog, entry: LoggedRelease) -> None:
        ended, before = log.recovered.ended, log.recovered.release
        is_free = (
            ended is not None
            and ended.memory is Memory.COMPLETE
            and ended.voting_from <= entry.height
        )
        # A second release could undo the lock of the first, under which it may have voted.
        if is_free or (before is not None and before != entry):
            raise Rejected(
                Reason.BAD_STATEMENT,
                "this node is not in quarantine, or was released before",
                node=self._name,
            )


def _beyond_own_rounds(entry: LoggedRelease, recovered: Recovered) -> LoggedRelease:
    """The release, not to vote in a round of which this node's own log still knows."""
    own = [signed.message for signed in journal.own_messages(recovered.entries)]
    rounds = [message.round for message in own if message.height == entry.height]
    after = max(rounds, default=NO_ROUND) + RELEASE_ROUNDS
    return msgspec.structs.replace(entry, after_round=max(entry.after_round, after))


@contextmanager
def stopped_node(config: NodeConfig, passphrase: PassphraseSource) -> Generator[StoppedNode]:
    """Open the folder of a node that does not run.

    Raises: FolderInUseError, and what opening a node raises.
    """
    folder = config.node.data_dir
    genesis = read_genesis(config.node.genesis_file)
    chain = chain_of(genesis)
    key = load_key(config.node.key_file, passphrase)
    with locked(folder), ExitStack() as stack:
        store, bodies = LevelStore(folder / "blocks"), BodyFiles(folder / "bodies")
        stack.callback(store.close)
        stack.callback(bodies.close)
        state = StateStore(LevelStore(folder / "state"))
        stack.callback(state.close)
        blocks = BlockStore(store, bodies)
        members = Members(genesis, state, lambda: blocks.height + 1)
        identity = identify(config.node, key, chain.suite, members)
        yield StoppedNode(chain, identity, blocks, Rulers(genesis, state), folder / LOG_FILE)
