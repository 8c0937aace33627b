"""The chain of `tests/unit/node_core/chains.py` on a real disk: LevelDB and segment files."""

import trio

from ledger.store.bodies import BodyFiles
from ledger.store.leveldb import LevelStore
from node.damage import refuse_marked
from tests.unit.node_core.chains import LocalChain, make_batch, make_transaction, register


class DiskChain(LocalChain):
    """Use it as a context: opening does what a node does when it starts."""

    def __init__(self, folder, log=None):
        self.folder = folder
        self._opened = []
        refuse_marked(folder)
        try:
            self.block_data = self._keep(LevelStore(folder / "blocks"))
            self.state_data = self._keep(LevelStore(folder / "state"))
            self.bodies = self._keep(BodyFiles(folder / "bodies"))
            self.open()
            trio.run(self.writer.recover, log, lambda _height: None)
        except BaseException:
            self.close()
            raise

    def _keep(self, store):
        self._opened.append(store)
        return store

    def close(self):
        while self._opened:
            self._opened.pop().close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def numbered_batch(number):
    """A batch of ten registrations, different for every number."""
    transactions = [make_transaction(register(number * 10 + n), number * 10 + n) for n in range(10)]
    return make_batch(transactions, sequence=number)


def grow(folder, first, last):
    """Decide the blocks of these heights in one life of a node."""
    with DiskChain(folder) as chain:
        for number in range(first, last + 1):
            chain.decide(numbered_batch(number))
