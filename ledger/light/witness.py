"""Comparing what one node shows with what others show for the same height.

What it decides: whether a witness agrees, is faulty, or proves that the chain has forked. Both
sides are judged from the same trusted header. Headers that different sets rule do not convict
anybody: the split lies at an earlier height, at the first change of validators in which both sides
differ, and the finding names it, so that the caller asks for that header.
What it never does: ask anybody, or call a fork what does not verify.
Source: research consensus-reliability section 1.8; docs/decisions/0035-light-client.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.block import HEADER
from ledger.errors import InvariantError, Reason, Rejected
from ledger.light.fork import ForkEvidence, fork_evidence
from ledger.light.trust import LightBlock, Terms, TrustedHeader, skip
from ledger.transaction import Chain
from ledger.validators import ValidatorSet


@dataclass(frozen=True, slots=True)
class Agreement:
    """The witness shows the same header."""


@dataclass(frozen=True, slots=True)
class FaultyWitness:
    """What the witness shows does not verify, and this is why; it proves nothing about others."""

    refusal: Rejected


@dataclass(frozen=True, slots=True)
class Split:
    """Both sides verify and differ: evidence, and the set that ruled its height."""

    evidence: ForkEvidence
    validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class EarlierSplit:
    """Both sides verify, but split at this height or before it.

    Ask the side without a header of this height for it, and compare again with it put in. A side
    that shows the header of the other here has to show the change that it left out as well.
    """

    height: int


Finding = Agreement | FaultyWitness | Split | EarlierSplit


def compare(
    trusted: TrustedHeader,
    primary: Sequence[LightBlock],
    witness: Sequence[LightBlock],
    chain: Chain,
    terms: Terms,
    now_ms: int,
) -> Finding:
    """Judge the headers of a witness, which lead to the height of the primary's last one.

    Both are what `skip` takes. Raises: Rejected where those of the primary do not verify.  Cost:
    one V for each signature of both.
    """
    ours = skip(trusted, primary, chain, terms, now_ms)
    try:
        theirs = skip(trusted, witness, chain, terms, now_ms)
        if theirs.height != ours.height:
            raise Rejected(Reason.BAD_PROOF, "a header of another height", height=theirs.height)
    except Rejected as refusal:
        return FaultyWitness(refusal)
    if theirs.hash == ours.hash:
        return Agreement()
    if theirs.validators == ours.validators:
        return Split(fork_evidence(primary[-1], witness[-1], chain), ours.validators)
    return _first_difference(trusted, primary, witness, chain)


def _first_difference(
    trusted: TrustedHeader,
    primary: Sequence[LightBlock],
    witness: Sequence[LightBlock],
    chain: Chain,
) -> Split | EarlierSplit:
    """Where two verified ways to different headers of one height part."""
    ruling = trusted.next_validators
    for one, other in zip(primary, witness, strict=False):
        if one.header == other.header:
            ruling = ValidatorSet(one.next_validators) if one.next_validators else ruling
            continue
        heights = [HEADER.decode(item.header).height for item in (one, other)]
        if heights[0] == heights[1]:
            return Split(fork_evidence(one, other, chain), ruling)
        return EarlierSplit(min(heights))
    raise InvariantError("two ways to different headers of one height never part")
