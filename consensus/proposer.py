"""Who proposes, and who does not for a while because a round was lost waiting for it.

What it decides: the proposer of (height, round), and the demotion list of the next header. A dead
proposer costs one timeout, not one every n-th block.
The list is a pure function of the chain: header h carries D(h), computed from D(h - 1) and the
certificate of h - 1 that stands inside header h; D(h) rules the proposers from height h + 1.

An entry is in one of three states, read at a height:
- waiting (`until` 0): no proposals until its precommit stands in a later certificate;
- delayed (height < `until`): it was seen alive at g, so `until` = g + 2**strikes;
- on parole (height >= `until`): it proposes again. A failure now costs a further strike and so
  twice the delay; after PAROLE_BLOCKS without one it is forgotten.
At most f entries are excluded (waiting or delayed) at once, so a correct proposer always remains;
when there would be more, the oldest exclusion goes on parole first. Entries stand in order of their
last demotion. Indexes in header h belong to V(h), its own set; where the next height has another
set, `carried` names the same validators in that one, and those who left fall out.
Source: architecture section 3, header; docs/format.md section 6.
"""

from collections.abc import Collection, Sequence

from consensus.vote_book import faults_of
from ledger import limits
from ledger.block import DEMOTION_STRIKES, Demotion
from ledger.ids import Height, Round, ValidatorIndex

PAROLE_BLOCKS = 2 * limits.VALIDATORS
"""Long enough for every member of the largest set to be proposer of round 0 at least once."""


Demotions = tuple[Demotion, ...]


def proposer(
    height: Height, round_number: Round, proposers: tuple[ValidatorIndex, ...]
) -> ValidatorIndex:
    """The proposer of a round: the eligible validators in turn, with no state to disagree about."""
    return proposers[(height + round_number) % len(proposers)]


def eligible(
    validator_count: int, demotions: Demotions, height: Height
) -> tuple[ValidatorIndex, ...]:
    """The validators that may propose at `height`, ascending; always at least n - f of them.

    `demotions` is D(height - 1), empty for heights 1 and 2.
    """
    excluded = _excluded(validator_count, demotions, height)
    return tuple(ValidatorIndex(index) for index in range(validator_count) if index not in excluded)


def next_demotions(
    previous: Demotions,
    *,
    height: Height,
    round_number: Round,
    voters: Collection[int],
    proposers: tuple[ValidatorIndex, ...],
    validator_count: int,
) -> Demotions:
    """D(height + 1) from D(height) and the certificate of `height`.

    `round_number` and `voters` (validator indexes) are the certificate's; `proposers` is the
    eligible list that ruled `height`. Each proposer of a round before `round_number` is demoted.
    """
    skipped = _skipped_proposers(height, round_number, proposers)
    entries: list[Demotion] = []
    strikes: dict[int, int] = {}
    for entry in previous:
        is_forgotten = entry.until > 0 and height >= entry.until + PAROLE_BLOCKS
        if entry.validator >= validator_count or is_forgotten:
            continue
        if entry.validator in skipped:
            strikes[entry.validator] = entry.strikes
        elif entry.until == 0 and entry.validator in voters:
            until = height + 2**entry.strikes
            entries.append(Demotion(entry.validator, entry.strikes, until))
        else:
            entries.append(entry)
    for validator in skipped:
        again = min(strikes.get(validator, 0) + 1, DEMOTION_STRIKES)
        entries.append(Demotion(validator, again, 0))
    return _released(entries, height=height, validator_count=validator_count)


def carried(demotions: Demotions, before: Sequence[bytes], after: Sequence[bytes]) -> Demotions:
    """The same entries when another set rules: `before` and `after` name the members in order.

    Who stays keeps strikes and delay, so leaving and coming back in one change gains nothing.
    """
    if before == after:
        return demotions
    index_of = {name: index for index, name in enumerate(after)}
    found = [(index_of.get(before[entry.validator]), entry) for entry in demotions]
    return tuple(
        Demotion(index, entry.strikes, entry.until) for index, entry in found if index is not None
    )


def _skipped_proposers(
    height: Height, round_number: Round, proposers: tuple[ValidatorIndex, ...]
) -> list[ValidatorIndex]:
    """The proposers of rounds 0 .. round_number - 1 in order, each once."""
    rounds = min(round_number, len(proposers))
    return [proposer(height, Round(number), proposers) for number in range(rounds)]


def _released(entries: list[Demotion], *, height: int, validator_count: int) -> Demotions:
    """Put the oldest exclusions on parole until at most f remain at the first height they rule."""
    first_ruled = height + 2
    excluded = _excluded(validator_count, entries, first_ruled)
    return tuple(
        Demotion(entry.validator, entry.strikes, first_ruled)
        if entry.excludes_at(first_ruled) and entry.validator not in excluded
        else entry
        for entry in entries
    )


def _excluded(validator_count: int, demotions: Collection[Demotion], height: int) -> frozenset[int]:
    """The newest f exclusions at a height, for membership tests only."""
    faults = faults_of(validator_count)
    excluded = [entry.validator for entry in demotions if entry.excludes_at(height)]
    return frozenset(excluded[len(excluded) - faults :] if len(excluded) > faults else excluded)
