"""Proposals and votes of members, as an admin sends and reads them through a node.

What it decides: nothing; the rules are those of `contracts/membership.py`. It turns what people
write into changes, sends one transaction for each act, and says by name what the chain refused.
"""

import json
from pathlib import Path
from typing import Any, cast

from contracts.abi import from_json
from contracts.changes import Change
from contracts.membership import NewProposal, ProposalQuery
from genesis.private_files import read_public
from ledger.addresses import (
    AddressKind,
    address_of,
    decode_text,
    encode_text,
    single_key_script,
)
from ledger.codec import Record
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.ids import Address
from ledger.limits import HISTORY_PAGE
from ledger.membership import MEMBERSHIP_CONTRACT, SYSTEM_MODULE
from rpc.client import Client, Json, Signer

CHANGES_FILE_BYTES = 64 * 1024
"""Sixteen changes, many times over."""


def node_address(text: str) -> Address:
    """The 32 bytes of a node's address text.

    Raises: Rejected(BAD_ADDRESS).
    """
    kind, address = decode_text(text)
    if kind is not AddressKind.NODE:
        raise Rejected(Reason.BAD_ADDRESS, f"{text} is no node; a node's address begins with kn1")
    return address


def added(name: str, key_hex: str, organisation: str, role: str, suite: CryptoSuite) -> Change:
    """The change that adds a node; its address follows from its key.

    Raises: Rejected(MALFORMED).
    """
    try:
        key = bytes.fromhex(key_hex)
    except ValueError:
        key = b""
    if not suite.is_key(key):
        detail = "a node's public key has 68 hexadecimal digits; `kanglian key show` prints it"
        raise Rejected(Reason.MALFORMED, detail)
    address = address_of(single_key_script(AddressKind.NODE, key), suite)
    members = {
        "action": "add",
        "node": address.hex(),
        "name": name,
        "key": key_hex.lower(),
        "organisation": organisation,
        "role": role,
        "certificate": None,
    }
    return from_json(Change, members)


def certificate_change(action: str, address: str, certificate: str) -> Change:
    """The change that revokes or restores a certificate, by the hash of its public key in hex.

    Raises: Rejected(BAD_ADDRESS | MALFORMED).
    """
    absent = dict.fromkeys(("name", "key", "organisation", "role"))
    node = node_address(address).hex()
    members = {"action": action, "node": node, **absent, "certificate": certificate}
    return from_json(Change, members)


def read_changes(path: Path) -> tuple[Change, ...]:
    """The changes of a JSON file: a list of objects, nodes by address text; absent members are nil.

    Raises: PrivateFileError, Rejected(MALFORMED | BAD_ADDRESS).
    """
    try:
        items = json.loads(read_public(path, CHANGES_FILE_BYTES))
    except (ValueError, RecursionError) as error:
        raise Rejected(Reason.MALFORMED, f"{path}: {error}") from None
    if not isinstance(items, list):
        raise Rejected(Reason.MALFORMED, f"{path}: expected a list of changes")
    return tuple(_change(path, item) for item in cast("list[object]", items))


def _change(path: Path, item: object) -> Change:
    if not isinstance(item, dict):
        raise Rejected(Reason.MALFORMED, f"{path}: a change is an object")
    given = cast("dict[str, Any]", item)
    members = {**dict.fromkeys(Change.__struct_fields__), **given}
    members["node"] = node_address(str(given.get("node"))).hex()
    return from_json(Change, members)


class Governance:
    """Membership of one chain through one node."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def propose(
        self, signer: Signer, changes: tuple[Change, ...], reason: str, now_ms: int
    ) -> Json:
        """Propose changes; the standing of the proposal, and the height.

        Raises: Rejected(NOT_SUCCESSFUL) with the name of the refusal, UnavailableError, RpcFailure.
        """
        return self._send(signer, "propose", NewProposal(changes, reason), now_ms)

    def vote(self, signer: Signer, proposal: bytes, now_ms: int) -> Json:
        """Vote for a proposal; its standing, and the height.

        Raises: as `propose`.
        """
        return self._send(signer, "vote", ProposalQuery(proposal), now_ms)

    def _send(self, signer: Signer, method: str, arguments: Record, now_ms: int) -> Json:
        wire = signer.call(SYSTEM_MODULE, 0, MEMBERSHIP_CONTRACT, method, arguments, now_ms=now_ms)
        sent = self._client.send_transaction(wire, "commit")
        height = sent.get("block_height")
        if height is None:
            detail = f"{sent['id']} is not decided yet; look for it with `kanglian tx get`"
            raise UnavailableError(detail)
        receipt = self._client.get_transaction_receipt(str(sent["id"]))["receipts"][0]
        if receipt["status"] != "OK":
            raise Rejected(Reason.NOT_SUCCESSFUL, str(receipt["error"] or receipt["status"]))
        return {**receipt["outputs"], "block_height": height}

    def _ask(self, method: str, **arguments: object) -> Json:
        answer = self._client.call(SYSTEM_MODULE, 0, MEMBERSHIP_CONTRACT, method, arguments)
        return cast("Json", answer["result"])

    def members(self) -> list[Json]:
        """Every node of the roll, with its address as text."""
        found: list[Json] = []
        start: int | None = 0
        while start is not None:
            page = self._ask("members", start=start, limit=HISTORY_PAGE)
            found += [_named(item) for item in page["members"]]
            start = page["next"]
        return found

    def pending(self) -> Json:
        """The open proposals and the height from which the newest change holds."""
        return self._ask("pending")

    def proposal(self, number: str) -> Json:
        """One proposal, its nodes as address texts.

        Raises: RpcFailure when the chain knows none.
        """
        found = self._ask("proposal", proposal=number)
        changes = [_named(item) for item in found["changes"]]
        return {"proposal": number, **found, "changes": changes}


def _named(item: Json) -> Json:
    address = bytes.fromhex(str(item["node"]))
    return {**item, "node": encode_text(AddressKind.NODE, address)}
