"""Genesis records and whole networks, made from plain inputs.

What it decides: how a description becomes a genesis file, and what files a development network
consists of. What it never does: overwrite a file, read a clock, or keep a secret: keys are made and
read through the port `KeyFiles`.
Source: ledger/genesis.py (the rules that every genesis must pass); docs/format.md section 2.
"""

import json
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from genesis import authority
from genesis.private_files import read_public, write_public
from ledger.addresses import (
    AddressKind,
    address_of,
    decode_text,
    encode_text,
    single_key_script,
)
from ledger.codec import Document
from ledger.crypto.suites import INTERNATIONAL, suite_named
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.genesis import (
    GENESIS_FILE_BYTES,
    Account,
    Genesis,
    Module,
    Node,
    Organisation,
    Parameters,
    genesis_validators,
    parse_genesis,
)

BASE_PORT = 26_600
"""Node i of a development network takes this port plus 2i and the one after it."""
DEVELOPMENT_NODES = 100
"""More processes than one machine runs; the ports stay in a range that people can remember."""
DEVELOPMENT_DAYS = 3_650
"""A development network lies about for years and must start again; consortia use 90 days."""

_ORGANISATIONS = (
    Organisation(id="demo_centre", name="示范区卫生健康信息中心"),
    Organisation(id="demo_hospital", name="示范市第一人民医院"),
    Organisation(id="demo_regulator", name="示范市卫生健康委员会"),
    Organisation(id="demo_university", name="示范医科大学"),
)
_ACCOUNT_OWNER = "demo_hospital"
"""The organisation of account.json; the keys of the others lie in the folder `admins`."""
_MODULES = (
    Module(name="archive", max_level=3, contracts=("data_index",)),
    Module(name="emr", max_level=3, contracts=("data_index",)),
    Module(name="system", max_level=0, contracts=("accounts", "evidence", "membership")),
    Module(name="trial", max_level=3, contracts=("data_index",)),
)


class KeyFiles(Protocol):
    """Where keys are made and kept; the secret never comes out."""

    def ensure(self, path: Path, kind: AddressKind) -> bytes:
        """The tagged 34-byte public key of the file, which is made if it is absent."""
        ...


class NodeEntry(Document, frozen=True):
    """A node as a description names it; the address follows from the key."""

    name: str
    key: str
    organisation: str
    role: Literal["master", "branch", "observer", "regulator"] = "master"


class Description(Document, frozen=True):
    """What a consortium writes down before its genesis: a TOML file with these keys.

    `authority_certificate` is relative to the file; without `time` the moment of building counts.
    """

    chain_name: str
    authority_certificate: str
    organisations: Annotated[tuple[Organisation, ...], Meta(min_length=1)]
    nodes: Annotated[tuple[NodeEntry, ...], Meta(min_length=1)]
    modules: Annotated[tuple[Module, ...], Meta(min_length=1)]
    accounts: tuple[Account, ...] = ()
    group: int = 0
    time: int | None = None
    suite: str = "international"
    account_keys: tuple[Literal["secp256k1", "p256"], ...] = ("secp256k1", "p256")
    parameters: Parameters = Parameters()


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """One node of a development network; where it listens stands in its configuration."""

    name: str
    directory: Path
    config: Path
    key: Path


@dataclass(frozen=True, slots=True)
class DevelopmentNetwork:
    """The files of a development network; `created` tells whether its genesis is new."""

    genesis: Path
    account_key: Path
    nodes: tuple[NodeFiles, ...]
    created: bool


def build_genesis(description: Description, authority_fingerprint: bytes, now_ms: int) -> Genesis:
    """The genesis of a description, in the order that its format demands, every rule checked.

    Raises: Rejected(BAD_GENESIS | BAD_ADDRESS).
    """
    suite = suite_named(description.suite)
    nodes: list[Node] = []
    for entry in description.nodes:
        try:
            script = single_key_script(AddressKind.NODE, bytes.fromhex(entry.key))
        except ValueError:
            raise Rejected(Reason.BAD_GENESIS, "key is not hexadecimal", node=entry.name) from None
        address = encode_text(AddressKind.NODE, address_of(script, suite))
        nodes.append(Node(entry.name, address, entry.key.lower(), entry.organisation, entry.role))
    genesis = Genesis(
        format="kanglian-genesis/1",
        chain_name=description.chain_name,
        group=description.group,
        time=now_ms if description.time is None else description.time,
        suite=description.suite,
        account_keys=description.account_keys,
        authority=authority_fingerprint.hex(),
        organisations=tuple(sorted(description.organisations, key=lambda item: item.id)),
        nodes=tuple(sorted(nodes, key=lambda item: item.address)),
        accounts=tuple(sorted(description.accounts, key=lambda item: item.address)),
        modules=tuple(sorted(description.modules, key=lambda item: item.name)),
        parameters=description.parameters,
    )
    checked = parse_genesis(genesis_json(genesis))
    genesis_validators(checked)
    return checked


def genesis_json(genesis: Genesis) -> bytes:
    """The file form: members in their declared order, two blanks of indent, a final newline."""
    return msgspec.json.format(msgspec.json.encode(genesis), indent=2) + b"\n"


def write_genesis(path: Path, genesis: Genesis) -> None:
    """Write a genesis file that everyone may read; an existing one is never touched.

    Raises: PrivateFileError(EXISTS | UNUSABLE).
    """
    write_public(path, genesis_json(genesis))


def read_genesis(path: Path) -> Genesis:
    """The genesis of a file.

    Raises: PrivateFileError when it cannot be read, Rejected(TOO_LARGE | BAD_GENESIS | BAD_ADDRESS)
        when it breaks a rule.
    """
    try:
        return parse_genesis(read_public(path, GENESIS_FILE_BYTES))
    except Rejected as refusal:
        raise Rejected(refusal.reason, f"{path}: {refusal.detail}", **refusal.facts) from None


def read_description(path: Path) -> Description:
    """The description in a TOML file.

    Raises: PrivateFileError when it cannot be read, Rejected(BAD_GENESIS) naming what is wrong.
    """
    try:
        document = tomllib.loads(read_public(path, GENESIS_FILE_BYTES).decode())
        return msgspec.convert(document, Description)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Rejected(Reason.BAD_GENESIS, f"{path}: {error}") from None


def genesis_of_description(path: Path, now_ms: int) -> Genesis:
    """The genesis that a description file and the certificate beside it stand for.

    Raises: PrivateFileError, Rejected(BAD_GENESIS | BAD_ADDRESS | MALFORMED).
    """
    description = read_description(path)
    certificate = path.parent / description.authority_certificate
    fingerprint = authority.fingerprint(read_public(certificate, authority.PEM_BYTES))
    return build_genesis(description, fingerprint, now_ms)


def development_network(
    directory: Path, keys: KeyFiles, now_ms: int, nodes: int | None, base_port: int
) -> DevelopmentNetwork:
    """Create what is absent of a network for development in `directory`; overwrite nothing.

    `nodes` None means as many as are there, or four. The authority's key is not encrypted.
    Raises: UnavailableError for files, Rejected(BAD_GENESIS) when the number of nodes cannot be or
        is not that of the network in the folder.
    """
    path = directory / "genesis.json"
    account_key = directory / "account.json"
    known = read_genesis(path) if path.exists() else None
    count = nodes or (4 if known is None else len(known.nodes))
    files = tuple(_node_files(directory / f"node{index}") for index in range(count))
    if known is None:
        _check_count(count, base_port)
    else:
        _check_known(directory, known, (account_key, *(node.key for node in files)))
    root = _development_authority(directory / "ca", now_ms)
    account = keys.ensure(account_key, AddressKind.TERMINAL)
    node_keys = {node.name: keys.ensure(node.key, AddressKind.NODE) for node in files}
    genesis = known
    if genesis is None:
        accounts = {_ACCOUNT_OWNER: account, **_admins(directory, keys)}
        description = _development_description(directory, node_keys, accounts, now_ms)
        fingerprint = authority.fingerprint(root.certificate_pem)
        genesis = build_genesis(description, fingerprint, now_ms)
        write_genesis(path, genesis)
    for node in files:
        _ensure_node(node, node_keys, genesis, root, base_port, now_ms)
    return DevelopmentNetwork(path, account_key, files, created=known is None)


def _node_files(directory: Path) -> NodeFiles:
    return NodeFiles(directory.name, directory, directory / "node.toml", directory / "node.json")


def _check_count(count: int, base_port: int) -> None:
    """Refuse before a file is written what genesis or the ports would refuse later."""
    if count != 1 and not 4 <= count <= DEVELOPMENT_NODES:
        detail = "a network has one node, or 4 and more so that one may fail"
        raise Rejected(Reason.BAD_GENESIS, detail, nodes=count)
    if not 1_024 <= base_port <= 65_536 - 2 * count:
        detail = "the ports of all nodes must lie between 1024 and 65535"
        raise Rejected(Reason.BAD_GENESIS, detail, base_port=base_port)


def _check_known(directory: Path, genesis: Genesis, key_files: tuple[Path, ...]) -> None:
    """A network whose genesis exists has its size and its keys: new keys would be strangers."""
    asked = len(key_files) - 1
    if len(genesis.nodes) != asked:
        detail = f"{directory} holds a network of another size; take another folder"
        raise Rejected(Reason.BAD_GENESIS, detail, nodes=len(genesis.nodes), asked=asked)
    for path in key_files:
        if not path.exists():
            raise UnavailableError(
                f"{path} is missing, but {directory / 'genesis.json'} names its key; "
                "restore the file from a copy or begin a new network in another folder"
            )


def _development_description(
    directory: Path, node_keys: dict[str, bytes], accounts: dict[str, bytes], now_ms: int
) -> Description:
    owners = [organisation.id for organisation in _ORGANISATIONS]
    return Description(
        chain_name=f"康链开发网络 {directory.name}"[:128],
        authority_certificate="ca/authority.crt",
        organisations=_ORGANISATIONS,
        nodes=tuple(
            NodeEntry(name, key.hex(), owners[index % len(owners)])
            for index, (name, key) in enumerate(node_keys.items())
        ),
        modules=_MODULES,
        accounts=tuple(_admin(key, organisation) for organisation, key in accounts.items()),
        time=now_ms,
    )


def _admins(directory: Path, keys: KeyFiles) -> dict[str, bytes]:
    """An admin key of every other organisation, so that all can vote on members."""
    others = [item.id for item in _ORGANISATIONS if item.id != _ACCOUNT_OWNER]
    folder = directory / "admins"
    return {name: keys.ensure(folder / f"{name}.json", AddressKind.TERMINAL) for name in others}


def _admin(key: bytes, organisation: str) -> Account:
    address = address_of(single_key_script(AddressKind.TERMINAL, key), INTERNATIONAL)
    return Account(encode_text(AddressKind.TERMINAL, address), organisation, "admin")


def _ensure_node(
    node: NodeFiles,
    node_keys: dict[str, bytes],
    genesis: Genesis,
    root: authority.Authority,
    base_port: int,
    now_ms: int,
) -> None:
    entries = {entry.key: entry for entry in genesis.nodes}
    key = node_keys[node.name].hex()
    if key not in entries:
        raise Rejected(Reason.BAD_GENESIS, f"{node.key} is not a key of this network")
    (node.directory / "data").mkdir(parents=True, exist_ok=True, mode=0o700)
    certificate, tls_key = node.directory / "tls.crt", node.directory / "tls.key"
    if not certificate.exists() or not tls_key.exists():
        address = decode_text(entries[key].address)[1].hex()
        pair = authority.issue_node(root, address, _utc(now_ms), days=DEVELOPMENT_DAYS)
        # A certificate without its key, or the other way round, is of no use to anybody.
        authority.save_node(pair, certificate, tls_key, replace=True)
    if not node.config.exists():
        ports = {name: base_port + 2 * index for index, name in enumerate(node_keys)}
        peers = [
            (entries[other.hex()].address, ports[name])
            for name, other in node_keys.items()
            if name != node.name
        ]
        write_public(node.config, _node_toml(node.name, ports[node.name], peers))


def _node_toml(name: str, port: int, peers: list[tuple[str, int]]) -> bytes:
    """A configuration whose paths are relative to it; strings are quoted as JSON, which TOML is."""
    lines = [
        "# One node of a development network. Delete this file to have it written anew.",
        "[node]",
        f"name = {json.dumps(name)}",
        'key_file = "node.json"',
        'data_dir = "data"',
        'genesis_file = "../genesis.json"',
        "",
        "[tls]",
        'certificate_file = "tls.crt"',
        'key_file = "tls.key"',
        'authority_file = "../ca/authority.crt"',
        "",
        "[rpc]",
        'listen_host = "127.0.0.1"',
        f"listen_port = {port + 1}",
        "",
        "[p2p]",
        'listen_host = "127.0.0.1"',
        f"listen_port = {port}",
    ]
    for address, peer_port in peers:
        peer = ["", "[[p2p.peers]]", f"address = {json.dumps(address)}"]
        lines += [*peer, 'host = "127.0.0.1"', f"port = {peer_port}"]
    return "\n".join([*lines, ""]).encode()


def _development_authority(directory: Path, now_ms: int) -> authority.Authority:
    """The authority of a development network; its key lies unencrypted beside it."""
    certificate, key = directory / "authority.crt", directory / "authority.key"
    if not certificate.exists() and not key.exists():
        directory.mkdir(parents=True, exist_ok=True)
        root = authority.create_root("Kanglian development authority", _utc(now_ms))
        authority.save_authority(root, certificate, key, None)
    return authority.load_authority(certificate, key, None, _utc(now_ms))


def _utc(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms / 1000, UTC)
