"""What a set of membership changes does: each change against the roll, and all of them together.

What it decides: whether changes fit the newest membership, each refusal by name, and what they
write. Who may propose and vote is `contracts/membership.py`.
Source: architecture section 4; docs/decisions/0024-membership.md.
"""

from typing import Literal

from contracts.accounts import has_organisation
from contracts.interface import Context
from ledger import limits
from ledger.addresses import AddressKind, address_of, single_key_script
from ledger.codec import Record, Schema
from ledger.ids import Bytes32, Name, PublicKeyBytes
from ledger.membership import (
    EFFECTIVE_AFTER,
    LISTED,
    NAMES,
    NEWEST,
    NODE,
    NODES,
    REVOCATION,
    REVOKED,
    ROLL,
    SET,
    SETS,
    Listed,
    NodeRecord,
    Revocation,
    Role,
    SetRecord,
    decode_set,
    find_revocation,
    newest_change,
    refusal,
    set_key,
)
from ledger.state import Log, Map
from ledger.validators import Validator, ValidatorSet, validator_set

EVERYONE = b""
"""The key of a map that has one entry, and of a log that is read in order."""


class Change(Record, frozen=True):
    """One change; each action has its own fields, all others are nil.

    add: node, name, key, organisation, role. remove: node. role: node, role.
    revoke and restore: node, certificate (SHA-256 of its public key, as `ca revoke` prints it).
    """

    action: Literal["add", "remove", "role", "revoke", "restore"]
    node: Bytes32
    name: Name | None = None
    key: PublicKeyBytes | None = None
    organisation: Name | None = None
    role: Role | None = None
    certificate: Bytes32 | None = None


NEWEST_HEIGHT = Schema(int, max_bytes=16)
HOLDER = Schema(bytes, max_bytes=64)

_FIELDS: dict[str, tuple[str, ...]] = {
    "add": ("name", "key", "organisation", "role"),
    "remove": (),
    "role": ("role",),
    "revoke": ("certificate",),
    "restore": ("certificate",),
}


def nodes_of(context: Context) -> Map[NodeRecord]:
    """Every node that ever joined, by address."""
    return context.map(NODES, NODE)


def roll_of(context: Context) -> Log[Listed]:
    """The same nodes in the order in which they joined."""
    return context.log(ROLL, LISTED)


def newest_set(context: Context) -> ValidatorSet:
    """The set that was decided last, which may not rule yet."""
    return decode_set(context.look_up, newest_change(context.look_up))[0]


class Plan:
    """A set of changes against the newest membership: each refused by name, or what it writes."""

    def __init__(self, context: Context, changes: tuple[Change, ...]) -> None:
        self._context = context
        self.from_height = context.block.height + EFFECTIVE_AFTER
        self._nodes: dict[bytes, NodeRecord] = {}
        self._joined: list[bytes] = []
        self._certificates: dict[bytes, Revocation] = {}
        for change in changes:
            self._take(change)

    def _take(self, change: Change) -> None:
        context = self._context
        given = [name for name in Change.__struct_fields__[2:] if getattr(change, name) is not None]
        context.require(tuple(given) == _FIELDS[change.action], "BAD_CHANGE")
        if change.certificate is not None:
            self._take_certificate(change, change.certificate)
            return
        context.require(change.node not in self._nodes, "DUPLICATE_NODE")
        known = nodes_of(context).get(change.node)
        if change.action == "add":
            self._nodes[change.node] = self._added(change, known)
            return
        if known is None or not known.role:
            context.refuse("UNKNOWN_NODE")
        context.require(change.role != known.role, "SAME_ROLE")
        self._nodes[change.node] = self._with_role(known, change.role or "")

    def _take_certificate(self, change: Change, certificate: bytes) -> None:
        context = self._context
        context.require(certificate not in self._certificates, "DUPLICATE_CERTIFICATE")
        known = find_revocation(context.look_up, certificate)
        context.require(nodes_of(context).get(change.node) is not None, "UNKNOWN_NODE")
        context.require(known is None or known.node == change.node, "CERTIFICATE_OF_ANOTHER_NODE")
        is_revoked = known is not None and known.is_revoked
        if change.action == "revoke":
            context.require(not is_revoked, "ALREADY_REVOKED")
        else:
            context.require(is_revoked, "NOT_REVOKED")
        revocation = Revocation(change.node, change.action == "revoke", self.from_height)
        self._certificates[certificate] = revocation

    def _added(self, change: Change, known: NodeRecord | None) -> NodeRecord:
        context = self._context
        key, organisation = change.key or b"", change.organisation or ""
        context.require(known is None or not known.role, "DUPLICATE_NODE")
        context.require(context.suite.is_key(key), "BAD_KEY")
        script = single_key_script(AddressKind.NODE, key)
        context.require(address_of(script, context.suite) == change.node, "ADDRESS_OF_ANOTHER_KEY")
        context.require(has_organisation(context, organisation), "UNKNOWN_ORGANISATION")
        name = change.name or ""
        self._require_free(name, change.node)
        if known is None:
            self._joined.append(change.node)
        return NodeRecord(name, key, organisation, change.role or "", "", self.from_height)

    def _require_free(self, name: str, address: bytes) -> None:
        """Two members of one name would deceive people; those who left give theirs back."""
        context = self._context
        count = roll_of(context).count() + len(self._joined)
        context.require(count < limits.NODES, "TOO_MANY_NODES")
        holder = context.map(NAMES, HOLDER).get(name.encode())
        if holder is not None and holder != address:
            node = self._nodes.get(holder) or nodes_of(context).get(holder)
            context.require(node is None or not node.role, "NAME_TAKEN")
        context.require(all(node.name != name for node in self._added_nodes()), "NAME_TAKEN")

    def _added_nodes(self) -> list[NodeRecord]:
        return [node for node in self._nodes.values() if node.role and not node.role_before]

    def _with_role(self, node: NodeRecord, role: str) -> NodeRecord:
        return NodeRecord(node.name, node.key, node.organisation, role, node.role, self.from_height)

    def _next_set(self, before: ValidatorSet) -> ValidatorSet:
        unchanged = [item for item in before.members if item.address not in self._nodes]
        masters = [
            Validator(address, node.key)
            for address, node in self._nodes.items()
            if node.role == "master"
        ]
        return validator_set([*unchanged, *masters])

    def require_safe(self) -> None:
        """Refuse what would leave the chain without a safe set of validators."""
        before = newest_set(self._context)
        after = self._next_set(before)
        silenced = [item.node for item in self._certificates.values() if item.is_revoked]
        addresses = [member.address for member in after.members]
        cut_off = sum(
            member.address in silenced and member.address in addresses for member in before.members
        )
        error = refusal(before, after, cut_off)
        if error is not None:
            self._context.refuse(error)

    def execute(self) -> None:
        """Write what holds from `from_height` on."""
        context = self._context
        first = newest_change(context.look_up)
        after = self._next_set(decode_set(context.look_up, first)[0])
        for address, node in self._nodes.items():
            nodes_of(context).put(address, node)
            if node.role:
                context.map(NAMES, HOLDER).put(node.name.encode(), address)
        for address in self._joined:
            roll_of(context).append(EVERYONE, Listed(address))
        for certificate, revocation in self._certificates.items():
            context.map(REVOKED, REVOCATION).put(certificate, revocation)
        context.map(SETS, SET).put(set_key(self.from_height), SetRecord(after.members, first))
        context.map(SETS, NEWEST_HEIGHT).put(NEWEST, self.from_height)
