"""Who votes at a height, as far as this node's own chain has decided it.

What it decides: whether this node knows the validators of a height, which is not the same as having
some. A state that ends at block h says who votes up to h + 2; for a later height it would give an
older set, and a judgement by that could count nodes that left. So it refuses instead.
On a chain whose members cannot change, all heights are known.
Source: architecture sections 4 and 5; docs/decisions/0032-release-members.md.
"""

from ledger.errors import InvariantError, Reason, Rejected
from ledger.genesis import Genesis
from ledger.ids import Address
from ledger.membership import EFFECTIVE_AFTER, NodeRecord, ValidatorHistory, has_membership
from ledger.store.results import StateStore
from ledger.validators import ValidatorSet
from node.members import Members


class Rulers:
    """The validator sets of the heights that this node's state knows, and the nodes in them."""

    def __init__(self, genesis: Genesis, state: StateStore) -> None:
        self._can_change = has_membership(genesis)
        self._history = ValidatorHistory(genesis, state.get)
        self._members = Members(genesis, state, lambda: self.executed + 1)
        self._state = state

    @property
    def executed(self) -> int:
        """The newest block in the state; 0 before the first."""
        return 0 if self._state.tip is None else self._state.tip.height

    def at(self, height: int) -> ValidatorSet:
        """The set that rules a height.

        Raises: Rejected(BAD_STATEMENT) when the state does not reach far enough to know it.
        """
        if self._can_change and height > self.executed + EFFECTIVE_AFTER:
            raise Rejected(
                Reason.BAD_STATEMENT,
                "this node does not know yet who votes at that height: start it, let it follow the "
                "others, stop it, and try again",
                height=height,
                newest_block=self.executed,
            )
        return self._history.at(height)

    def find(self, address: Address) -> NodeRecord | None:
        """A node that is or was a member."""
        return self._members.find(address)

    def organisations(self, height: int) -> frozenset[str]:
        """The organisations that run a validator of a height, each of them once.

        Right from the newest executed block on. Below it a node may have come back since, and
        for another organisation.
        """
        found: set[str] = set()
        for address in self.at(height).addresses:
            node = self.find(Address(address))
            if node is None:
                raise InvariantError("a validator is no node of this chain")
            found.add(node.organisation)
        return frozenset(found)
