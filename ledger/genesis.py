"""The genesis record: everything a chain's members agreed on before the first block.

What it decides: whether a genesis is well formed, its hash, its validators. How one is made (keys,
certificates, templates) is the folder `genesis/`.
Source: docs/format.md section 2; architecture sections 3 and 4.
"""

import json
from itertools import pairwise
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from ledger import limits
from ledger.addresses import AddressKind, address_of, decode_text, single_key_script
from ledger.codec import Document, encode
from ledger.crypto.keys import KEY_TYPE_NAMES
from ledger.crypto.suites import suite_named
from ledger.errors import Reason, Rejected
from ledger.ids import Address, GenesisHash, GroupId, Name
from ledger.transaction import Chain
from ledger.validators import Validator, ValidatorSet, validator_set

GENESIS_TAG = b"kl.genesis\0"
GENESIS_FILE_BYTES = 4 * limits.MIB

Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Hex34 = Annotated[str, Meta(pattern=r"^[0-9a-f]{68}\Z")]
Title = Annotated[str, Meta(min_length=1, max_length=128)]
Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]


class Organisation(Document, frozen=True):
    """An institution of the consortium."""

    id: Name
    name: Title


class Node(Document, frozen=True):
    """A node on the allow-list; a master votes."""

    name: Name
    address: str
    key: Hex34
    organisation: Name
    role: Literal["master", "branch", "observer", "regulator"]


class Account(Document, frozen=True):
    """An account on the allow-list; an `admin` may add accounts of its own organisation."""

    address: str
    organisation: Name
    role: Literal["member", "admin"]


class Module(Document, frozen=True):
    """A module, the broadcast levels 0..max_level of its namespaces, and its contracts."""

    name: Name
    max_level: Annotated[int, Meta(ge=0, le=255)]
    contracts: tuple[Name, ...]


class Parameters(Document, frozen=True):
    """What every node must hold equal: milliseconds unless the name says otherwise."""

    propose_timeout_ms: Milliseconds = 1_000
    prevote_timeout_ms: Milliseconds = 500
    precommit_timeout_ms: Milliseconds = 500
    timeout_delta_ms: Milliseconds = 500
    block_interval_ms: Milliseconds = 150
    heartbeat_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] = 600_000
    clock_precision_ms: Milliseconds = limits.CLOCK_PRECISION_MS
    message_delay_ms: Milliseconds = 2_000
    hierarchy_above_nodes: Annotated[int, Meta(ge=4, le=1_000)] = 15


class Genesis(Document, frozen=True):
    """The whole record. As a file it is JSON with exactly these members."""

    format: Literal["kanglian-genesis/1"]
    chain_name: Title
    group: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    time: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    suite: Name
    account_keys: Annotated[
        tuple[Literal["secp256k1", "p256"], ...], Meta(min_length=1, max_length=2)
    ]
    authority: Hex32
    organisations: Annotated[tuple[Organisation, ...], Meta(min_length=1, max_length=1_000)]
    nodes: Annotated[tuple[Node, ...], Meta(min_length=1, max_length=1_000)]
    accounts: Annotated[tuple[Account, ...], Meta(max_length=10_000)]
    modules: Annotated[tuple[Module, ...], Meta(min_length=1, max_length=64)]
    parameters: Parameters


def parse_genesis(data: bytes) -> Genesis:
    """The genesis of a JSON file, every rule checked.

    Raises: Rejected(TOO_LARGE | BAD_GENESIS).
    """
    if len(data) > GENESIS_FILE_BYTES:
        raise Rejected(Reason.TOO_LARGE, "genesis", payload_bytes=len(data))
    try:
        genesis = msgspec.json.decode(data, type=Genesis)
        json.loads(data, object_pairs_hook=_unique_members)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Rejected(Reason.BAD_GENESIS, str(error)) from None
    _check(genesis)
    return genesis


def _unique_members(pairs: list[tuple[str, object]]) -> None:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"member {name!r} stands twice")


def _check(genesis: Genesis) -> None:
    suite = suite_named(genesis.suite)
    organisations = [organisation.id for organisation in genesis.organisations]
    _ascending("organisations", organisations)
    _ascending("nodes", [node.address for node in genesis.nodes])
    _ascending("accounts", [account.address for account in genesis.accounts])
    _ascending("modules", [module.name for module in genesis.modules])
    known = frozenset(organisations)
    for node in genesis.nodes:
        script = single_key_script(AddressKind.NODE, bytes.fromhex(node.key))
        kind, address = decode_text(node.address)
        if kind != AddressKind.NODE or address != address_of(script, suite):
            raise Rejected(Reason.BAD_GENESIS, "address is not that of the key", node=node.name)
        if not suite.is_key(bytes.fromhex(node.key)) or node.organisation not in known:
            raise Rejected(Reason.BAD_GENESIS, "unknown key or organisation", node=node.name)
    for account in genesis.accounts:
        if decode_text(account.address)[0] == AddressKind.NODE:
            raise Rejected(Reason.BAD_GENESIS, "a node is no account", account=account.address)
        if account.organisation not in known:
            raise Rejected(Reason.BAD_GENESIS, "unknown organisation", account=account.address)
    masters = sum(node.role == "master" for node in genesis.nodes)
    # One master is the single-node development mode; two or three tolerate nothing.
    if masters != 1 and not 4 <= masters <= limits.VALIDATORS:
        raise Rejected(Reason.BAD_GENESIS, "a chain has one master or at least 4", masters=masters)


def _ascending(what: str, items: list[str]) -> None:
    if any(low >= high for low, high in pairwise(items)):
        raise Rejected(Reason.BAD_GENESIS, f"{what} must be unique and in ascending order")


def genesis_hash(genesis: Genesis) -> GenesisHash:
    """The hash that names the chain: over positional canonical bytes, not JSON text."""
    suite = suite_named(genesis.suite)
    return GenesisHash(suite.digest(GENESIS_TAG + encode(_positional(genesis))))


def _positional(value: object) -> object:
    """Arrays in declaration order: the canonical form of records that are JSON objects on disk."""
    if isinstance(value, msgspec.Struct):
        return [_positional(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, tuple):
        return [_positional(item) for item in cast("tuple[object, ...]", value)]
    return value


def chain_of(genesis: Genesis) -> Chain:
    """What every signed byte of this chain names."""
    key_types = frozenset(int(KEY_TYPE_NAMES[name]) for name in genesis.account_keys)
    suite = suite_named(genesis.suite)
    return Chain(genesis_hash(genesis), GroupId(genesis.group), suite, key_types)


def genesis_validators(genesis: Genesis) -> ValidatorSet:
    """The masters of genesis, which vote from height 1."""
    return validator_set(
        Validator(address=node_address(node), key=bytes.fromhex(node.key))
        for node in genesis.nodes
        if node.role == "master"
    )


def node_address(node: Node) -> Address:
    """The 32-byte address of a node on the allow-list."""
    return decode_text(node.address)[1]
