"""A small deterministic chain for tests: four validators, three accounts, blocks made by hand.

Every secret is the SHA-256 of its name, so the same world has the same bytes everywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ledger import limits
from ledger.addresses import (
    AddressKind,
    address_of,
    encode_text,
    multi_key_script,
    single_key_script,
)
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
from ledger.block import (
    Header,
    NamespaceReceipts,
    batches_root,
    block_hash,
    certificate_hash,
    empty_root,
    receipts_root,
)
from ledger.codec import encode
from ledger.crypto import keys
from ledger.crypto.keys import KeyType
from ledger.crypto.suites import INTERNATIONAL
from ledger.data_index import Parts, object_id, register_arguments
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
from ledger.ids import TransactionId
from ledger.merkle import root_of_entries
from ledger.proof import RegistrationProof
from ledger.receipts import RECEIPT_TAG, Event, Receipt, Status
from ledger.replay import CommittedWindow, ReplayEntry, replay_block
from ledger.transaction import (
    TRANSACTION_TAG,
    Call,
    Chain,
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

SUITE = INTERNATIONAL
NOW = 1_760_000_000_000
HEIGHT = 7
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
StatusOf = Callable[[TransactionId], Status]


def secret(name: str) -> bytes:
    """The 32-byte secret of a name."""
    return sha256(name.encode()).digest()


def key(name: str, key_type: KeyType = KeyType.SECP256K1) -> bytes:
    """The tagged public key of a name."""
    return keys.public_key(key_type, secret(name))


def sign_p256(secret_bytes: bytes, digest: bytes) -> bytes:
    """As `p256.sign`, with the nonce of RFC 6979, so that a world has the same bytes each time."""
    private = ec.derive_private_key(int.from_bytes(secret_bytes, "big"), ec.SECP256R1())
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    r, s = decode_dss_signature(private.sign(digest, algorithm))
    return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


@dataclass(frozen=True)
class Signer:
    """An account's script and the named keys that sign for it, as (script index, name)."""

    script: bytes
    signing: tuple[tuple[int, str], ...]
    key_type: KeyType = KeyType.SECP256K1
    kind: AddressKind = AddressKind.TERMINAL

    @property
    def address(self) -> bytes:
        return address_of(self.script, SUITE)

    @property
    def text(self) -> str:
        return encode_text(self.kind, self.address)

    def sign(self, digest: bytes) -> tuple[tuple[int, bytes], ...]:
        make = SUITE.sign if self.key_type == KeyType.SECP256K1 else sign_p256
        return tuple((index, make(secret(name), digest)) for index, name in self.signing)


def single_signer(name: str, key_type: KeyType = KeyType.SECP256K1) -> Signer:
    script = single_key_script(AddressKind.TERMINAL, key(name, key_type))
    return Signer(script, ((0, name),), key_type)


def multi_signer(names: Sequence[str], threshold: int, signing: Sequence[str]) -> Signer:
    ordered = sorted(names, key=key)
    script = multi_key_script(threshold, tuple(key(name) for name in names))
    indexes = sorted((ordered.index(name), name) for name in signing)
    return Signer(script, tuple(indexes), kind=AddressKind.MULTI)


HOSPITAL = single_signer("hospital")
RESIDENT = single_signer("resident", KeyType.P256)
BOARD = multi_signer(("board a", "board b", "board c"), 2, ("board a", "board c"))
VALIDATOR_NAMES = ("validator 0", "validator 1", "validator 2", "validator 3")


def make_genesis(chain_name: str = "Test chain", group: int = 1) -> Genesis:
    nodes = [
        Node(
            name=name.replace(" ", "_"),
            address=encode_text(
                AddressKind.NODE,
                address_of(single_key_script(AddressKind.NODE, key(name)), SUITE),
            ),
            key=key(name).hex(),
            organisation="city",
            role="master",
        )
        for name in VALIDATOR_NAMES
    ]
    accounts = [
        Account(address=signer.text, organisation="city", role="member")
        for signer in (HOSPITAL, RESIDENT, BOARD)
    ]
    return Genesis(
        format="kanglian-genesis/1",
        chain_name=chain_name,
        group=group,
        time=NOW - 1_000,
        suite="international",
        account_keys=("secp256k1", "p256"),
        authority=secret("authority").hex(),
        organisations=(Organisation(id="city", name="City Hospital 市医院"),),
        nodes=tuple(sorted(nodes, key=lambda node: node.address)),
        accounts=tuple(sorted(accounts, key=lambda account: account.address)),
        modules=(
            Module(name="emr", max_level=3, contracts=("data_index",)),
            Module(name="system", max_level=0, contracts=("accounts",)),
            Module(name="trial", max_level=1, contracts=("data_index",)),
        ),
        parameters=Parameters(),
    )


GENESIS = make_genesis()
CHAIN = chain_of(GENESIS)
VALIDATORS = genesis_validators(GENESIS)
VALIDATOR_SECRETS = tuple(
    next(secret(name) for name in VALIDATOR_NAMES if key(name) == member.key)
    for member in VALIDATORS.members
)


def make_body(
    payload: Call | EnvelopeSummary,
    signer: Signer = HOSPITAL,
    *,
    module: str = "emr",
    level: int = 0,
    nonce: int = 1,
    chain: Chain = CHAIN,
) -> TransactionBody:
    return TransactionBody(
        version=limits.PROTOCOL_VERSION,
        genesis_hash=chain.genesis_hash,
        group=chain.group,
        module=module,
        level=level,
        account=signer.address,
        signer=None,
        nonce=nonce.to_bytes(16, "big"),
        valid_until=NOW + 60_000,
        client_time=NOW,
        after=None,
        payload=payload,
    )


def signed_wire(
    body: TransactionBody, signer: Signer, operations: tuple[Call, ...] | None = None
) -> bytes:
    body_bytes = encode(body)
    return encode(
        SignedTransaction(
            body=body_bytes,
            script=signer.script,
            signatures=signer.sign(SUITE.digest(TRANSACTION_TAG + body_bytes)),
            operations=operations,
        )
    )


def parts(number: int) -> Parts:
    return Parts(
        head=f"operator {number}, system 7".encode(),
        middle=b"create",
        tail=f"患者 {number}".encode(),
        remarks=b"",
        record=f'{{"record": {number}}}'.encode(),
    )


def register_call(number: int, signer: Signer = HOSPITAL, level: int = 0) -> Call:
    registration = register_arguments(
        SUITE,
        signer.address,
        secret(f"R {number}"),
        parts(number),
        object_id(SUITE, secret("organisation"), f"patient-{number}"),
        1,
        level,
    )
    return Call(contract="data_index", method="register", arguments=encode(registration))


def plain(
    number: int, signer: Signer = HOSPITAL, *, module: str = "emr", level: int = 0
) -> Transaction:
    """A transaction that registers index `number`."""
    call = register_call(number, signer, level)
    body = make_body(call, signer, module=module, level=level, nonce=number)
    return parse_transaction(signed_wire(body, signer), CHAIN)


def envelope(
    numbers: Sequence[int], signer: Signer = HOSPITAL, *, module: str = "emr", level: int = 0
) -> Transaction:
    """An envelope that registers several indexes."""
    calls = tuple(register_call(number, signer, level) for number in numbers)
    summary = EnvelopeSummary(count=len(calls), root=operations_root(calls, SUITE), atomic=False)
    body = make_body(summary, signer, module=module, level=level, nonce=numbers[0])
    return parse_transaction(signed_wire(body, signer, calls), CHAIN)


def make_batch(transactions: Sequence[Transaction], author: int = 0, sequence: int = 0) -> Batch:
    """A batch of validator `author`; it puts the transactions into namespace order."""
    ordered = sorted(transactions, key=namespace_order)
    header = BatchHeader(
        version=limits.PROTOCOL_VERSION,
        genesis_hash=CHAIN.genesis_hash,
        group=CHAIN.group,
        author=VALIDATORS.members[author].address,
        sequence=sequence,
        previous=GENESIS_BATCH,
        clock=NOW << 16,
        anchor_height=HEIGHT - 1,
        anchor_hash=secret("anchor"),
        namespaces=summarise(ordered, SUITE),
    )
    signature = SUITE.sign(VALIDATOR_SECRETS[author], batch_digest(encode(header), SUITE))
    return parse_batch(build_batch(header, signature, ordered), CHAIN)


def make_certificate(
    height: int,
    digest: bytes,
    *,
    signers: Sequence[int] = (0, 1, 3),
    round_number: int = 0,
    chain: Chain = CHAIN,
    vote_type: VoteType = VoteType.PRECOMMIT,
) -> Certificate:
    """A certificate signed by these validators for the block hash `digest`."""
    vote = vote_digest(chain, vote_type, height, round_number, digest)
    signatures = tuple((index, SUITE.sign(VALIDATOR_SECRETS[index], vote)) for index in signers)
    return Certificate(height=height, round=round_number, block_hash=digest, signatures=signatures)


def make_header(
    height: int,
    *,
    previous_hash: bytes,
    batches: Sequence[Batch] = (),
    receipts_root_of_parent: bytes | None = None,
    replay_root_of_parent: bytes | None = None,
    certificate: bytes = b"",
    validators: ValidatorSet = VALIDATORS,
    group: int = CHAIN.group,
    version: int = limits.PROTOCOL_VERSION,
) -> Header:
    empty = empty_root(SUITE)
    members = validators.hash(SUITE)
    return Header(
        version=version,
        group=group,
        height=height,
        previous_hash=previous_hash,
        time=NOW + height,
        proposer=height % len(validators.members),
        validators_hash=members,
        next_validators_hash=members,
        topology_hash=validators.topology_hash(SUITE),
        batches_root=batches_root(batches, SUITE),
        stamps_root=empty,
        certificate_hash=certificate_hash(certificate, SUITE),
        demotions=(),
        state_root=secret(f"state {height}"),
        receipts_root=receipts_root_of_parent or empty,
        messages_root=empty,
        replay_root=replay_root_of_parent or empty,
        history_root=secret(f"history {height}"),
    )


def all_ok(operation: TransactionId) -> Status:
    return Status.OK


def make_receipts(
    batches: Sequence[Batch], status_of: StatusOf = all_ok
) -> dict[tuple[str, int], list[bytes]]:
    """The receipts of a block by namespace, in execution order."""
    receipts: dict[tuple[str, int], list[bytes]] = {}
    for batch in batches:
        for transaction in batch.transactions:
            items = receipts.setdefault(namespace_order(transaction), [])
            for operation in operation_ids(transaction, SUITE):
                status = status_of(operation)
                event = Event(contract="data_index", name="registered", data=b"\x91\xc4\x00")
                ok = status == Status.OK
                receipt = Receipt(
                    operation,
                    status,
                    "REFUSED" if status == Status.REVERTED else "",
                    0,
                    encode((len(items),)) if ok else b"",
                    (event,) if ok else (),
                )
                items.append(encode(receipt))
    return receipts


def receipts_root_of(receipts: Mapping[tuple[str, int], Sequence[bytes]]) -> bytes:
    return receipts_root(
        [
            NamespaceReceipts(
                module=module,
                level=level,
                count=len(items),
                root=root_of_entries(SUITE.digest, [RECEIPT_TAG + item for item in items]),
            )
            for (module, level), items in sorted(receipts.items())
        ],
        SUITE,
    )


def replay_root_of(batches: Sequence[Batch], status_of: StatusOf = all_ok) -> bytes:
    """The root of the replay window that these batches alone make at HEIGHT."""
    entries: dict[tuple[str, int], list[ReplayEntry]] = {}
    for batch in batches:
        for item in batch.transactions:
            statuses = [status_of(operation) for operation in operation_ids(item, SUITE)]
            entry = (item.id, item.body.valid_until, set(statuses) == {Status.OK})
            entries.setdefault(namespace_order(item), []).append(entry)
    window = CommittedWindow(SUITE)
    window.add(replay_block(HEIGHT, NOW + HEIGHT, entries))
    return window.root()


@dataclass(frozen=True)
class TwoBlocks:
    """Block h with batches, and block h + 1 that commits to its receipts."""

    batches: tuple[Batch, ...]
    receipts: dict[tuple[str, int], list[bytes]]
    header: bytes
    certificate: bytes
    next_header: bytes
    next_certificate: bytes

    def proof(self, transaction: Transaction, operation: int = 0) -> RegistrationProof:
        return RegistrationProof.build(
            CHAIN,
            self.batches,
            transaction.id,
            operation,
            self.header,
            self.certificate,
            self.receipts,
            self.next_header,
            self.next_certificate,
        )


def two_blocks(batches: Sequence[Batch], status_of: StatusOf = all_ok) -> TwoBlocks:
    """Heights 7 and 8 around these batches, both certified."""
    receipts = make_receipts(batches, status_of)
    header = encode(make_header(HEIGHT, previous_hash=secret("block 6"), batches=batches))
    first_hash = block_hash(header, SUITE)
    certificate = encode(make_certificate(HEIGHT, first_hash))
    next_header = encode(
        make_header(
            HEIGHT + 1,
            previous_hash=first_hash,
            receipts_root_of_parent=receipts_root_of(receipts),
            replay_root_of_parent=replay_root_of(batches, status_of),
            certificate=certificate,
        )
    )
    next_hash = block_hash(next_header, SUITE)
    next_certificate = encode(make_certificate(HEIGHT + 1, next_hash, signers=(0, 1, 2, 3)))
    return TwoBlocks(tuple(batches), receipts, header, certificate, next_header, next_certificate)


def busy_batches() -> tuple[Batch, ...]:
    """Two batches, three namespaces, an envelope, a multi-signature and a P-256 account."""
    return (
        make_batch(
            [plain(1), envelope([2, 3, 4]), plain(5, module="trial", level=1), plain(6, level=2)],
            author=0,
        ),
        make_batch(
            [plain(7, BOARD), plain(8, RESIDENT), envelope([9, 10], module="trial")], author=2
        ),
    )
