"""Messages for the height after the current one, kept until that height starts.

A node that decides a moment later than its peers would otherwise lose their first votes and wait
for a re-transmission. Nothing is judged here: the messages take the ordinary way in later.
"""

from consensus.height_state import slot_of
from consensus.messages import Signed
from ledger import limits
from ledger.ids import Height, ValidatorIndex

MESSAGES_PER_KIND = 8
"""Per sender and kind, the first to come: round 0 fills one, so a peer may be eight rounds ahead;
128 validators hold at most 3,072 messages, under 1 MB."""

_Key = tuple[ValidatorIndex, int]


class NextHeight:
    """The buffer of one height; bounded per sender, so nobody can push out another's messages."""

    __slots__ = ("_by_sender", "height")

    def __init__(self, height: Height) -> None:
        self.height = height
        self._by_sender: dict[_Key, list[Signed]] = {}

    def add(self, signed: Signed) -> None:
        """Keep a message of this height if its sender has room and it is not a copy."""
        message = signed.message
        if not 0 <= message.sender < limits.VALIDATORS:
            return
        held = self._by_sender.setdefault((message.sender, slot_of(message)[1]), [])
        if len(held) < MESSAGES_PER_KIND and signed not in held:
            held.append(signed)

    def take(self) -> list[Signed]:
        """All messages, in the order in which their senders were first heard."""
        return [signed for held in self._by_sender.values() for signed in held]

    def __len__(self) -> int:
        return sum(len(held) for held in self._by_sender.values())
