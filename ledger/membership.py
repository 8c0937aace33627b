"""Who belongs to a chain at which height: nodes, roles, revoked certificates, validator sets.

What it decides: the validator set of a height from committed facts, whether a change of it is safe,
and who is admitted. How a change is proposed and voted is `contracts/membership.py`, which writes
these records; everybody else reads them here by their keys in namespace (system, 0).
A change decided in block h rules from h + 2 on: header h commits V(h) and V(h + 1), so the set that
judges a height is fixed one block before its first vote. A height is judged by its own set, always.
Source: architecture sections 3 and 4; research consensus-reliability section 1.7;
docs/decisions/0024-membership.md.
"""

from collections.abc import Callable, Generator
from typing import Annotated, Literal

from msgspec import Meta

from ledger import limits
from ledger.codec import Record, Schema
from ledger.errors import InvariantError
from ledger.genesis import Genesis, genesis_validators
from ledger.ids import Address, Bytes32, Count, PublicKey
from ledger.state import namespace_prefix
from ledger.steps import finish
from ledger.validators import Validator, ValidatorSet

SYSTEM_MODULE = "system"
MEMBERSHIP_CONTRACT = "membership"
EFFECTIVE_AFTER = 2
"""A change of block h rules from height h + 2 on."""

NODES = "node"
REVOKED = "revoked"
NAMES = "name"
SETS = "set"
ROLL = "roll"
PREFIX = namespace_prefix(SYSTEM_MODULE, 0) + MEMBERSHIP_CONTRACT.encode() + b"\0"
NEWEST = b""
"""The key in `set` that holds the first height of the newest set."""

ROLL_LOG = PREFIX + ROLL.encode() + b"\0"
"""The log of all nodes that ever joined, in that order."""

STEP_CHANGES = 16
"""Changes looked up between two looks at an event loop: about 1 ms."""

Get = Callable[[bytes], bytes | None]
"""Reads a key of the state."""
Role = Literal["master", "branch", "observer", "regulator"]


class NodeRecord(Record, frozen=True):
    """A node that is or was on the allow-list; no role means that it is not.

    `role` holds from `from_height` on and `role_before` below it.
    """

    name: str
    key: bytes
    organisation: str
    role: str
    role_before: str
    from_height: Count

    def role_at(self, height: int) -> str:
        """The role at a height of the newest two changes."""
        return self.role if height >= self.from_height else self.role_before


class Revocation(Record, frozen=True):
    """A TLS certificate of a node, by the hash of its public key; a restored one stays on record.

    `is_revoked` holds from `from_height` on, its opposite below it.
    """

    node: Bytes32
    is_revoked: bool
    from_height: Count

    def is_revoked_at(self, height: int) -> bool:
        """Whether the certificate is refused at a height."""
        return self.is_revoked == (height >= self.from_height)


class SetRecord(Record, frozen=True):
    """The set that rules from a height on, and the first height of the one before; 0 is none."""

    members: Annotated[tuple[Validator, ...], Meta(max_length=limits.VALIDATORS)]
    before: Count


class Listed(Record, frozen=True):
    """An entry of the roll."""

    node: Bytes32


LISTED = Schema(Listed, max_bytes=64)
NODE = Schema(NodeRecord, max_bytes=1_024)
REVOCATION = Schema(Revocation, max_bytes=64)
SET = Schema(SetRecord, max_bytes=limits.MAP_VALUE_BYTES)
_HEIGHT = Schema(int, max_bytes=16)


def set_key(from_height: int) -> bytes:
    """The key in `set` of the set that rules from a height on."""
    return from_height.to_bytes(8, "big")


def _key(name: str, key: bytes) -> bytes:
    return PREFIX + name.encode() + b"\0" + key


def has_membership(genesis: Genesis) -> bool:
    """Whether a chain's members can change; otherwise those of genesis stay for ever."""
    return any(
        module.name == SYSTEM_MODULE and MEMBERSHIP_CONTRACT in module.contracts
        for module in genesis.modules
    )


def find_node(get: Get, address: bytes) -> NodeRecord | None:
    """What the chain knows of a node."""
    data = get(_key(NODES, address))
    return None if data is None else NODE.decode(data)


def find_revocation(get: Get, certificate: bytes) -> Revocation | None:
    """What the chain knows of a certificate, by the hash of its public key."""
    data = get(_key(REVOKED, certificate))
    return None if data is None else REVOCATION.decode(data)


def newest_change(get: Get) -> int:
    """The first height of the newest membership: 1 if it never changed, 0 if it cannot change."""
    data = get(_key(SETS, NEWEST))
    return 0 if data is None else _HEIGHT.decode(data)


def is_pending(get: Get, height: int) -> bool:
    """Whether a change is decided, by the block of `height`, whose set has decided no block yet."""
    return newest_change(get) > height


def find_set(get: Get, from_height: int) -> SetRecord | None:
    """The set that rules from a height on, if one begins there."""
    data = get(_key(SETS, set_key(from_height)))
    return None if data is None else SET.decode(data)


def allowed_key(get: Get, address: Address, height: int) -> PublicKey | None:
    """The key by which a node proves itself at a height, None when it is not admitted."""
    node = find_node(get, address)
    return PublicKey(node.key) if node is not None and node.role_at(height) else None


class ValidatorHistory:
    """The validator sets of all heights that are decided: up to the newest executed one plus two.

    Reads committed state, whose sets never change, and remembers them.
    """

    __slots__ = ("_genesis", "_get", "_sets")

    def __init__(self, genesis: Genesis, get: Get) -> None:
        self._genesis = genesis_validators(genesis)
        self._get = get
        self._sets: dict[int, tuple[ValidatorSet, int]] = {}

    def at(self, height: int) -> ValidatorSet:
        """The set that rules a height.  Cost: one look-up, one more for each change since."""
        first = newest_change(self._get)
        while first > height:
            first = self._set(first)[1]
        return self._set(first)[0] if first else self._genesis

    def changes(self, height: int) -> list[int]:
        """The heights up to `height` at which another set than before began to rule, ascending."""
        return finish(self.changes_steps(0, height))

    def changes_steps(self, above: int, last: int) -> Generator[None, None, list[int]]:
        """The same of the heights above one and up to another, in steps of about a millisecond.

        Cost: one look-up for each change since `above`.
        """
        found: list[int] = []
        first, looked_up = newest_change(self._get), 0
        while first > max(above, 1):
            members, before = self._set(first)
            if first <= last and members != self._set(before)[0]:
                found.append(first)
            first, looked_up = before, looked_up + 1
            if looked_up % STEP_CHANGES == 0:
                yield
        return found[::-1]

    def _set(self, first: int) -> tuple[ValidatorSet, int]:
        found = self._sets.get(first)
        if found is None:
            found = self._sets[first] = decode_set(self._get, first)
        return found


def decode_set(get: Get, first: int) -> tuple[ValidatorSet, int]:
    """The set that rules from `first` on, and the first height of the one before."""
    record = find_set(get, first)
    if record is None:
        raise InvariantError(f"the validator set from height {first} on is missing")
    return ValidatorSet(record.members), record.before


def validators_at(get: Get, height: int) -> ValidatorSet:
    """The set that rules a height, where members can change.  Cost: one look-up a change since.

    For contracts, which read a state in progress; `ValidatorHistory` remembers.
    """
    first = newest_change(get)
    while True:
        members, before = decode_set(get, first)
        if first <= height:
            return members
        first = before


def refusal(before: ValidatorSet, after: ValidatorSet, cut_off: int) -> str | None:
    """Why a set must not follow another, by the name that a contract refuses with; None if it may.

    `cut_off` counts members of both whose certificates are revoked by the same change: they stay
    but fall silent until they have new ones. Those who stay and are heard must be a quorum of the
    new set, so that a node that was added and never starts cannot stop the chain.
    """
    staying = sum(after.index_of(Address(member.address)) is not None for member in before.members)
    size, heard = len(after.members), staying - cut_off
    if len(before.members) - heard > before.faults:
        return "TOO_MANY_REMOVED"
    if size < min(4, len(before.members)) or size in (2, 3):
        return "TOO_FEW_MASTERS"
    if size > max(limits.FLAT_VALIDATORS, len(before.members)):
        return "TOO_MANY_MASTERS"
    return "TOO_MANY_ADDED" if heard < after.quorum else None
