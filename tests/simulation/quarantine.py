"""When a node that lost its log, or more, may vote again.

It cannot know what it signed, so it waits until the chain is past it. The node may have signed at
the height after any block it held. Such a block was precommitted by a quorum, so at least f + 1
sound members had decided the block below; and any quorum that is heard, itself included, holds one
of those. So when so many answer, after the loss, that none of them is beyond this node's height,
the node may have signed at this height, at the next, and at none after.
Source: architecture section 5; research consensus-reliability section 1.5.
"""

from collections.abc import Mapping

from consensus.vote_book import quorum_of
from tests.simulation.chain import Members

MARGIN = 2
NEVER = 2**62
"""The first voting height of a node that has not heard a quorum."""


def voting_from(me: int, members: Members, levels: Mapping[int, int], height: int) -> int | None:
    """The first height to vote at, or None as long as no quorum was heard, this node included.

    `levels` are the heights in progress that others told in answer to this node's question, asked
    after the loss; `height` is its own. Claims that are too high only make it wait for others.
    """
    heard = sum(
        member == me or (member in levels and levels[member] <= height) for member in members
    )
    return height + MARGIN if heard >= quorum_of(len(members)) else None
