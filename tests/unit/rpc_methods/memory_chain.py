"""A chain of one validator in memory: real blocks, receipts and proofs behind `NodeService`."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from contracts.engine import Engine, Outcome
from contracts.interface import BlockContext
from ledger import limits
from ledger.addresses import AddressKind, address_of, encode_text, single_key_script
from ledger.batch import (
    GENESIS_BATCH,
    BatchHeader,
    batch_digest,
    build_batch,
    namespace_order,
    parse_batch,
    summarise,
)
from ledger.block import Block, NamespaceReceipts, block_hash, empty_root, receipts_root
from ledger.chain import Choice, Tip, derive_header
from ledger.codec import encode
from ledger.crypto.keys import KeyType
from ledger.crypto.suites import INTERNATIONAL
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.genesis import (
    Account,
    Genesis,
    Module,
    Node,
    Organisation,
    Parameters,
    chain_of,
    genesis_hash,
    genesis_validators,
)
from ledger.merkle import root_of_entries
from ledger.proof import RegistrationProof
from ledger.receipts import RECEIPT, RECEIPT_TAG, Status
from ledger.replay import ReplayWindow
from ledger.state import Overlay
from ledger.transaction import operation_ids, parse_transaction, verify_signatures
from ledger.votes import Certificate, VoteType, vote_digest
from node.service import Committed, ConsensusView, FoundBlock, FoundTransaction, Info, PeerView
from rpc.client import Signer
from rpc.http import HttpConfig, serve_http
from rpc.methods import build_app

NODE_SECRET = bytes(31) + b"\x07"
ACCOUNT_SECRET = bytes(31) + b"\x09"
TIME = 1_790_000_000_000
SUITE = INTERNATIONAL


def address_text(kind: AddressKind, secret: bytes) -> str:
    key = SUITE.public_key(secret)
    return encode_text(kind, address_of(single_key_script(kind, key), SUITE))


def small_genesis(chain_name: str = "memory") -> Genesis:
    return Genesis(
        format="kanglian-genesis/1",
        chain_name=chain_name,
        group=0,
        time=TIME,
        suite="international",
        account_keys=("secp256k1",),
        authority="00" * 32,
        organisations=(Organisation(id="demo_hospital", name="示范市第一人民医院"),),
        nodes=(
            Node(
                name="node0",
                address=address_text(AddressKind.NODE, NODE_SECRET),
                key=SUITE.public_key(NODE_SECRET).hex(),
                organisation="demo_hospital",
                role="master",
            ),
        ),
        accounts=(
            Account(
                address=address_text(AddressKind.TERMINAL, ACCOUNT_SECRET),
                organisation="demo_hospital",
                role="admin",
            ),
        ),
        modules=(
            Module(name="emr", max_level=3, contracts=("data_index",)),
            Module(name="system", max_level=0, contracts=("accounts",)),
        ),
        parameters=Parameters(),
    )


def account_signer_of(genesis: Genesis, secret: bytes = ACCOUNT_SECRET) -> Signer:
    script = single_key_script(AddressKind.TERMINAL, SUITE.public_key(secret))
    chain = chain_of(genesis)
    return Signer(chain, KeyType.SECP256K1, secret, script, address_of(script, SUITE))


class MemoryState:
    """Committed state as dictionaries."""

    def __init__(self) -> None:
        self.maps = {}
        self.logs = {}

    def get(self, key):
        return self.maps.get(key)

    def log_count(self, log):
        return len(self.logs.get(log, ()))

    def log_entry(self, log, sequence):
        entries = self.logs.get(log, ())
        return entries[sequence] if 0 <= sequence < len(entries) else None

    def log_find(self, log, key, after, limit):
        entries = enumerate(self.logs.get(log, ()))
        return [index for index, entry in entries if entry.key == key and index > after][:limit]

    def apply(self, writes):
        for key, value in writes.maps:
            self.maps[key] = value
        for write in writes.logs:
            self.logs.setdefault(write.log, []).extend(write.entries)


def state_root_of(overlay):
    """Nothing here proves state, so anything that follows from the writes will do."""
    return SUITE.digest(encode(overlay.write_set()))


class MemoryNode:
    """`NodeService` over the chain; `decides` False leaves transactions pending."""

    def __init__(self, genesis: Genesis | None = None, *, decides: bool = True) -> None:
        self.genesis = small_genesis() if genesis is None else genesis
        self.chain = chain_of(self.genesis)
        self.decides = decides
        self.syncing = False
        self.refuses = None
        self._engine = Engine(self.chain, self.genesis.modules)
        self._state = MemoryState()
        self._window = ReplayWindow()
        self._validators = genesis_validators(self.genesis)
        self._pool = {}
        self._blocks = []
        self._receipts = []
        self._located = {}
        overlay = Overlay(self._state)
        self._engine.install(overlay, self.genesis)
        self._state.apply(overlay.write_set())
        root = state_root_of(overlay)
        empty = empty_root(SUITE)
        self._tip = Tip(
            0,
            genesis_hash(self.genesis),
            self.genesis.time,
            root,
            empty,
            empty,
            empty,
            must_follow=False,
        )
        self._certificate = b""

    @property
    def height(self) -> int:
        return self._tip.height

    def info(self) -> Info:
        return Info(
            chain_id="memory-1",
            genesis_hash=self.chain.genesis_hash,
            group=0,
            version="0.1.0",
            protocol_version=limits.PROTOCOL_VERSION,
            node="node0",
            height=self.height,
            latest_block_hash=self._tip.block_hash,
            latest_block_time=self._tip.time,
            transactions=len(self._located),
            operations=len(self._located),
            pending=len(self._pool),
            masters=1,
            mode="flat",
            peers=0,
            syncing=self.syncing,
        )

    def peers(self):
        return (PeerView("node1", "kn1", "master", False, "", "", 0, None, 0, 0),)

    def consensus(self):
        return ConsensusView(self.height + 1, 0, "propose", ("node0",), 1, "node0", (), True)

    async def submit(self, wires, client=""):
        await trio.lowlevel.checkpoint()
        results = [self._admit(wire) for wire in wires]
        while self.decides and self._pool:
            self.decide()
        return results

    def _admit(self, wire):
        if self.refuses is not None:
            return self.refuses
        try:
            transaction = parse_transaction(wire, self.chain)
            if transaction.id not in self._located:
                verify_signatures(transaction, self.chain)
                if self._engine.account(Overlay(self._state), transaction.body.account) is None:
                    return Rejected(Reason.UNKNOWN_ACCOUNT)
                self._pool[transaction.id] = transaction
        except Rejected as refusal:
            return refusal
        return transaction.id

    def decide(self) -> None:
        """One block of everything that waits."""
        transactions = sorted(self._pool.values(), key=namespace_order)
        self._pool = {}
        batches = (self._batch(transactions),) if transactions else ()
        time = self._tip.time + 100
        header = derive_header(
            self.chain,
            self._tip,
            self._validators,
            self._validators,
            self._certificate,
            batches,
            Choice(0, time, ()),
        )
        data = encode(header)
        block = Block(data, self._certificate, tuple(batch.digest for batch in batches))
        name = block_hash(data, SUITE)
        digest = vote_digest(self.chain, VoteType.PRECOMMIT, header.height, 0, name)
        signature = SUITE.sign(NODE_SECRET, digest)
        self._certificate = encode(Certificate(header.height, 0, name, ((0, signature),)))
        self._blocks.append(FoundBlock(data, header, block, name, self._certificate, batches))
        self._execute(header, name, batches)

    def _batch(self, transactions):
        header = BatchHeader(
            version=limits.PROTOCOL_VERSION,
            genesis_hash=self.chain.genesis_hash,
            group=0,
            author=self._validators.members[0].address,
            sequence=self.height,
            previous=GENESIS_BATCH,
            clock=0,
            anchor_height=0,
            anchor_hash=bytes(32),
            namespaces=summarise(transactions, SUITE),
        )
        signature = SUITE.sign(NODE_SECRET, batch_digest(encode(header), SUITE))
        return parse_batch(build_batch(header, signature, transactions), self.chain)

    def _execute(self, header, name, batches):
        overlay, outcome = Overlay(self._state), Outcome()
        transactions = [item for batch in batches for item in batch.transactions]
        for index, transaction in enumerate(transactions):
            before = len(outcome.located)
            context = BlockContext(header.height, header.time)
            position = (0, index)
            self._engine.execute(overlay, self._window, context, transaction, position, outcome)
            for operation_id, locator in outcome.located[before:]:
                place = (header.height, index, transaction, locator.operation)
                self._located[operation_id] = place
            self._located.setdefault(transaction.id, (header.height, index, transaction, None))
        self._state.apply(overlay.write_set())
        entries = {
            place: root_of_entries(SUITE.digest, [RECEIPT_TAG + item for item in receipts])
            for place, receipts in sorted(outcome.receipts.items())
        }
        namespaces = [
            NamespaceReceipts(module, level, len(outcome.receipts[module, level]), root)
            for (module, level), root in entries.items()
        ]
        self._receipts.append(outcome.receipts)
        self._tip = Tip(
            header.height,
            name,
            header.time,
            state_root_of(overlay),
            receipts_root(namespaces, SUITE),
            self._tip.replay_root,
            self._tip.history_root,
            must_follow=bool(transactions),
        )

    async def committed(self, transaction_id):
        found = self.found_transaction(transaction_id)
        if found is None:
            return None
        statuses = tuple(Status(receipt.status).name for receipt in found.receipts)
        return Committed(found.block_height, statuses)

    async def wait_committed(self, transaction_id):
        committed = await self.committed(transaction_id)
        if committed is None:
            await trio.sleep_forever()  # nothing is decided while somebody waits
        return committed

    async def wait_height(self, height):
        if self.height < height:
            await trio.sleep_forever()

    def is_pending(self, transaction_id):
        return transaction_id in self._pool

    async def transaction(self, any_id):
        return self.found_transaction(any_id)

    def found_transaction(self, any_id):
        place = self._located.get(any_id)
        if place is None:
            return None
        height, index, transaction, operation = place
        ids = operation_ids(transaction, SUITE)
        namespace = (transaction.body.module, transaction.body.level)
        receipts = [RECEIPT.decode(item) for item in self._receipts[height - 1][namespace]]
        own = tuple(next(one for one in receipts if one.id == name) for name in ids)
        asked = None if any_id == transaction.id else operation
        time = self._blocks[height - 1].header.time
        return FoundTransaction(transaction, height, time, index, asked, ids, own)

    async def block(self, height):
        return self.found_block(height)

    def found_block(self, height):
        return self._blocks[height - 1] if 1 <= height <= self.height else None

    def height_of(self, name):
        heights = {block.block_hash: block.header.height for block in self._blocks}
        return heights.get(name)

    async def proof(self, any_id):
        return self.made_proof(any_id)

    def made_proof(self, any_id):
        if any_id not in self._located:
            return None
        height, _, transaction, operation = self._located[any_id]
        if height == self.height:
            raise UnavailableError(f"header {height + 1} is not decided yet")
        block, following = self._blocks[height - 1], self._blocks[height]
        return RegistrationProof.build(
            self.chain,
            block.batches,
            transaction.id,
            operation or 0,
            block.header_bytes,
            block.certificate,
            self._receipts[height - 1],
            following.header_bytes,
            following.certificate,
        )

    def method(self, module, contract, name):
        return self._engine.method(module, contract, name)

    def read(self, module, level, contract, view, arguments):
        context = BlockContext(self.height, self._tip.time)
        if not self._engine.has_namespace(module, level):
            raise Rejected(Reason.UNKNOWN_NAMESPACE, module=module, level=level)
        overlay = Overlay(self._state)
        return self._engine.read(overlay, context, module, level, contract, view, arguments)


@contextmanager
def served(node: MemoryNode) -> Iterator[str]:
    """The address of a front door over `node` on loopback; its loop runs in a thread."""
    ports: queue.Queue[int] = queue.Queue()
    holder = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            holder.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            app = build_app(node, lambda: b"")
            config = HttpConfig("127.0.0.1", 0, stop_grace_ms=100)
            ports.put(await nursery.start(serve_http, config, app))

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=10)}"
    finally:
        token, scope = holder[0]
        trio.from_thread.run_sync(scope.cancel, trio_token=token)
        thread.join(timeout=10)
