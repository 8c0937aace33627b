"""The native system contract of membership: who runs a node here, in which role, with which keys.

It lives in namespace (system, 0), which every node holds. An admin proposes a set of changes, each
organisation has one vote, cast by an admin of it; a set passes with the votes of more than two
thirds of the organisations that run a master. The vote that completes it executes it, or is refused
by the name of what stands against it and can be cast again later.
What makes a set of validators a safe successor of another is `ledger/membership.py`.
Source: architecture section 4; docs/decisions/0024-membership.md.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from contracts.changes import (
    EVERYONE,
    HOLDER,
    NEWEST_HEIGHT,
    Change,
    Plan,
    newest_set,
    nodes_of,
    roll_of,
)
from contracts.interface import Context, Contract, method
from ledger import limits
from ledger.codec import Record, Schema
from ledger.genesis import Genesis, genesis_validators, node_address
from ledger.ids import Bytes32, Count
from ledger.membership import (
    MEMBERSHIP_CONTRACT,
    NAMES,
    NEWEST,
    SET,
    SETS,
    Listed,
    NodeRecord,
    Revocation,
    SetRecord,
    find_node,
    find_revocation,
    newest_change,
    set_key,
)

PROPOSALS = "proposal"
OPEN = "open"


class NewProposal(Record, frozen=True):
    """A set of changes that take effect together or not at all, and why."""

    changes: Annotated[tuple[Change, ...], Meta(min_length=1, max_length=limits.CHANGES)]
    reason: Annotated[str, Meta(max_length=256)]


class ProposalQuery(Record, frozen=True):
    """Name a proposal by the id of the operation that made it."""

    proposal: Bytes32


class NodeQuery(Record, frozen=True):
    """Ask for one node by its 32-byte address."""

    node: Bytes32


class CertificateQuery(Record, frozen=True):
    """Ask for one TLS certificate by the hash of its public key."""

    certificate: Bytes32


class MembersQuery(Record, frozen=True):
    """A page of the roll: nodes in the order in which they first joined, from a position on."""

    start: Count
    limit: Annotated[int, Meta(ge=1, le=limits.HISTORY_PAGE)]


class Empty(Record, frozen=True):
    """Nothing to say."""


class Proposal(Record, frozen=True):
    """A proposal. `votes` are organisations; `from_height` is 0 until it has passed.

    `expires` is the block time in ms from which on nobody may vote any more.
    """

    changes: tuple[Change, ...]
    reason: str
    organisation: str
    height: Count
    expires: Count
    votes: tuple[str, ...]
    from_height: Count


class Standing(Record, frozen=True):
    """How a proposal stands: votes that count, votes it needs, from when it holds (0: open)."""

    proposal: Bytes32
    votes: Count
    needed: Count
    from_height: Count


class Pending(Record, frozen=True):
    """Open proposals, oldest first, and the first height of the newest membership."""

    proposals: tuple[Standing, ...]
    from_height: Count


class Member(Record, frozen=True):
    """A node of the roll with its role at the next height; no role means that it is no member."""

    node: Bytes32
    name: str
    key: bytes
    organisation: str
    role: str
    role_before: str
    from_height: Count


class Members(Record, frozen=True):
    """A page of the roll, and the position of the next one; nil at the end."""

    members: tuple[Member, ...]
    next: Count | None


class Proposed(Record, frozen=True):
    """Event `proposed`."""

    proposal: Bytes32
    organisation: str


class Changed(Record, frozen=True):
    """Event `changed`: a proposal passed, and holds from a height on."""

    proposal: Bytes32
    from_height: Count


_PROPOSAL = Schema(Proposal, max_bytes=16 * limits.KIB)
_OPEN = Schema(tuple[Bytes32, ...], max_bytes=limits.MAP_VALUE_BYTES)

# ---- methods ----


def _propose(context: Context, arguments: NewProposal) -> Standing:
    _require_admin(context)
    plan = Plan(context, arguments.changes)
    plan.require_safe()
    expires = context.block.time + limits.PROPOSAL_LIFETIME_MS
    proposal = Proposal(
        changes=arguments.changes,
        reason=arguments.reason,
        organisation=context.organisation,
        height=context.block.height,
        expires=expires,
        votes=(),
        from_height=0,
    )
    _list_open(context, context.organisation)
    context.emit("proposed", Proposed(context.operation_id, context.organisation))
    if context.organisation in _voters(context):
        return _count(context, context.operation_id, proposal)
    return _store(context, context.operation_id, proposal)


def _vote(context: Context, arguments: ProposalQuery) -> Standing:
    _require_admin(context)
    proposal = _proposal(context, arguments)
    context.require(proposal.from_height == 0, "PROPOSAL_CLOSED")
    context.require(context.block.time < proposal.expires, "PROPOSAL_EXPIRED")
    context.require(context.organisation in _voters(context), "NO_MASTER")
    context.require(context.organisation not in proposal.votes, "ALREADY_VOTED")
    return _count(context, arguments.proposal, proposal)


def _count(context: Context, number: bytes, proposal: Proposal) -> Standing:
    """Add the caller's vote; the one that completes the majority executes the proposal."""
    votes = (*proposal.votes, context.organisation)
    counted = msgspec.structs.replace(proposal, votes=votes)
    standing = _standing(context, number, counted)
    if standing.votes < standing.needed:
        return _store(context, number, counted)
    plan = Plan(context, proposal.changes)
    context.require(newest_change(context.look_up) <= context.block.height, "CHANGE_PENDING")
    plan.require_safe()
    plan.execute()
    _close(context, number)
    context.emit("changed", Changed(number, plan.from_height))
    _store(context, number, msgspec.structs.replace(counted, from_height=plan.from_height))
    # As it stood when it passed: the change may have taken the vote of somebody who cast it.
    return msgspec.structs.replace(standing, from_height=plan.from_height)


def _proposal(context: Context, arguments: ProposalQuery) -> Proposal:
    found = context.map(PROPOSALS, _PROPOSAL).get(arguments.proposal)
    return context.refuse("NOT_FOUND") if found is None else found


def _pending(context: Context, _arguments: Empty) -> Pending:
    found: list[Standing] = []
    for number in _open(context):
        proposal = _proposal(context, ProposalQuery(number))
        if context.block.time < proposal.expires:
            found.append(_standing(context, number, proposal))
    return Pending(tuple(found), newest_change(context.look_up))


def _members(context: Context, arguments: MembersQuery) -> Members:
    roll = roll_of(context)
    stop = min(arguments.start + arguments.limit, roll.count())
    listed = [roll.get(position) for position in range(arguments.start, stop)]
    members = tuple(_member(context, entry.node) for entry in listed if entry is not None)
    return Members(members, stop if stop < roll.count() else None)


def _node(context: Context, arguments: NodeQuery) -> Member:
    return _member(context, arguments.node)


def _member(context: Context, address: bytes) -> Member:
    node = find_node(context.look_up, address)
    if node is None:
        return context.refuse("NOT_FOUND")
    return Member(
        node=address,
        name=node.name,
        key=node.key,
        organisation=node.organisation,
        role=node.role,
        role_before=node.role_before,
        from_height=node.from_height,
    )


def _certificate(context: Context, arguments: CertificateQuery) -> Revocation:
    found = find_revocation(context.look_up, arguments.certificate)
    return context.refuse("NOT_FOUND") if found is None else found


# ---- votes and open proposals ----


def _require_admin(context: Context) -> None:
    identity = context.identity
    context.require(identity is not None and identity.role == "admin", "ADMIN_ONLY")


def _voters(context: Context) -> tuple[str, ...]:
    """The organisations that run a master of the newest set, ascending."""
    nodes = nodes_of(context)
    found: dict[str, None] = {}
    for member in newest_set(context).members:
        node = nodes.get(member.address)
        if node is not None:
            found[node.organisation] = None
    return tuple(sorted(found))


def _standing(context: Context, number: bytes, proposal: Proposal) -> Standing:
    """Votes of organisations that no longer run a master do not count."""
    voters = _voters(context)
    votes = sum(organisation in voters for organisation in proposal.votes)
    return Standing(number, votes, 2 * len(voters) // 3 + 1, proposal.from_height)


def _store(context: Context, number: bytes, proposal: Proposal) -> Standing:
    context.map(PROPOSALS, _PROPOSAL).put(number, proposal)
    return _standing(context, number, proposal)


def _open(context: Context) -> tuple[bytes, ...]:
    return context.map(OPEN, _OPEN).get(EVERYONE) or ()


def _list_open(context: Context, organisation: str) -> None:
    """Put the new proposal on the list of open ones, from which expired ones fall now."""
    proposals = context.map(PROPOSALS, _PROPOSAL)
    still_open: list[bytes] = []
    own = 0
    for number in _open(context):
        proposal = proposals.get(number)
        if proposal is not None and context.block.time < proposal.expires:
            still_open.append(number)
            own += proposal.organisation == organisation
    context.require(own < limits.PROPOSALS_PER_ORGANISATION, "TOO_MANY_PROPOSALS")
    context.require(len(still_open) < limits.PROPOSALS, "TOO_MANY_PROPOSALS")
    context.map(OPEN, _OPEN).put(EVERYONE, (*still_open, context.operation_id))


def _close(context: Context, closed: bytes) -> None:
    left = tuple(number for number in _open(context) if number != closed)
    context.map(OPEN, _OPEN).put(EVERYONE, left)


def install_genesis(context: Context, genesis: Genesis) -> None:
    """Write the nodes and validators of genesis; part of the state root of height 0."""
    nodes, roll = nodes_of(context), roll_of(context)
    for node in genesis.nodes:
        address, key = node_address(node), bytes.fromhex(node.key)
        nodes.put(address, NodeRecord(node.name, key, node.organisation, node.role, "", 1))
        roll.append(EVERYONE, Listed(address))
        # Genesis may use a name twice; then its last bearer holds it.
        context.map(NAMES, HOLDER).put(node.name.encode(), address)
    context.map(SETS, SET).put(set_key(1), SetRecord(genesis_validators(genesis).members, 0))
    context.map(SETS, NEWEST_HEIGHT).put(NEWEST, 1)


CONTRACT = Contract(
    name=MEMBERSHIP_CONTRACT,
    methods={
        "propose": method(
            "Propose a set of changes; the vote of the caller's organisation is in it (admins)",
            NewProposal,
            Standing,
            _propose,
            writes=True,
        ),
        "vote": method(
            "The vote of the caller's organisation for a proposal (admins)",
            ProposalQuery,
            Standing,
            _vote,
            writes=True,
        ),
        "proposal": method("One proposal by id", ProposalQuery, Proposal, _proposal, writes=False),
        "pending": method(
            "Open proposals, and the newest change", Empty, Pending, _pending, writes=False
        ),
        "members": method("A page of all nodes", MembersQuery, Members, _members, writes=False),
        "node": method("One node by address", NodeQuery, Member, _node, writes=False),
        "certificate": method(
            "Whether a TLS certificate is revoked",
            CertificateQuery,
            Revocation,
            _certificate,
            writes=False,
        ),
    },
)
