"""Mutants of what the rules stand on: counting, evidence, next heights, re-sending, proposers."""

from dataclasses import replace

from consensus import proposer as proposers
from consensus import vote_book
from consensus.core import Core
from consensus.messages import Evidence
from consensus.next_height import NextHeight
from consensus.resending import Resending
from consensus.vote_book import Added, Tally
from ledger.block import Demotion
from tests.mutants.of_rules import BYZZFUZZ, S1, SOLO
from tests.mutants.patching import Change, Mutant

ROTATION = "rotation"


def _quorum(offset: int) -> list[Change]:
    """2f + 1 + offset for n = 3f + 1."""
    right = vote_book.quorum_of
    return [(vote_book, "quorum_of", lambda count: max(1, right(count) + offset))]


def _conflict(mutated) -> list[Change]:
    """Another way to treat a validator's second vote: `mutated(tally, vote, signed, first)`."""

    def add_conflicting(tally, vote, signed, first, *, is_proposed):
        other = mutated(tally, vote, signed, first)
        return (
            right(tally, vote, signed, first, is_proposed=is_proposed) if other is None else other
        )

    right = Tally._add_conflicting
    return [(Tally, "_add_conflicting", add_conflicting)]


def _count_twice(tally, vote, _signed, first) -> Added | None:
    return Added(made_quorum=tally._count(vote.value)) if first[0] == vote else None


def _sign_twice(tally, vote, signed, first) -> Added | None:
    if first[0] != vote:
        return None
    tally.others.append((vote, signed))
    return Added(made_quorum=tally._count(vote.value))


def _replace_first(tally, vote, signed, first) -> Added | None:
    if first[0] == vote:
        return None
    tally.counts[first[0].value] -= 1
    tally.firsts[vote.sender] = (vote, signed)
    return Added(made_quorum=tally._count(vote.value), evidence=_evidence(tally, signed, first))


def _count_first_only(tally, vote, signed, first) -> Added | None:
    return None if first[0] == vote else Added(evidence=_evidence(tally, signed, first))


def _evidence(tally, signed, first) -> Evidence | None:
    """The accusation stays right: these mutants are about counting."""
    sender = signed.message.sender
    if sender in tally.accused:
        return None
    tally.accused.add(sender)
    return Evidence(first[1], signed)


def _accuse_of_copies(_tally, vote, signed, first) -> Added | None:
    return Added(evidence=Evidence(first[1], signed)) if first[0] == vote else None


def _no_evidence() -> list[Change]:
    right = Tally._add_conflicting
    return [
        (
            Tally,
            "_add_conflicting",
            lambda tally, vote, signed, first, *, is_proposed: replace(
                right(tally, vote, signed, first, is_proposed=is_proposed), evidence=None
            ),
        )
    ]


def _far_rounds_unknown() -> list[Change]:
    """What is said in rounds beyond the next is not even noted."""
    receive = Core._receive

    def mutated(self: Core, signed) -> None:
        if signed.message.round <= self._state.round + 1:
            receive(self, signed)

    return [(Core, "_receive", mutated)]


def _no_demotion() -> list[Change]:
    return _next_demotions(lambda _right, _previous, _facts: ())


def _eager_demotion() -> list[Change]:
    """The proposer of the deciding round is demoted as well."""

    def mutated(right, previous, facts):
        return right(previous, **{**facts, "round_number": facts["round_number"] + 1})

    return _next_demotions(mutated)


def _unbounded_demotion() -> list[Change]:
    """More than f validators may be excluded."""

    def excluded(_validator_count, demotions, height):
        return frozenset(entry.validator for entry in demotions if entry.excludes_at(height))

    return [(proposers, "_excluded", excluded)]


def _endless_demotion() -> list[Change]:
    """Who was demoted never comes back."""

    def mutated(right, previous, facts):
        found = right(previous, **facts)
        return tuple(Demotion(entry.validator, entry.strikes, 0) for entry in found)

    return _next_demotions(mutated)


def _next_demotions(mutated) -> list[Change]:
    """`next_demotions` by `mutated(right, previous, facts)`, wherever it was imported."""
    from tests.mutants import rotation
    from tests.simulation import chain

    right = proposers.next_demotions

    def next_demotions(previous, **facts):
        return mutated(right, previous, facts)

    return [(module, "next_demotions", next_demotions) for module in (proposers, chain, rotation)]


MUTANTS = (
    Mutant("quorum of 2f", (S1,), lambda: _quorum(-1)),
    Mutant("quorum of 2f + 2", (S1,), lambda: _quorum(1)),
    Mutant("a vote counts twice", (S1,), lambda: _conflict(_count_twice)),
    Mutant("a signer stands twice in certificates", (S1,), lambda: _conflict(_sign_twice)),
    Mutant("a second vote replaces the first", (S1,), lambda: _conflict(_replace_first)),
    Mutant("second votes never count", (S1,), lambda: _conflict(_count_first_only)),
    Mutant("copies are accused", (S1,), lambda: _conflict(_accuse_of_copies)),
    Mutant("contradictions are not accused", (SOLO,), _no_evidence),
    Mutant("far rounds are unknown", (SOLO,), _far_rounds_unknown),
    Mutant(
        "messages for the next height lost",
        (BYZZFUZZ,),
        lambda: [(NextHeight, "take", lambda _: [])],
    ),
    Mutant("nothing re-sent", (S1,), lambda: [(Resending, "answer", lambda *_: [])]),
    Mutant("nobody is demoted", (ROTATION,), _no_demotion),
    Mutant("who proposes is demoted", (ROTATION,), _eager_demotion),
    Mutant("more than f are demoted", (ROTATION,), _unbounded_demotion),
    Mutant("who is demoted stays so", (ROTATION,), _endless_demotion),
)
