"""How up to f nodes lie: a real core, whose messages leave in whatever form does harm.

The adversary signs with its own key only. It equivocates, keeps silent, talks to a few, withholds
blocks, proposes blocks that break the rules, claims rounds and heights it is not in, and serves
blocks and certificates that are wrong.
"""

from collections.abc import Callable
from dataclasses import replace

from consensus.events import Status, Step
from consensus.messages import Proposal, Signed, Vote, VoteKind
from ledger.block import Demotion
from tests.simulation.chain import Body, Decided, sealed
from tests.simulation.replica import Replica

FAR = 2**31
_HUGE = (-1, 2**31, 2**63, 2**64)


def speak(node: Replica, signed: Signed, body: Body | None) -> None:
    """Send a message that the adversary's core asked for, or something worse."""
    rng = node.shared.rng
    node.shared.network.counts["lie"] += 1
    trick = rng.choice(_TRICKS)
    trick(node, signed, body)
    if rng.random() < 0.1:
        height = rng.choice((0, 1, node.core.status.height + rng.randint(0, 3), FAR))
        node.broadcast(("status", node.index, Status(height, rng.randint(0, 9), Step.PREVOTE)))


def distort(node: Replica, blocks: tuple[Decided, ...]) -> tuple[Decided, ...]:
    """What a lying peer serves: less, more than was asked for, other blocks, other certificates."""
    rng = node.shared.rng
    node.shared.network.counts["lying sync"] += 1
    kind = rng.randrange(6)
    if kind == 0 or not blocks:
        return node.chain.blocks[:1] if kind == 0 else ()
    if kind == 1:
        return blocks[1:] + blocks[:1]
    at = rng.randrange(len(blocks))
    wrong = _wrong(node, blocks[at], kind)
    return (*blocks[:at], wrong, *blocks[at + 1 :])


def _wrong(node: Replica, decided: Decided, kind: int) -> Decided:
    body, certificate = decided.body, decided.certificate
    if kind == 2:
        fewer = certificate.signatures[: len(certificate.signatures) // 2]
        return replace(decided, certificate=replace(certificate, signatures=fewer))
    if kind == 3:
        other = sealed(replace(body, nonce=body.nonce + 1))
        return Decided(other, replace(certificate, value=other.value))
    if kind == 4:
        doubled = certificate.signatures[:1] * len(certificate.signatures)
        return replace(decided, certificate=replace(certificate, signatures=doubled))
    own = Vote(VoteKind.PRECOMMIT, body.height, certificate.round, body.value, -1, node.identity)
    signature = node.shared.sign(node.identity, own).signature
    signatures = tuple((index, signature) for index, _ in certificate.signatures)
    return replace(decided, certificate=replace(certificate, signatures=signatures))


def _honest(node: Replica, signed: Signed, body: Body | None) -> None:
    for peer in node.others:
        node.tell(peer, signed, body)


def _silent(_node: Replica, _signed: Signed, _body: Body | None) -> None:
    return


def _selective(node: Replica, signed: Signed, body: Body | None) -> None:
    for peer in node.shared.rng.sample(node.others, len(node.others) // 2):
        node.tell(peer, signed, body)


def _withheld(node: Replica, signed: Signed, body: Body | None) -> None:
    """The proposal to all, its block to few or none."""
    share = node.shared.rng.choice((0.0, 0.3, 0.7))
    for peer in node.others:
        node.tell(peer, signed, body if node.shared.rng.random() < share else None)


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
    message, shared = signed.message, node.shared
    if isinstance(message, Vote):
        values = [None, *sorted(node.bodies), bytes(32)]
        value = shared.rng.choice([value for value in values if value != message.value])
        changed = replace(message, value=value, valid_round=-1)
        return shared.sign(node.identity, changed), None
    now_ms = node.clock.now_ms(shared.schedule.now_ms)
    source = body or node.chain.build(node.identity, 0, now_ms)
    nonce = shared.rng.getrandbits(62)
    fresh = sealed(replace(source, author=node.identity, nonce=nonce))
    if shared.rng.random() < 0.5:
        fresh = _invalid(node, fresh)
    valid_round = shared.rng.randint(-1, message.round - 1) if message.round else -1
    changed = replace(message, value=fresh.value, valid_round=valid_round)
    return shared.sign(node.identity, changed), fresh


def _invalid(node: Replica, body: Body) -> Body:
    """A block that breaks one rule of the header."""
    rng = node.shared.rng
    last = body.last
    shorter = last and replace(last, signatures=last.signatures[1:])
    broken = rng.choice(
        (
            replace(body, demotions=(Demotion(0, 1, 0), Demotion(1, 1, 0))),
            replace(body, previous=bytes(32)),
            replace(body, time_ms=node.chain.time_ms),
            replace(body, time_ms=body.time_ms + rng.choice((600, 30_000))),
            replace(body, members=body.members[1:]),
            replace(body, next_members=(*body.members, 99)),
            replace(body, change=(node.identity,)),
            replace(body, change=(*body.next_members[1:], 99)),
            replace(body, last=shorter),
            replace(body, state_root=bytes(32)),
            replace(body, height=body.height + 1),
        )
    )
    return sealed(broken)


def _broken_block(node: Replica, signed: Signed, body: Body | None) -> None:
    """A proposal of an invalid block to all; a vote as it is."""
    if isinstance(signed.message, Proposal) and body is not None:
        own = sealed(replace(body, author=node.identity))
        body = _invalid(node, own)
        signed = node.shared.sign(node.identity, replace(signed.message, value=body.value))
    _honest(node, signed, body)


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
    lie = node.shared.sign(node.identity, moved)
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
                    lie, body = node.shared.sign(node.identity, stale), node.bodies[value]
    _honest(node, lie, body)


def _garbage(node: Replica, signed: Signed, body: Body | None) -> None:
    """Fields out of every range, names of others, frames of no kind; then the message itself."""
    rng, message = node.shared.rng, signed.message
    number = rng.choice(_HUGE)
    field = rng.choice(("height", "round", "valid_round", "sender"))
    wild = node.shared.sign(node.identity, replace(message, **{field: number}))
    stranger = rng.choice(node.members)
    posed = node.shared.sign(node.identity, replace(message, sender=stranger))
    for peer in node.others:
        node.tell(peer, wild, None)
        node.tell(peer, posed if stranger != message.sender else wild, None)
        node.shared.network.send(node.index, peer, ("noise", rng.getrandbits(64)))
        node.shared.network.send(node.index, peer, ("want", node.index, rng.choice((*_HUGE, 0))))
    _honest(node, signed, body)


_TRICKS: tuple[Callable[[Replica, Signed, Body | None], None], ...] = (
    _honest,
    _honest,
    _silent,
    _selective,
    _withheld,
    _two_faced,
    _two_faced,
    _both,
    _broken_block,
    _far_rounds,
    _stale,
    _stale,
    _garbage,
)
