"""The commands `kanglian member …`: propose, vote, list, show. The work is in rpc/governance.py."""
# ruff: noqa: PLC0415 - heavy modules are imported where they are needed

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.messages import say
from rpc import console
from rpc.commands.base import FILE, command, option

if TYPE_CHECKING:
    from contracts.changes import Change
    from ledger.crypto.suite import CryptoSuite
    from rpc.client import Client, Json, Signer

ROLES = click.Choice(["master", "branch", "observer", "regulator"])


@click.group(help=say("help_member"))
def member() -> None:
    """Who belongs to the chain."""


@member.group(help=say("help_member_propose"))
def propose() -> None:
    """Changes that the organisations vote on."""


def _signing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that sends a transaction."""
    for declare in (
        option("passphrase_file", type=FILE),
        option("key", "key_path", type=FILE, required=True),
        option("rpc", "url", required=True),
    ):
        function = declare(function)
    return function


def _proposing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a proposal."""
    return _signing(option("reason", default="")(function))


@command(propose, "add")
@click.argument("name")
@click.argument("public_key")
@option("organisation", required=True)
@option("role", type=ROLES, default="observer", show_default=True)
@_proposing
def propose_add(
    name: str, public_key: str, organisation: str, role: str, as_json: bool, **options: Any
) -> None:
    """A node joins."""
    from rpc.governance import added

    def changes(suite: "CryptoSuite") -> "tuple[Change, ...]":
        return (added(name, public_key, organisation, role, suite),)

    _propose(changes, as_json=as_json, **options)


@command(propose, "remove")
@click.argument("address")
@_proposing
def propose_remove(address: str, as_json: bool, **options: Any) -> None:
    """A node leaves."""
    from contracts.changes import Change
    from rpc.governance import node_address

    change = Change("remove", node_address(address))
    _propose(lambda _suite: (change,), as_json=as_json, **options)


@command(propose, "role")
@click.argument("address")
@click.argument("role", type=ROLES)
@_proposing
def propose_role(address: str, role: Any, as_json: bool, **options: Any) -> None:
    """A node has another role."""
    from contracts.changes import Change
    from rpc.governance import node_address

    change = Change("role", node_address(address), role=role)
    _propose(lambda _suite: (change,), as_json=as_json, **options)


@command(propose, "revoke")
@click.argument("address")
@click.argument("certificate")
@_proposing
def propose_revoke(address: str, certificate: str, as_json: bool, **options: Any) -> None:
    """A TLS certificate counts no longer."""
    from rpc.governance import certificate_change

    change = certificate_change("revoke", address, certificate)
    _propose(lambda _suite: (change,), as_json=as_json, **options)


@command(propose, "restore")
@click.argument("address")
@click.argument("certificate")
@_proposing
def propose_restore(address: str, certificate: str, as_json: bool, **options: Any) -> None:
    """A revoked certificate counts again."""
    from rpc.governance import certificate_change

    change = certificate_change("restore", address, certificate)
    _propose(lambda _suite: (change,), as_json=as_json, **options)


@command(propose, "file")
@click.argument("path", metavar="FILE", type=FILE)
@_proposing
def propose_file(path: Path, as_json: bool, **options: Any) -> None:
    """Several changes that hold together or not at all."""
    from rpc.governance import read_changes

    changes = read_changes(path)
    _propose(lambda _suite: changes, as_json=as_json, **options)


@command(member, "vote")
@click.argument("proposal", metavar="ID")
@_signing
def member_vote(proposal: str, as_json: bool, **options: Any) -> None:
    """One vote for each organisation."""
    from ledger.errors import Reason, Rejected
    from rpc.governance import Governance

    try:
        number = bytes.fromhex(proposal)
    except ValueError:
        raise Rejected(Reason.MALFORMED, "a proposal's id has 64 hexadecimal digits") from None

    def send(client: "Client", signer: "Signer", now_ms: int) -> "Json":
        return Governance(client).vote(signer, number, now_ms)

    _act(send, as_json=as_json, **options)


@command(member, "list")
@option("rpc", "url", required=True)
def member_list(url: str, as_json: bool) -> None:
    """All nodes, and what is open."""
    from rpc.client import Client
    from rpc.governance import Governance

    with Client(url) as client:
        governance = Governance(client)
        view = {"members": governance.members(), **governance.pending()}
    lines = [
        say("member_line", **{**item, "role": item["role"] or "-"}) for item in view["members"]
    ]
    lines += [say("proposal_standing", **item) for item in view["proposals"]]
    console.show(view, "\n".join(lines), as_json=as_json)


@command(member, "show")
@click.argument("proposal", metavar="ID")
@option("rpc", "url", required=True)
def member_show(proposal: str, url: str, as_json: bool) -> None:
    """What a proposal would change, and who voted for it."""
    from rpc.client import Client
    from rpc.governance import Governance

    with Client(url) as client:
        view = Governance(client).proposal(proposal)
    lines = [say("proposal_lines", **{**view, "votes": ", ".join(view["votes"]) or "-"})]
    for change in view["changes"]:
        facts = [str(value) for name, value in change.items() if value and name != "action"]
        lines.append(say("change_line", action=change["action"], facts=" ".join(facts)))
    console.show(view, "\n".join(lines), as_json=as_json)


def _propose(
    changes: "Callable[[CryptoSuite], tuple[Change, ...]]",
    *,
    reason: str,
    as_json: bool,
    **options: Any,
) -> None:
    from rpc.governance import Governance

    def send(client: "Client", signer: "Signer", now_ms: int) -> "Json":
        return Governance(client).propose(signer, changes(signer.chain.suite), reason, now_ms)

    _act(send, as_json=as_json, **options)


def _act(
    send: "Callable[[Client, Signer, int], Json]",
    *,
    url: str,
    key_path: Path,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Sign and send one act, and say where the proposal stands."""
    from node.clock import SystemClock
    from node.keystore import load_key
    from rpc.client import Client, account_signer

    loaded = load_key(key_path, console.passphrases(passphrase_file, key_path))
    with Client(url) as client:
        clock = client.signing_clock(SystemClock().now_ms)
        view = send(client, account_signer(loaded, client.chain()), clock())
    has_passed = bool(view["from_height"])
    text = say("proposal_passed", **view) if has_passed else say("proposal_standing", **view)
    console.show(view, text, as_json=as_json)
