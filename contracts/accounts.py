"""The native system contract: organisations, accounts and the allow-lists of genesis.

It lives in namespace (system, 0), which every node holds. Genesis fills it; an organisation's
admin may add accounts of its own organisation. Rotation, votes and revocation come with governance.
"""

from typing import Annotated, Literal

from msgspec import Meta

from contracts.interface import ACCOUNT, ACCOUNTS_CONTRACT, Account, Context, Contract, method
from ledger import membership
from ledger.addresses import decode_text
from ledger.codec import Record, Schema
from ledger.genesis import Genesis, node_address
from ledger.ids import Bytes32, Name
from ledger.state import Map, namespace_prefix

ACCOUNTS = "account"
ORGANISATIONS = "organisation"
NODES = "node"


class OrganisationRecord(Record, frozen=True):
    """What the chain knows of an institution."""

    name: str


class NodeRecord(Record, frozen=True):
    """A node of the allow-list."""

    name: str
    key: bytes
    organisation: str
    role: str


class AccountQuery(Record, frozen=True):
    """Ask for one account by its 32-byte id."""

    account: Bytes32


class OrganisationQuery(Record, frozen=True):
    """Ask for one organisation."""

    organisation: Name


class NodeQuery(Record, frozen=True):
    """Ask for one node by its 32-byte address."""

    node: Bytes32


class NewAccount(Record, frozen=True):
    """Add an account to the caller's organisation."""

    account: Bytes32
    role: Literal["member", "admin"]


class Empty(Record, frozen=True):
    """Nothing to say."""


class AccountAdded(Record, frozen=True):
    """Event `account_added`."""

    account: Annotated[bytes, Meta(min_length=32, max_length=32)]
    organisation: str


_ORGANISATION = Schema(OrganisationRecord, max_bytes=1_024)
_ORGANISATION_PREFIX = (
    namespace_prefix(membership.SYSTEM_MODULE, 0)
    + f"{ACCOUNTS_CONTRACT}\0{ORGANISATIONS}\0".encode()
)
_NODE = Schema(NodeRecord, max_bytes=1_024)


def has_organisation(context: Context, organisation: str) -> bool:
    """Whether the chain knows an organisation; for the other common contracts."""
    return context.look_up(_ORGANISATION_PREFIX + organisation.encode()) is not None


def accounts_of(context: Context) -> Map[Account]:
    """The map of accounts by id."""
    return context.map(ACCOUNTS, ACCOUNT)


def _add_account(context: Context, arguments: NewAccount) -> Empty:
    identity = context.identity
    context.require(identity is not None and identity.role == "admin", "ADMIN_ONLY")
    accounts = accounts_of(context)
    context.require(accounts.get(arguments.account) is None, "ACCOUNT_EXISTS")
    accounts.put(
        arguments.account, Account(context.organisation, arguments.role, arguments.account)
    )
    context.emit("account_added", AccountAdded(arguments.account, context.organisation))
    return Empty()


def _account(context: Context, arguments: AccountQuery) -> Account:
    found = accounts_of(context).get(arguments.account)
    return context.refuse("NOT_FOUND") if found is None else found


def _organisation(context: Context, arguments: OrganisationQuery) -> OrganisationRecord:
    found = context.map(ORGANISATIONS, _ORGANISATION).get(arguments.organisation.encode())
    return context.refuse("NOT_FOUND") if found is None else found


def _node(context: Context, arguments: NodeQuery) -> NodeRecord:
    member = membership.find_node(context.look_up, arguments.node)
    if member is not None:
        role = member.role_at(context.block.height + 1)
        return NodeRecord(member.name, member.key, member.organisation, role)
    found = context.map(NODES, _NODE).get(arguments.node)
    return context.refuse("NOT_FOUND") if found is None else found


def install_genesis(context: Context, genesis: Genesis) -> None:
    """Write what genesis names; the writes are part of the state root of height 0."""
    organisations = context.map(ORGANISATIONS, _ORGANISATION)
    for organisation in genesis.organisations:
        organisations.put(organisation.id.encode(), OrganisationRecord(organisation.name))
    nodes = context.map(NODES, _NODE)
    # Where members can change, contract membership holds the nodes, and nobody else.
    for node in () if membership.has_membership(genesis) else genesis.nodes:
        record = NodeRecord(node.name, bytes.fromhex(node.key), node.organisation, node.role)
        nodes.put(node_address(node), record)
    accounts = accounts_of(context)
    for account in genesis.accounts:
        address = decode_text(account.address)[1]
        accounts.put(address, Account(account.organisation, account.role, address))


CONTRACT = Contract(
    name=ACCOUNTS_CONTRACT,
    methods={
        "add_account": method(
            "Add an account to the caller's organisation (admins only)",
            NewAccount,
            Empty,
            _add_account,
            writes=True,
        ),
        "account": method("One account by id", AccountQuery, Account, _account, writes=False),
        "organisation": method(
            "One organisation by id",
            OrganisationQuery,
            OrganisationRecord,
            _organisation,
            writes=False,
        ),
        "node": method("One node by address", NodeQuery, NodeRecord, _node, writes=False),
    },
)
