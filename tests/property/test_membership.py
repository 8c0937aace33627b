"""T-01: after every accepted change there is a next block that all nodes take.

A peer's chain halted because an accepted parameter made every next block invalid
(ASA-2024-001). Here any changes are proposed and voted; whatever is accepted, blocks go on, decided
by those alone who were members before and stay: what was added may never start.
"""

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.changes import Change
from ledger.block import block_hash
from ledger.codec import encode
from ledger.transaction import Call
from ledger.validators import ValidatorSet
from node.synced import append_synced
from tests.unit.ledger.worlds import SUITE, key
from tests.unit.node_core.chains import (
    ADMINS,
    NEWCOMERS,
    ORGANISATIONS,
    VALIDATORS,
    LocalChain,
    certify_by,
    facts,
    fetched,
    make_transaction,
    node_name,
)

ROLES = st.sampled_from(["master", "branch", "observer", "regulator"])
NAMES = [*VALIDATORS.addresses, *(node_name(name) for name in NEWCOMERS)]
NODES = st.sampled_from(NAMES)
CERTIFICATES = st.binary(min_size=32, max_size=32)


def added(number, role, organisation):
    name = NEWCOMERS[number]
    return Change(
        "add",
        node_name(name),
        name=name.replace(" ", "_"),
        key=key(name),
        organisation=organisation,
        role=role,
    )


CHANGES = st.one_of(
    st.builds(added, st.integers(0, 11), ROLES, st.sampled_from(ORGANISATIONS)),
    st.builds(lambda node: Change("remove", node), NODES),
    st.builds(lambda node, role: Change("role", node, role=role), NODES, ROLES),
    st.builds(
        lambda action, node, certificate: Change(action, node, certificate=certificate),
        st.sampled_from(["revoke", "restore"]),
        NODES,
        CERTIFICATES | st.just(bytes(32)),
    ),
)
MANY = st.lists(st.integers(0, 11), max_size=3, unique=True)
# Masters that come and go together are what most often is accepted, so chains grow and shrink.
SETS = st.lists(CHANGES, min_size=1, max_size=3) | st.builds(
    lambda joining, leaving: [
        *(added(number, "master", ORGANISATIONS[number % 4]) for number in joining),
        *(Change("remove", NAMES[number]) for number in leaving),
    ],
    MANY,
    MANY,
).filter(bool)


class Followed(LocalChain):
    """A chain whose blocks are decided by a quorum of those who stay, and taken by a follower."""

    def __init__(self):
        super().__init__()
        self.follower = LocalChain()
        self.nonce = 0

    def next_block(self, *batches, time=None):
        block, _ = super().next_block(*batches, time=time)
        height = self.tip.height + 1
        now = self.writer.validators_at(height)
        staying = self.staying(height)
        assert len(staying) >= now.quorum
        signers = [now.index_of(address) for address in staying][: now.quorum]
        return block, certify_by(now, block_hash(block.header, SUITE), height, signers=signers)

    def staying(self, height):
        """Members of this set who were in the one before; all of them where nothing changed."""
        before = self.writer.validators_at(max(1, height - 1))
        now: ValidatorSet = self.writer.validators_at(height)
        return [address for address in now.addresses if address in before.addresses]

    def decide(self, *batches, time=None):
        block = super().decide(*batches, time=time)
        fresh = fetched(self, self.tip.height)
        trio.run(append_synced, self.follower.writer, fresh, lambda _height: None)
        self.follower.restart()
        assert self.follower.writer.proposers() == self.writer.proposers()
        assert facts(self.follower) == facts(self)
        return block

    def enact(self, changes):
        """Propose and vote with all organisations; whether it passed."""
        proposal = self.send(0, "propose", tuple(changes), "")
        if proposal.status:
            return False
        return any("changed" in names(self.send(n, "vote", proposal.id)) for n in range(1, 4))

    def send(self, admin, method, *arguments):
        self.nonce += 1
        call = Call("membership", method, encode(arguments))
        settings = {"by": ADMINS[admin], "module": "system", "valid_until": self.tip.time + 60_000}
        return self.run(make_transaction(call, self.nonce, **settings))[0]


def names(receipt):
    return [event.name for event in receipt.events]


@given(st.lists(SETS, min_size=1, max_size=6))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
def test_t_01_every_accepted_change_keeps_a_next_block_valid_on_all_nodes(sets):
    chain = Followed()
    for changes in sets:
        chain.enact(changes)
        for _ in range(3):
            chain.decide(time=chain.tip.time + 60_000)
        now = chain.writer.validators
        assert len(now.members) >= 4


def test_t_01_a_chain_grows_to_fifteen_masters_one_by_one_and_not_further():
    chain = Followed()
    for number in range(11):
        assert chain.enact([added(number, "master", ORGANISATIONS[number % 4])])
        for _ in range(2):
            chain.decide(time=chain.tip.time + 60_000)
        assert len(chain.writer.validators.members) == 5 + number
    assert not chain.enact([added(11, "master", "hospital")])
    for _ in range(11):
        assert chain.enact([Change("remove", chain.writer.validators.addresses[-1])])
        for _ in range(2):
            chain.decide(time=chain.tip.time + 60_000)
    assert len(chain.writer.validators.members) == 4
    assert not chain.enact([Change("remove", chain.writer.validators.addresses[-1])])
