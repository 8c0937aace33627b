"""A real chain in memory behind `NodeService`: real blocks, state, history and changing members.

Unlike the chain of tests/unit/rpc_methods it commits to everything that a light client checks.
"""

import trio

from ledger import limits
from ledger.errors import Reason, Rejected
from ledger.ids import TransactionId
from ledger.transaction import parse_transaction, verify_signatures
from node.light import LightQueries
from node.proofs import Proofs
from node.queries import Queries
from node.service import ConsensusView, Info
from tests.unit.node_core.chains import CHAIN, GENESIS, LocalChain, make_batch


class LocalNode:
    """One node; `decides` False leaves transactions pending."""

    def __init__(self, local: LocalChain | None = None, *, decides: bool = True) -> None:
        self.local = LocalChain() if local is None else local
        self.chain = CHAIN
        self.genesis = GENESIS
        self.decides = decides
        self.pool = {}
        self._queries = Queries(self.local.writer)
        self.light = LightQueries(self.local.writer)
        self.proofs = Proofs(self._queries)

    @property
    def height(self) -> int:
        return self.local.tip.height

    def info(self) -> Info:
        tip = self.local.tip
        return Info(
            chain_id=GENESIS.chain_name,
            genesis_hash=CHAIN.genesis_hash,
            group=CHAIN.group,
            version="0.1.0",
            protocol_version=limits.PROTOCOL_VERSION,
            node="local",
            height=tip.height,
            latest_block_hash=tip.block_hash,
            latest_block_time=tip.time,
            transactions=tip.transactions,
            operations=tip.operations,
            pending=len(self.pool),
            masters=len(self.local.writer.validators.members),
            mode="flat",
            peers=0,
            syncing=False,
        )

    def peers(self):
        return ()

    def consensus(self):
        return ConsensusView(self.height + 1, 0, "propose", ("local",), 3, "local", (), True)

    async def submit(self, wires, client=""):
        await trio.lowlevel.checkpoint()
        results = [self._admit(wire) for wire in wires]
        if self.decides and self.pool:
            await self._decide(make_batch(self.pool.values(), sequence=self.height))
            self.pool = {}
            await self._decide()
        return results

    def _admit(self, wire):
        try:
            transaction = parse_transaction(wire, CHAIN)
            verify_signatures(transaction, CHAIN)
        except Rejected as refusal:
            return refusal
        if not self._queries.located(transaction.id):
            self.pool[transaction.id] = transaction
        return transaction.id

    async def _decide(self, *batches) -> None:
        """As `LocalChain.decide`, on the loop that serves."""
        block, certificate = self.local.next_block(*batches)
        places = [self.local.bodies.append(batch.wire) for batch in batches]
        await self.local.writer.append(block, certificate, batches, places, lambda _height: None)

    async def committed(self, transaction_id):
        return await self._queries.committed(transaction_id)

    async def wait_committed(self, transaction_id):
        found = await self._queries.committed(transaction_id)
        if found is None:
            await trio.sleep_forever()  # nothing is decided while somebody waits
        return found

    async def wait_height(self, height):
        if self.height < height:
            await trio.sleep_forever()

    def is_pending(self, transaction_id: TransactionId) -> bool:
        return transaction_id in self.pool

    async def transaction(self, any_id):
        return await self._queries.transaction(any_id)

    async def block(self, height):
        return await self._queries.block(height)

    def height_of(self, block_hash):
        return self.local.blocks.height_of(block_hash)

    async def proof(self, any_id):
        return await self._queries.proof(any_id)

    def method(self, module, contract, name):
        return self.local.executor.engine.method(module, contract, name)

    def read(self, module, level, contract, view, arguments):
        if not self.local.executor.engine.has_namespace(module, level):
            raise Rejected(Reason.UNKNOWN_NAMESPACE, module=module, level=level)
        return self._queries.read(module, level, contract, view, arguments)
