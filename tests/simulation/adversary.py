"""How up to f nodes lie: a real core, whose messages leave in whatever form does harm.

The adversary signs with its own key only. It equivocates, keeps silent, talks to a few, proposes
blocks that break the rules, and claims rounds and heights it is not in.
"""

from collections.abc import Callable
from dataclasses import replace

from consensus.events import Status, Step
from consensus.messages import Proposal, Signed, Vote, VoteKind
from ledger.block import Demotion
from tests.simulation.chain import Body, sealed
from tests.simulation.replica import Replica

FAR = 2**31


def speak(node: Replica, signed: Signed, body: Body | None) -> None:
    """Send a message that the adversary's core asked for, or something worse."""
    rng = node.shared.rng
    node.shared.network.faults += 1
    trick = rng.choice(_TRICKS)
    trick(node, signed, body)
    if rng.random() < 0.1:
        claim = Status(node.core.status.height + rng.randint(0, 3), rng.randint(0, 9), Step.PREVOTE)
        node.broadcast(("status", node.index, claim))


def _honest(node: Replica, signed: Signed, body: Body | None) -> None:
    for peer in node.others:
        node.tell(peer, signed, body)


def _silent(_node: Replica, _signed: Signed, _body: Body | None) -> None:
    return


def _selective(node: Replica, signed: Signed, body: Body | None) -> None:
    for peer in node.shared.rng.sample(node.others, len(node.others) // 2):
        node.tell(peer, signed, body)


def _two_faced(node: Replica, signed: Signed, body: Body | None) -> None:
    """One message to some, another to the others, both properly signed."""
    other, other_body = _another(node, signed, body)
    for peer in node.others:
        if node.shared.rng.random() < 0.5:
            node.tell(peer, signed, body)
        else:
            node.tell(peer, other, other_body)


def _both(node: Replica, signed: Signed, body: Body | None) -> None:
    """Two different messages to everybody, in either order."""
    other, other_body = _another(node, signed, body)
    for peer in node.others:
        node.tell(peer, signed, body)
        node.tell(peer, other, other_body)


def _another(node: Replica, signed: Signed, body: Body | None) -> tuple[Signed, Body | None]:
    message = signed.message
    if isinstance(message, Vote):
        values = [None, *sorted(node.bodies), bytes(32)]
        value = node.shared.rng.choice([value for value in values if value != message.value])
        changed = replace(message, value=value, valid_round=-1)
        return node.shared.sign(node.index, changed), None
    source = body or node.disk.chain.build(node.index, 0)
    nonce = node.shared.rng.getrandbits(62)
    fresh = sealed(replace(source, author=node.index, nonce=nonce))
    if node.shared.rng.random() < 0.3:
        fresh = sealed(replace(fresh, demotions=(Demotion(0, 1, 0), Demotion(1, 1, 0))))
    valid_round = node.shared.rng.randint(-1, message.round - 1) if message.round else -1
    changed = replace(message, value=fresh.value, valid_round=valid_round)
    return node.shared.sign(node.index, changed), fresh


def _far_rounds(node: Replica, signed: Signed, body: Body | None) -> None:
    """Pretend to be in a later round, in any, or at the next height."""
    rng, message = node.shared.rng, signed.message
    _honest(node, signed, body)
    ahead = rng.choice((1, 2, 7, FAR))
    if isinstance(message, Proposal):
        moved = replace(message, round=message.round + ahead)
    elif rng.random() < 0.2:
        moved = replace(message, height=message.height + 1)
    else:
        moved = replace(message, round=message.round + ahead, valid_round=-1)
    lie = node.shared.sign(node.index, moved)
    for peer in node.others:
        node.tell(peer, lie, body)


def _stale(node: Replica, signed: Signed, body: Body | None) -> None:
    """Propose again what an earlier round justified, though a later one may have locked another."""
    message, votes = signed.message, node.core._state.votes
    lie = signed
    if isinstance(message, Proposal):
        for number in range(message.round):
            tally = votes.tally(VoteKind.PREVOTE, number)
            for value in () if tally is None else tally.winners:
                if value in node.bodies and lie is signed:
                    stale = replace(message, value=value, valid_round=number)
                    lie, body = node.shared.sign(node.index, stale), node.bodies[value]
    _honest(node, lie, body)


_TRICKS: tuple[Callable[[Replica, Signed, Body | None], None], ...] = (
    _honest,
    _honest,
    _silent,
    _selective,
    _two_faced,
    _two_faced,
    _both,
    _far_rounds,
    _stale,
    _stale,
)
