"""The configuration of one node: a TOML file and environment overrides, checked at the door.

What it decides: whether a file is a configuration, and what it says. Relative paths are relative to
the file. `KANGLIAN__P2P__LISTEN_PORT=7000` overrides `listen_port` of the table `[p2p]`.
What it never does: open the files it names, or hold a value that all nodes must hold equal; those
stand in genesis.
"""

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from ledger.addresses import AddressKind, decode_text
from ledger.errors import KanglianError, Rejected
from ledger.ids import Name
from ledger.limits import EVIDENCE_HEIGHTS

OVERRIDE_PREFIX = "KANGLIAN__"
CONFIG_FILE_BYTES = 1024 * 1024
"""128 peers take about 16 KB."""

KEPT_BLOCKS = EVIDENCE_HEIGHTS
"""The fewest blocks a node keeps: more than a snapshot or the replay window reaches back."""

Port = Annotated[int, Meta(ge=1, le=65_535)]
Host = Annotated[str, Meta(min_length=1, max_length=253)]


class ConfigError(KanglianError):
    """A configuration cannot be used: names the file, the key, and what to do."""

    def __init__(self, file: Path, problem: str, advice: str) -> None:
        self.file = file
        self.problem = problem
        self.advice = advice
        super().__init__(f"{file}: {problem}; {advice}")


@dataclass(frozen=True, slots=True)
class NodeSection:
    """Who this node is and where its key, its chain and its data lie."""

    name: Name
    key_file: Path
    data_dir: Path
    genesis_file: Path
    passphrase_file: Path | None = None
    joining: bool = False
    """This key is not in genesis: the members vote it in, and until then nobody links with it."""


@dataclass(frozen=True, slots=True)
class TlsSection:
    """PEM files of the mutual TLS among nodes."""

    certificate_file: Path
    key_file: Path
    authority_file: Path


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a node of the allow-list can be dialled; `address` is its `kn1…` text."""

    address: str
    host: Host
    port: Port


@dataclass(frozen=True, slots=True)
class P2pSection:
    """Where other nodes reach this one, and where it reaches them."""

    listen_host: Host
    listen_port: Port
    peers: tuple[PeerAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class RpcSection:
    """Where clients reach this node."""

    listen_host: Host
    listen_port: Port


@dataclass(frozen=True, slots=True)
class SyncSection:
    """How a node that holds nothing comes by the chain."""

    snapshot: bool = False
    """Join from a snapshot of a recent height, without the blocks before it."""


@dataclass(frozen=True, slots=True)
class StoreSection:
    """How much of the past a node keeps."""

    keep_blocks: Annotated[int, Meta(ge=0)] = 0
    """So many of the newest blocks, with bodies and receipts; 0 keeps all: an archive."""


@dataclass(frozen=True, slots=True)
class LogSection:
    """`auto` is coloured text at a terminal and JSON lines elsewhere."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything a node is told besides genesis."""

    node: NodeSection
    tls: TlsSection
    p2p: P2pSection
    rpc: RpcSection
    log: LogSection = dataclasses.field(default_factory=LogSection)
    sync: SyncSection = dataclasses.field(default_factory=SyncSection)
    store: StoreSection = dataclasses.field(default_factory=StoreSection)


def load_config(path: Path, environment: Mapping[str, str]) -> NodeConfig:
    """The configuration of a file under the overrides of `environment`.

    Raises: ConfigError naming the file, the key and what to do.
    """
    document = _read_toml(path)
    _refuse_unknown(path, NodeConfig, document, "")
    for variable in sorted(environment):
        if variable.startswith(OVERRIDE_PREFIX):
            _override(path, document, variable, environment[variable])
    directory = path.resolve().parent

    def to_path(kind: type[Any], value: object) -> object:
        if kind is Path and isinstance(value, str) and value:
            return directory / value
        raise ValueError("expected a path")

    try:
        config = msgspec.convert(document, NodeConfig, dec_hook=to_path)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at ")
        key = where.strip("`").removeprefix("$.").removeprefix("$")
        named = f"{key}: {problem}" if key else problem
        raise ConfigError(path, named, "correct this key or remove its override") from None
    _check_peers(path, config)
    if 0 < config.store.keep_blocks < KEPT_BLOCKS:
        problem = f"store.keep_blocks is {config.store.keep_blocks}, at least {KEPT_BLOCKS}"
        advice = "keep that many, or 0 for all; what is younger is needed by others"
        raise ConfigError(path, problem, advice)
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        advice = "name an existing file with --config, or make one with `kanglian devnet up`"
        raise ConfigError(path, "there is no such file", advice) from None
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise ConfigError(path, problem, "check its path and permissions") from None
    if len(data) > CONFIG_FILE_BYTES:
        raise ConfigError(path, f"has {len(data)} bytes", "a configuration has at most 1 MiB")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        advice = "repair the file or restore it from a copy"
        raise ConfigError(path, f"is not TOML: {error}", advice) from None


def _refuse_unknown(path: Path, section: type[Any], table: object, where: str) -> None:
    """Walk tables that are dataclasses; wrong types are left to the conversion."""
    if not isinstance(table, dict):
        return
    hints = typing.get_type_hints(section)
    for key, value in cast("dict[str, object]", table).items():
        name = f"{where}{key}"
        if key not in hints:
            raise ConfigError(path, f"unknown key {name!r}", _near(key, list(hints)))
        if dataclasses.is_dataclass(hints[key]):
            _refuse_unknown(path, cast("type[Any]", hints[key]), value, f"{name}.")
        elif section is P2pSection and key == "peers" and isinstance(value, list):
            for index, peer in enumerate(cast("list[object]", value)):
                _refuse_unknown(path, PeerAddress, peer, f"{name}[{index}].")


def _near(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "known here: " + ", ".join(sorted(known))


def _override(path: Path, document: dict[str, Any], variable: str, text: str) -> None:
    section, _, key = variable.removeprefix(OVERRIDE_PREFIX).lower().partition("__")
    sections = typing.get_type_hints(NodeConfig)
    if section not in sections:
        problem = f"the environment variable {variable} names no table"
        raise ConfigError(path, problem, _near(section, list(sections)))
    hints = typing.get_type_hints(sections[section], include_extras=False)
    if key not in hints:
        problem = f"the environment variable {variable} names no key"
        raise ConfigError(path, problem, _near(key, list(hints)))
    table = document.setdefault(section, {})
    if isinstance(table, dict):
        cast("dict[str, object]", table)[key] = _override_value(hints[key], text)


def _override_value(kind: object, text: str) -> object:
    """Numbers and lists are written as in TOML; everything else is taken as it stands."""
    if kind is int or kind is bool or typing.get_origin(kind) is tuple:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _check_peers(path: Path, config: NodeConfig) -> None:
    seen: list[str] = []
    for index, peer in enumerate(config.p2p.peers):
        key = f"p2p.peers[{index}].address"
        try:
            kind, _ = decode_text(peer.address)
        except Rejected as refusal:
            raise ConfigError(path, f"{key}: {refusal.detail}", "copy it from genesis") from None
        if kind != AddressKind.NODE:
            raise ConfigError(path, f"{key} is no node address", "a node's address begins with kn1")
        if peer.address in seen:
            raise ConfigError(path, f"{key} stands twice", "name every peer once")
        seen.append(peer.address)
