"""Who belongs to the chain, as this node's executed state has it: names, roles, who may link.

What it decides: nothing; the facts are those of `ledger/membership.py`, or of genesis on a chain
whose members cannot change. Links are judged by the height in progress, so that a change holds for
them from the same height on as for votes.
"""

from collections.abc import Callable

from ledger import membership
from ledger.addresses import AddressKind, encode_text
from ledger.genesis import Genesis, node_address
from ledger.ids import Address, PublicKey
from ledger.membership import NodeRecord
from ledger.store.results import StateStore


class Members:
    """The allow-list and the revoked certificates of one chain."""

    def __init__(self, genesis: Genesis, state: StateStore, height: Callable[[], int]) -> None:
        """`height` is the height in progress."""
        self._state = state
        self._height = height
        self._can_change = membership.has_membership(genesis)
        self._genesis = {
            node_address(node): NodeRecord(
                node.name, bytes.fromhex(node.key), node.organisation, node.role, "", 0
            )
            for node in genesis.nodes
        }
        self._roll: list[Address] = []

    def find(self, address: Address) -> NodeRecord | None:
        """A node that is or was on the allow-list."""
        if not self._can_change:
            return self._genesis.get(address)
        return membership.find_node(self._state.get, address)

    def role(self, address: Address) -> str:
        """The role of a node now; nothing when it is not a member."""
        node = self.find(address)
        return "" if node is None else node.role_at(self._height())

    def name(self, address: Address) -> str:
        """What people call a node; its address when it never was a member."""
        node = self.find(address)
        return encode_text(AddressKind.NODE, address) if node is None else node.name

    def is_allowed(self, address: Address) -> PublicKey | None:
        """The key by which a member proves itself on a link; None for anybody else."""
        node = self.find(address)
        return PublicKey(node.key) if node is not None and self.role(address) else None

    def is_revoked(self, certificate: bytes) -> bool:
        """Whether a TLS certificate is refused, by the hash of its public key."""
        if not self._can_change:
            return False
        found = membership.find_revocation(self._state.get, certificate)
        return found is not None and found.is_revoked_at(self._height())

    def addresses(self) -> list[Address]:
        """The members in the order in which they first joined."""
        if not self._can_change:
            return list(self._genesis)
        count = self._state.log_count(membership.ROLL_LOG)
        for position in range(len(self._roll), count):
            entry = self._state.log_entry(membership.ROLL_LOG, position)
            if entry is not None:
                self._roll.append(Address(membership.LISTED.decode(entry.data).node))
        return [address for address in self._roll if self.role(address)]

    def changes_now(self) -> bool:
        """Whether the height in progress is the first one of the newest membership."""
        return membership.newest_change(self._state.get) == self._height()
