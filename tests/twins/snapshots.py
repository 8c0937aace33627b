"""Copies of a core, so that scenarios which begin alike share what they have in common.

Only containers that a core changes are copied; messages, votes and verdicts are values. That
nothing mutable is shared is a test: a copy that is driven on leaves its original as it was.
"""

from consensus.core import Core
from consensus.height_state import HeightState
from consensus.next_height import NextHeight
from consensus.proposal_book import ProposalBook
from consensus.resending import Resending
from consensus.vote_book import Tally, VoteBook


def copied(core: Core) -> Core:
    """A core that behaves from now on as `core` would."""
    twin = _bare(core)
    twin._state = _state(core._state)
    twin._next = _bare(core._next)
    held = core._next._by_sender
    twin._next._by_sender = {key: list(messages) for key, messages in held.items()}
    twin._resending = _bare(core._resending)
    twin._resending._answered = set(core._resending._answered)
    twin._resending._positions = dict(core._resending._positions)
    return twin


def _state(state: HeightState) -> HeightState:
    twin = _bare(state)
    twin.votes = _votes(state.votes)
    twin.proposals = _proposals(state.proposals)
    twin.unsigned = dict(state.unsigned)
    twin.effects = list(state.effects)
    return twin


def _votes(book: VoteBook) -> VoteBook:
    twin = _bare(book)
    twin._rounds = {
        number: (_tally(prevotes), _tally(precommits))
        for number, (prevotes, precommits) in book._rounds.items()
    }
    twin._highest = dict(book._highest)
    twin.prevote_winners = dict(book.prevote_winners)
    twin.precommit_winners = dict(book.precommit_winners)
    return twin


def _tally(tally: Tally) -> Tally:
    return Tally(
        tally.quorum,
        tally.firsts.copy(),
        tally.others.copy(),
        tally.counts.copy(),
        tally.winners.copy(),
        tally.accused.copy(),
    )


def _proposals(book: ProposalBook) -> ProposalBook:
    twin = _bare(book)
    twin._rounds = {number: entries.copy() for number, entries in book._rounds.items()}
    twin._verdicts = dict(book._verdicts)
    twin._acceptable = set(book._acceptable)
    twin._accused = set(book._accused)
    return twin


_SLOTS = {
    kind: tuple(kind.__slots__)
    for kind in (Core, HeightState, NextHeight, ProposalBook, Resending, VoteBook)
}


def _bare(original):
    """A new object of the same class that shares every field."""
    kind = type(original)
    twin = kind.__new__(kind)
    for name in _SLOTS[kind]:
        setattr(twin, name, getattr(original, name))
    return twin
