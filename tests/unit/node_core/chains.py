"""A chain in memory that can be shut down and opened again at any moment.

The real executor, chain writer and stores over in-memory ports; four validators whose keys are at
hand, two organisations, an admin and a member. Nothing here checks signatures unless it says so.
"""

from typing import Any

import msgspec
import trio

from contracts.interface import BlockContext
from ledger import limits
from ledger.addresses import AddressKind, address_of, encode_text, single_key_script
from ledger.batch import (
    GENESIS_BATCH,
    Batch,
    BatchHeader,
    batch_digest,
    build_batch,
    namespace_order,
    parse_batch,
    summarise,
)
from ledger.block import Block, block_hash
from ledger.codec import encode
from ledger.genesis import (
    Account,
    Genesis,
    Module,
    Node,
    Organisation,
    Parameters,
    chain_of,
    genesis_validators,
)
from ledger.ids import Address, ValidatorIndex
from ledger.receipts import RECEIPT, Receipt
from ledger.state import Overlay
from ledger.store.blocks import BlockStore
from ledger.store.memory import MemoryBodies, MemoryStore
from ledger.store.results import StateStore
from ledger.transaction import (
    Call,
    EnvelopeSummary,
    SignedTransaction,
    Transaction,
    TransactionBody,
    operation_ids,
    operations_root,
    parse_transaction,
)
from ledger.validators import ValidatorSet
from ledger.votes import Certificate, VoteType, vote_digest
from node.chain_writer import ChainWriter
from node.executor import Executor
from node.stages import StageClock
from node.synced import FetchedBlock
from tests.unit.ledger.worlds import (
    RESIDENT,
    SUITE,
    VALIDATOR_NAMES,
    VALIDATOR_SECRETS,
    Signer,
    key,
    register_call,
    secret,
    signed_wire,
    single_signer,
)

TIME = 1_760_000_000_000
ADMIN = single_signer("admin of the hospital")
MEMBER = single_signer("member of the hospital")
CLINIC = single_signer("admin of the clinic")
CENTRE = single_signer("admin of the centre")
UNIVERSITY = single_signer("admin of the university")
STRANGER = single_signer("stranger")
PARAMETERS = Parameters(heartbeat_ms=60_000)
UNSIGNED = ((0, bytes(64)),)
ORGANISATIONS = ("hospital", "clinic", "centre", "university")
ADMINS = (ADMIN, CLINIC, CENTRE, UNIVERSITY)
"""One of each organisation, in the same order; each of them runs one master of genesis."""
NEWCOMERS = tuple(f"newcomer {number}" for number in range(12))


def node_name(name: str) -> Address:
    """The address of the node whose secret is that of `name`."""
    return address_of(single_key_script(AddressKind.NODE, key(name)), SUITE)


NODE_SECRETS = {node_name(name): secret(name) for name in (*VALIDATOR_NAMES, *NEWCOMERS)}
"""The secret of every node of these tests by its address."""


def _genesis() -> Genesis:
    nodes = [
        Node(
            name=name.replace(" ", "_"),
            address=encode_text(
                AddressKind.NODE,
                node_name(name),
            ),
            key=key(name).hex(),
            organisation=organisation,
            role="master",
        )
        for name, organisation in zip(VALIDATOR_NAMES, ORGANISATIONS, strict=True)
    ]
    accounts = [
        Account(ADMIN.text, "hospital", "admin"),
        Account(MEMBER.text, "hospital", "member"),
        Account(RESIDENT.text, "hospital", "member"),
        Account(CLINIC.text, "clinic", "admin"),
        Account(CENTRE.text, "centre", "admin"),
        Account(UNIVERSITY.text, "university", "admin"),
    ]
    return Genesis(
        format="kanglian-genesis/1",
        chain_name="A chain in memory",
        group=0,
        time=TIME,
        suite="international",
        account_keys=("secp256k1", "p256"),
        authority=secret("authority").hex(),
        organisations=(
            Organisation("centre", "中心"),
            Organisation("clinic", "诊所"),
            Organisation("hospital", "市医院"),
            Organisation("university", "大学"),
        ),
        nodes=tuple(sorted(nodes, key=lambda node: node.address)),
        accounts=tuple(sorted(accounts, key=lambda account: account.address)),
        modules=(
            Module("emr", 3, ("data_index",)),
            Module("system", 0, ("accounts", "evidence", "membership")),
            Module("trial", 1, ("data_index",)),
        ),
        parameters=PARAMETERS,
    )


GENESIS = _genesis()
CHAIN = chain_of(GENESIS)
VALIDATORS = genesis_validators(GENESIS)


def make_transaction(
    calls: Call | tuple[Call, ...],
    nonce: int,
    *,
    by: Signer = MEMBER,
    atomic: bool = False,
    is_signed: bool = False,
    **changes: Any,
) -> Transaction:
    """A single call, or an envelope of several; `changes` replace fields of the body."""
    operations = None if isinstance(calls, Call) else calls
    if operations is None:
        payload = calls
    else:
        payload = EnvelopeSummary(len(operations), operations_root(operations, SUITE), atomic)
    body = TransactionBody(
        version=limits.PROTOCOL_VERSION,
        genesis_hash=CHAIN.genesis_hash,
        group=CHAIN.group,
        module="emr",
        level=0,
        account=by.address,
        signer=None,
        nonce=nonce.to_bytes(16, "big"),
        valid_until=TIME + 600_000,
        client_time=TIME,
        after=None,
        payload=payload,
    )
    body = msgspec.structs.replace(body, **changes)
    if is_signed:
        wire = signed_wire(body, by, operations)
    else:
        wire = encode(SignedTransaction(encode(body), by.script, UNSIGNED, operations))
    return parse_transaction(wire, CHAIN)


def register(number: int, level: int = 0) -> Call:
    """The call that registers index `number`; equal numbers are equal bytes."""
    return register_call(number, MEMBER, level)


def make_batch(transactions, sequence: int = 0, author: int = 0) -> Batch:
    """A batch of validator `author`, signed; the transactions come into namespace order."""
    ordered = sorted(transactions, key=namespace_order)
    header = BatchHeader(
        version=limits.PROTOCOL_VERSION,
        genesis_hash=CHAIN.genesis_hash,
        group=CHAIN.group,
        author=VALIDATORS.members[author].address,
        sequence=sequence,
        previous=GENESIS_BATCH,
        clock=TIME << 16,
        anchor_height=0,
        anchor_hash=CHAIN.genesis_hash,
        namespaces=summarise(ordered, SUITE),
    )
    signature = SUITE.sign(secret_of(author), batch_digest(encode(header), SUITE))
    return parse_batch(build_batch(header, signature, ordered), CHAIN)


def secret_of(validator: int) -> bytes:
    """The secret of a validator by index."""
    return VALIDATOR_SECRETS[validator]


def certify(digest: bytes, height: int, round_number: int = 0, signers=(0, 1, 2, 3)) -> bytes:
    """A certificate of these validators."""
    vote = vote_digest(CHAIN, VoteType.PRECOMMIT, height, round_number, digest)
    pairs = tuple((index, SUITE.sign(secret_of(index), vote)) for index in signers)
    return encode(Certificate(height, round_number, digest, pairs))


def certify_by(validators: ValidatorSet, digest: bytes, height: int, round_number=0, signers=None):
    """A certificate of these members of a set, of all of them by default."""
    vote = vote_digest(CHAIN, VoteType.PRECOMMIT, height, round_number, digest)
    indexes = range(len(validators.members)) if signers is None else signers
    secrets = [NODE_SECRETS[address] for address in validators.addresses]
    pairs = tuple((index, SUITE.sign(secrets[index], vote)) for index in indexes)
    return encode(Certificate(height, round_number, digest, pairs))


class LocalChain:
    """Blocks decided by hand, executed for real."""

    signers = None
    """The indexes whose precommits stand in certificates; None for all."""

    def __init__(self, bodies: MemoryBodies | None = None) -> None:
        self.block_data = MemoryStore()
        self.state_data = MemoryStore()
        self.bodies = MemoryBodies() if bodies is None else bodies
        self.open()

    def restart(self) -> None:
        """Open everything anew on what is durable."""
        self.open()
        trio.run(self.writer.recover, None, lambda _height: None)

    def open(self) -> None:
        """The same without recovery."""
        self.state = StateStore(self.state_data)
        self.blocks = BlockStore(self.block_data, self.bodies)
        self.executor = Executor(GENESIS, self.state, StageClock())
        self.writer = ChainWriter(GENESIS, self.blocks, self.executor, StageClock())

    @property
    def tip(self):
        return self.executor.state_tip

    def next_block(self, *batches: Batch, time: int | None = None) -> tuple[Block, bytes]:
        """The next block and its certificate, not appended."""
        moment = self.tip.time + 100 if time is None else time
        block = self.writer.next_block(ValidatorIndex(0), moment, batches)
        digest = block_hash(block.header, SUITE)
        height = self.tip.height + 1
        return block, certify_by(self.writer.validators, digest, height, signers=self.signers)

    def decide(self, *batches: Batch, time: int | None = None) -> Block:
        """Append the next block of these batches."""
        block, certificate = self.next_block(*batches, time=time)
        places = [self.bodies.append(batch.wire) for batch in batches]
        trio.run(self.writer.append, block, certificate, batches, places, lambda _height: None)
        return block

    def run(self, *transactions: Transaction, time: int | None = None) -> list[Receipt]:
        """Decide one block of these transactions in one batch; their receipts, first to last."""
        self.decide(make_batch(transactions, sequence=self.tip.height), time=time)
        found = {}
        for receipt in self.receipts_of(self.tip.height):
            found.setdefault(receipt.id, []).append(receipt)
        return [
            found[operation].pop(0)
            for transaction in transactions
            for operation in operation_ids(transaction, SUITE)
        ]

    def receipts_of(self, height: int) -> list[Receipt]:
        """All receipts of a height."""
        results = self.state.receipts(height)
        return [RECEIPT.decode(item) for result in results for item in result.receipts]

    def read(self, module: str, level: int, contract: str, name: str, *arguments: Any):
        """The answer of a reading method on the newest state."""
        engine = self.executor.engine
        view = engine.method(module, contract, name)
        context = BlockContext(self.tip.height, self.tip.time)
        overlay = Overlay(self.state)
        record = view.arguments(*arguments)
        return engine.read(overlay, context, module, level, contract, view, record)


def facts(chain: LocalChain) -> tuple[Any, ...]:
    """What two chains of the same blocks must have in common."""
    tip = chain.tip
    receipts = tuple(chain.state.receipts(height) for height in range(1, tip.height + 1))
    return tip, receipts


def fetched(chain, *heights):
    """Blocks of a chain as block sync hands them over."""
    blocks = [chain.writer.read_block(height) for height in heights]
    return [FetchedBlock(b.block, b.header, b.certificate, b.batches) for b in blocks]
