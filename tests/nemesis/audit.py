"""Holds the stores of stopped nodes against each other and against what clients were told.

What it decides: whether all nodes hold one chain and one state, whether each transaction ran once,
and whether every acknowledgement was true. It uses the product's formats, none of its bookkeeping.
"""

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field

from ledger.batch import parse_batch
from ledger.block import BLOCK, HEADER, Header, block_hash
from ledger.crypto.suite import CryptoSuite
from ledger.genesis import genesis_validators, node_address
from ledger.receipts import RECEIPT, Status
from ledger.store.blocks import BlockStore
from ledger.store.bodies import BodyFiles
from ledger.store.leveldb import LevelStore
from ledger.store.results import NamespaceResult, StateStore
from ledger.transaction import Transaction, operation_ids
from ledger.votes import CERTIFICATE, VoteType, verify_certificate

from .clients import Account
from .cluster import Cluster, Node, Violation
from .evidence import Evidence

_END = b"\xff" * 8
_NOT_RUN = {Status.DUPLICATE, Status.EXPIRED}


@dataclass
class _Stores:
    """The open stores of one stopped node."""

    node: Node
    blocks: BlockStore
    state: StateStore
    raw_state: LevelStore


@dataclass
class Executed:
    """What one chain says: first results by transaction, and every id that was ordered."""

    results: dict[str, tuple[int, str]] = field(default_factory=dict)
    ordered: set[str] = field(default_factory=set)


def audit(cluster: Cluster, account: Account, evidence: Evidence) -> int:
    """Check everything that the stopped nodes of a cluster hold; the height they stand at.

    Raises: Violation.
    """
    with ExitStack() as stack:
        stores = [_open(node, stack) for node in cluster.nodes]
        height = _one_height(stores)
        executed = _one_chain(cluster, stores, height, evidence)
        _one_state(stores)
    compare(executed, account)
    return height


def _open(node: Node, stack: ExitStack) -> _Stores:
    bodies = BodyFiles(node.data / "bodies")
    stack.callback(bodies.close)
    raw_blocks, raw_state = LevelStore(node.data / "blocks"), LevelStore(node.data / "state")
    stack.callback(raw_blocks.close)
    stack.callback(raw_state.close)
    return _Stores(node, BlockStore(raw_blocks, bodies), StateStore(raw_state), raw_state)


def _one_height(stores: list[_Stores]) -> int:
    stands = {one.node.name: (one.blocks.height, one.state.tip.height) for one in stores}
    if len({height for pair in stands.values() for height in pair}) != 1:
        raise Violation(f"the stores end at different heights (blocks, state): {stands}")
    return stores[0].blocks.height


def _one_chain(
    cluster: Cluster, stores: list[_Stores], height: int, evidence: Evidence
) -> Executed:
    """Every block and its receipts are the same everywhere, linked, certified, and run once."""
    chain = cluster.chain
    authors = {bytes(node_address(node)): node.name for node in cluster.genesis.nodes}
    executed = Executed()
    previous = chain.genesis_hash
    for number in range(1, height + 1):
        found = [one.blocks.block(number) for one in stores]
        receipts = [one.state.receipts(number) for one in stores]
        _all_equal(f"block {number}", stores, [block.block for block in found])
        _all_equal(f"receipts of block {number}", stores, receipts)
        block = BLOCK.decode(found[0].block)
        header = HEADER.decode(block.header)
        digest = block_hash(block.header, chain.suite)
        if header.previous_hash != previous or header.height != number:
            raise Violation(f"block {number} does not follow block {number - 1}")
        previous = digest
        for stored in found:
            _check_certificate(stored.certificate, header, digest, cluster, evidence)
        _same_batches(stores, block.batches, number)
        statuses = _statuses(receipts[0])
        for wire in stores[0].blocks.batches(block.batches):
            batch = parse_batch(wire, chain)
            evidence.note_batch(authors[batch.header.author], batch.header.sequence, batch.digest)
            for transaction in batch.transactions:
                executed.ordered.add(transaction.id.hex())
                _note_results(executed, transaction, number, statuses, chain.suite)
    return executed


def _all_equal(what: str, stores: list[_Stores], values: list) -> None:
    for one, value in zip(stores, values, strict=True):
        if value is None or value != values[0]:
            raise Violation(f"{what} differs between {stores[0].node.name} and {one.node.name}")


def _check_certificate(
    data: bytes, header: Header, digest: bytes, cluster: Cluster, evidence: Evidence
) -> None:
    certificate = CERTIFICATE.decode(data)
    if (certificate.height, certificate.block_hash) != (header.height, digest):
        raise Violation(f"the certificate of block {header.height} is of another block")
    verify_certificate(certificate, genesis_validators(cluster.genesis), cluster.chain)
    for index, _ in certificate.signatures:
        key = (index, certificate.height, certificate.round, int(VoteType.PRECOMMIT))
        evidence.note_vote(key, (certificate.block_hash, -1), "a certificate")


def _same_batches(stores: list[_Stores], digests: tuple[bytes, ...], height: int) -> None:
    """Bodies are read with their checksums, so that a place that leads nowhere is found."""
    _all_equal(f"bodies of block {height}", stores, [one.blocks.batches(digests) for one in stores])


def _statuses(results: tuple[NamespaceResult, ...]) -> dict[bytes, list[int]]:
    """The statuses of a block's receipts by operation, in order."""
    statuses: dict[bytes, list[int]] = {}
    for result in results:
        for data in result.receipts:
            receipt = RECEIPT.decode(data)
            statuses.setdefault(receipt.id, []).append(receipt.status)
    return statuses


def _note_results(
    executed: Executed,
    transaction: Transaction,
    height: int,
    statuses: dict[bytes, list[int]],
    suite: CryptoSuite,
) -> None:
    names = []
    for operation in operation_ids(transaction, suite):
        if operation not in statuses:
            raise Violation(f"operation {operation.hex()} of block {height} has no receipt")
        real = [one for one in statuses[operation] if one not in _NOT_RUN]
        names += [Status(one).name for one in real]
        if len(real) > 1:
            raise Violation(f"operation {operation.hex()} ran twice within block {height}")
    if not names:
        return
    name = transaction.id.hex()
    earlier = executed.results.get(name)
    if earlier is not None and earlier[0] != height:
        raise Violation(f"{name} ran twice: in {earlier} and at {height}")
    executed.results[name] = (height, names[0] if len(set(names)) == 1 else "PARTIAL")


def _one_state(stores: list[_Stores]) -> None:
    """Every key and value of the state stores is the same, not only the root that sums it up."""
    _all_equal("the state tip", stores, [one.state.tip for one in stores])
    _all_equal("the content of the state", stores, [_digest(one.raw_state) for one in stores])


def _digest(store: LevelStore) -> bytes:
    digest = hashlib.sha256()
    for key, value in store.scan(b"", _END, reverse=False):
        digest.update(len(key).to_bytes(4, "big") + key + len(value).to_bytes(4, "big") + value)
    return digest.digest()


def compare(executed: Executed, account: Account) -> None:
    """What clients were told is what happened.

    Raises: Violation.
    """
    for name, told in account.acknowledged.items():
        found = executed.results.get(name)
        if found is None:
            raise Violation(f"lost: {name} was acknowledged as {told} and stands in no block")
        if found != told:
            raise Violation(f"{name} was acknowledged as {told}, and the chain says {found}")
    strangers = executed.ordered - account.sent.keys()
    if strangers:
        raise Violation(f"nobody sent {sorted(strangers)[:3]}")
    believed = executed.ordered & account.refused.keys()
    if believed:
        raise Violation(f"refused and yet ordered: {sorted(believed)[:3]}")
