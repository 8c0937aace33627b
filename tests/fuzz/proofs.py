"""`make proofs SECONDS=n`: bent proofs through the library and through the independent verifier.

Two readings of `docs/format.md`, ours in `ledger/` and that of `docs/kanglian_verify.py`, judge the
same bytes. A violation is an exception that is no refusal, a verdict in which they differ, or a
bent proof that both accept although more than a valid certificate of the same header changed.
Proof number n of a seed is always the same: `python -m tests.fuzz.proofs --seed S --first N
--count 1` brings a violation back. Ends with one line of figures, and non-zero on a violation.
"""

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from random import Random
from unittest import mock

import msgspec

from docs import kanglian_verify
from ledger import proof, succession
from ledger.crypto import secp256k1
from ledger.errors import Rejected
from ledger.genesis import Genesis
from ledger.proof import Verdict
from ledger.proofs import family as library
from rpc.proof_views import fact_view
from tests.fuzz.family_mutations import bent_document, recertified_document
from tests.fuzz.proof_mutations import CERTIFICATES, Mutant, bent, recertified, text_of
from tests.unit.ledger.test_proof import BLOCKS, operations
from tests.unit.ledger.worlds import GENESIS
from tests.unit.node_core import test_proofs as changing
from tests.unit.node_core.proof_world import ProofWorld, Truth
from tests.vectors.make_proof_vectors import without_values

RECERTIFIED_SHARE = {bent: 0.16, bent_document: 0.2}
"""They are signed anew, so nothing of them is remembered: ten times as slow as the others."""
VIOLATIONS_SHOWN = 10
REGISTERED = (
    *("transaction", "operation", "account", "module", "level", "contract", "method"),
    *("height", "time_ms", "anchor"),
)
"""What both say of a registration."""
MEMORY = 200_000
"""Signatures that are remembered; each costs about 300 bytes."""


@dataclass(frozen=True)
class World:
    """A chain as both verifiers know it, and valid proofs of it."""

    genesis: Genesis
    proofs: list[bytes]
    bend: Callable[[Random, bytes, list[bytes]], Mutant]
    recertify: Callable[[Random, bytes], Mutant | None] | None = None
    truth: Truth | None = None

    @cached_property
    def chain(self) -> kanglian_verify.Chain:
        """What the independent verifier read of the genesis file."""
        return kanglian_verify.read_genesis(msgspec.json.encode(self.genesis))

    @cached_property
    def stripped(self) -> set[bytes]:
        """The valid proofs without certificates, of which a header has many valid ones."""
        return {without_certificates(json.loads(data)) for data in self.proofs}


def without_certificates(document: object) -> bytes:
    """The one form of a proof without the members that are free within their rule."""

    def stripped(value: object) -> object:
        if isinstance(value, list):
            return [stripped(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            name: "" if name in CERTIFICATES else stripped(item) for name, item in value.items()
        }

    return text_of(stripped(document))


def worlds() -> tuple[World, World, World]:
    """The block of every kind of transaction, changing validators, and all other documents."""
    busy = [BLOCKS.proof(*place).to_json() for place in operations(BLOCKS.batches)]
    changed = [changing.WORLD.proof(height).to_json() for height in changing.PROVED]
    chain = ProofWorld()
    family = list(chain.documents.values())
    return (
        World(GENESIS, busy, bent, recertified),
        World(changing.GENESIS, changed, bent),
        World(changing.GENESIS, family, bent_document, recertified_document, Truth(chain)),
    )


WORLDS = worlds()


@lru_cache(MEMORY)
def remembered(key: bytes, digest: bytes, signature: bytes) -> bool:
    """`is_signed`, asked once for each signature."""
    return kanglian_verify.is_signed(key, digest, signature)


def remembering() -> AbstractContextManager[object]:
    """Both without repeated work: signatures, records seen before, what follows from genesis."""
    stack = ExitStack()

    def by_identity(function: Callable[[Genesis], object]) -> Callable[[Genesis], object]:
        found: dict[int, object] = {}

        def once(genesis: Genesis) -> object:
            if id(genesis) not in found:
                found[id(genesis)] = function(genesis)
            return found[id(genesis)]

        return once

    @lru_cache(1_024)
    def verifier(compressed: bytes) -> Callable[[bytes, bytes], bool]:
        return lru_cache(MEMORY // 8)(secp256k1.verifier(compressed))

    for module, name, replacement in (
        (secp256k1, "_cached_verifier", verifier),
        (kanglian_verify, "decode", lru_cache(8_192)(kanglian_verify.decode)),
        (library, "chain_of", by_identity(library.chain_of)),
        (proof, "chain_of", by_identity(proof.chain_of)),
        (succession, "genesis_validators", by_identity(succession.genesis_validators)),
    ):
        stack.enter_context(mock.patch.object(module, name, replacement))
    return stack


def by_library(world: World, data: bytes) -> dict[str, object] | str:
    """What the library says is proved, or its refusal in words."""
    try:
        found = library.verify_document(data, world.genesis)
    except Rejected as refusal:
        return f"{refusal.reason}: {refusal}"
    if isinstance(found, Verdict):
        named = {name: getattr(found, name) for name in REGISTERED}
        return {
            key: value.hex() if isinstance(value, bytes) else value for key, value in named.items()
        }
    return without_values(fact_view(found, world.chain.genesis_hash.hex()))


def by_independent(world: World, data: bytes) -> dict[str, object] | str:
    """The same of the independent verifier."""
    try:
        found = kanglian_verify.check_proof(data, world.chain, remembered).facts
    except kanglian_verify.Refused as refusal:
        return refusal.why
    return {name: item for name, item in found.items() if name != "organisation"}


@dataclass
class Tally:
    """What was judged, by kind of mutation."""

    accepted: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    @property
    def proofs(self) -> int:
        """All of them."""
        return self.accepted.total() + self.refused.total() + len(self.violations)


def mutant(seed: int, number: int) -> tuple[World, Mutant]:
    """Bent proof `number` of a seed."""
    generator = Random(seed << 48 | number)
    world = WORLDS[int(generator.random() * len(WORLDS))]
    data = world.proofs[int(generator.random() * len(world.proofs))]
    if world.recertify is not None and generator.random() < RECERTIFIED_SHARE[world.bend]:
        found = world.recertify(generator, data)
        if found is not None:
            return world, found
    others = world.proofs
    if world is not WORLDS[2] and generator.random() < 1 / 6:
        others = WORLDS[int(world is WORLDS[0])].proofs
    return world, world.bend(generator, data, others)


def judge(world: World, bent_proof: Mutant, tally: Tally) -> str | None:
    """Both verdicts of one proof; the account of a violation, None when all is well."""
    try:
        ours, theirs = by_library(world, bent_proof.data), by_independent(world, bent_proof.data)
    except Exception:  # noqa: BLE001 - any that is no refusal is what we look for
        return traceback.format_exc(limit=-3)
    if isinstance(ours, str) and isinstance(theirs, str):
        tally.refused[bent_proof.kind] += 1
        return None
    if ours != theirs:
        return f"they differ\n  library      {ours}\n  independent  {theirs}"
    if not bent_proof.is_recertified and not is_harmless(world, bent_proof.data):
        return "both accept what was changed"
    tally.accepted[bent_proof.kind] += 1
    return None


def is_harmless(world: World, data: bytes) -> bool:
    """Whether this is a valid proof of the world but for its certificates, or of another truth.

    A way that shows the absence of one key shows that of its neighbours, a run of blocks that
    nothing stands in a smaller range: then another question has a true answer as well.
    """
    if without_certificates(json.loads(data)) in world.stripped:
        return True
    return world.truth is not None and world.truth.holds(
        library.verify_document(data, world.genesis)
    )


def work(seed: int, first: int, count: int, seconds: float) -> Tally:
    """So many proofs from `first` on, for at most so long."""
    tally, deadline = Tally(), time.monotonic() + seconds
    with remembering():
        for number in range(first, first + count):
            if number % 256 == 0 and time.monotonic() > deadline:
                break
            world, found = mutant(seed, number)
            account = judge(world, found, tally)
            if account is not None:
                again = f"--seed {seed} --first {number} --count 1"
                tally.violations.append(f"{found.kind}, {again}\n{account}")
                if len(tally.violations) >= VIOLATIONS_SHOWN:
                    break
    return tally


def line(tally: Tally) -> str:
    """The figures in one line."""
    return (
        f"fuzz proofs {tally.proofs:,}, refused by both {tally.refused.total():,}, "
        f"accepted by both {tally.accepted.total():,}, violations {len(tally.violations)}"
    )


def say(text: str) -> None:
    """One line on standard output."""
    sys.stdout.write(text + "\n")


def main() -> int:
    """Parse options, run, print; 0 when there was no violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10**9)
    parser.add_argument("--count", type=int, default=10**12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    tally = work(options.seed, options.first, options.count, options.seconds)
    elapsed = time.monotonic() - start
    for kind in sorted({*tally.accepted, *tally.refused}):
        accepted, refused = tally.accepted[kind], tally.refused[kind]
        say(f"{kind:24s} accepted {accepted:>9,}  refused {refused:>9,}")
    for violation in tally.violations:
        say(f"VIOLATION {violation}")
    say(f"seed {options.seed}, {tally.proofs / elapsed:,.0f} proofs a second")
    say(line(tally))
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
