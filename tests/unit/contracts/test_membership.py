"""Membership: what may be proposed, who may vote, how refusals are called, when changes hold."""

import pytest

from contracts.changes import Change
from contracts.interface import Revert
from contracts.membership import Member, Pending, Proposal, Standing
from ledger import limits
from ledger.codec import encode
from ledger.genesis import node_address
from ledger.membership import Revocation, refusal
from ledger.receipts import Status
from ledger.transaction import Call
from ledger.validators import Validator, validator_set
from tests.unit.ledger.worlds import key
from tests.unit.node_core.chains import (
    ADMIN,
    CENTRE,
    CLINIC,
    GENESIS,
    MEMBER,
    NEWCOMERS,
    UNIVERSITY,
    VALIDATORS,
    LocalChain,
    make_transaction,
    node_name,
)

FIRST = VALIDATORS.members[0]
CERTIFICATE = bytes(range(32))


class Governed(LocalChain):
    """A chain that people propose and vote on, one block for each act."""

    nonce = 0

    def act(self, by, method, *arguments):
        """One transaction in a block of its own: its receipt."""
        (receipt,) = self.run(self.transaction(by, method, *arguments))
        return receipt

    def transaction(self, by, method, *arguments):
        self.nonce += 1
        call = Call("membership", method, encode(arguments))
        return make_transaction(call, self.nonce, by=by, module="system")

    def propose(self, *changes, by=ADMIN):
        """The id of a proposal that was accepted."""
        receipt = self.act(by, "propose", changes, "because")
        assert outcome(receipt) == "OK"
        return receipt.id

    def enact(self, *changes):
        """Propose and vote until it passes; the height from which it holds."""
        number = self.propose(*changes)
        assert outcome(self.act(CLINIC, "vote", number)) == "OK"
        assert outcome(self.act(CENTRE, "vote", number)) == "OK"
        return self.tip.height + 2

    def ask(self, method, *arguments):
        return self.read("system", 0, "membership", method, *arguments)

    def idle(self, blocks=1):
        for _ in range(blocks):
            self.decide(time=self.tip.time + 60_000)


@pytest.fixture
def chain():
    return Governed()


def outcome(receipt):
    return receipt.error or Status(receipt.status).name


def add(number=0, role="master", **settings):
    name = NEWCOMERS[number]
    fields = {
        "action": "add",
        "node": node_name(name),
        "name": name.replace(" ", "_"),
        "key": key(name),
        "organisation": "hospital",
        "role": role,
    }
    return Change(**{**fields, **settings})


def remove(address=FIRST.address):
    return Change("remove", address)


def change_role(address, role):
    return Change("role", address, role=role)


def revoke(address=FIRST.address, certificate=CERTIFICATE):
    return Change("revoke", address, certificate=certificate)


def restore(address=FIRST.address, certificate=CERTIFICATE):
    return Change("restore", address, certificate=certificate)


# ---- who may do what ----


def test_members_may_neither_propose_nor_vote(chain):
    number = chain.propose(add())
    assert outcome(chain.act(MEMBER, "propose", (add(1),), "")) == "ADMIN_ONLY"
    assert outcome(chain.act(MEMBER, "vote", number)) == "ADMIN_ONLY"


def test_an_organisation_has_one_vote(chain):
    number = chain.propose(add())
    assert outcome(chain.act(ADMIN, "vote", number)) == "ALREADY_VOTED"
    assert chain.ask("proposal", number).votes == ("hospital",)


def test_more_than_two_thirds_of_the_organisations_with_a_master_pass_a_proposal(chain):
    number = chain.propose(add())
    assert chain.ask("pending") == Pending((Standing(number, 1, 3, 0),), 1)
    chain.act(CLINIC, "vote", number)
    assert chain.ask("pending") == Pending((Standing(number, 2, 3, 0),), 1)
    receipt = chain.act(UNIVERSITY, "vote", number)
    height = chain.tip.height
    assert [event.name for event in receipt.events] == ["changed"]
    assert receipt.output == encode(Standing(number, 3, 3, height + 2))
    assert chain.ask("pending") == Pending((), height + 2)
    found = chain.ask("proposal", number)
    assert found == Proposal(
        changes=(add(),),
        reason="because",
        organisation="hospital",
        height=1,
        expires=found.expires,
        votes=("hospital", "clinic", "university"),
        from_height=height + 2,
    )


def test_an_organisation_without_a_master_may_propose_but_its_vote_does_not_count(chain):
    chain.enact(remove(master_of("clinic")), add())
    chain.idle(2)
    number = chain.propose(add(1), by=CLINIC)
    assert chain.ask("pending").proposals == (Standing(number, 0, 3, 0),)
    assert outcome(chain.act(CLINIC, "vote", number)) == "NO_MASTER"


def test_a_vote_needs_an_open_proposal(chain):
    assert outcome(chain.act(ADMIN, "vote", bytes(32))) == "NOT_FOUND"
    number = chain.propose(add())
    chain.act(CLINIC, "vote", number)
    chain.act(CENTRE, "vote", number)
    assert outcome(chain.act(UNIVERSITY, "vote", number)) == "PROPOSAL_CLOSED"


def test_a_proposal_expires_after_a_week(chain):
    number = chain.propose(add())
    expires = chain.ask("proposal", number).expires
    assert expires == chain.tip.time + limits.PROPOSAL_LIFETIME_MS
    chain.decide(time=expires - 400_000)
    late = chain.transaction(CLINIC, "vote", number)
    body = make_transaction(
        late.body.payload, 99, by=CLINIC, module="system", valid_until=expires + 1
    )
    (receipt,) = chain.run(body, time=expires)
    assert outcome(receipt) == "PROPOSAL_EXPIRED"
    assert chain.ask("pending").proposals == ()


def test_an_organisation_has_few_open_proposals(chain):
    for number in range(limits.PROPOSALS_PER_ORGANISATION):
        chain.propose(add(number))
    assert outcome(chain.act(ADMIN, "propose", (add(9),), "")) == "TOO_MANY_PROPOSALS"
    assert chain.propose(add(9), by=CLINIC)


# ---- what may not be proposed ----


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ((), "BAD_ARGUMENTS"),
        ((add(role="admiral"),), "BAD_ARGUMENTS"),
        ((add(key=None),), "BAD_CHANGE"),
        ((add(certificate=CERTIFICATE),), "BAD_CHANGE"),
        ((Change("remove", FIRST.address, role="master"),), "BAD_CHANGE"),
        ((Change("revoke", FIRST.address),), "BAD_CHANGE"),
        ((add(node=FIRST.address, key=FIRST.key),), "DUPLICATE_NODE"),
        ((add(role="observer"), add(role="observer")), "DUPLICATE_NODE"),
        ((change_role(FIRST.address, "observer"), remove()), "DUPLICATE_NODE"),
        ((add(node=bytes(32)),), "ADDRESS_OF_ANOTHER_KEY"),
        ((add(key=b"\x02" + key(NEWCOMERS[0])[1:]),), "BAD_KEY"),
        ((add(key=b"\x01\x02" + bytes(32)),), "BAD_KEY"),
        ((add(organisation="nobody"),), "UNKNOWN_ORGANISATION"),
        ((add(name="validator_1"),), "NAME_TAKEN"),
        ((add(role="observer", name="a"), add(1, role="observer", name="a")), "NAME_TAKEN"),
        ((remove(bytes(32)),), "UNKNOWN_NODE"),
        ((change_role(bytes(32), "observer"),), "UNKNOWN_NODE"),
        ((change_role(FIRST.address, "master"),), "SAME_ROLE"),
        ((revoke(bytes(32)),), "UNKNOWN_NODE"),
        ((revoke(), revoke()), "DUPLICATE_CERTIFICATE"),
        ((restore(),), "NOT_REVOKED"),
        ((remove(),), "TOO_FEW_MASTERS"),
        ((change_role(FIRST.address, "branch"),), "TOO_FEW_MASTERS"),
        ((remove(), remove(VALIDATORS.members[1].address), add(), add(1)), "TOO_MANY_REMOVED"),
        (
            (revoke(), revoke(VALIDATORS.members[1].address, bytes(32))),
            "TOO_MANY_REMOVED",
        ),
        ((remove(), add(), revoke(VALIDATORS.members[1].address)), "TOO_MANY_REMOVED"),
        ((add(), add(1)), "TOO_MANY_ADDED"),
    ],
)
def test_a_change_that_must_not_be_is_refused_by_name(chain, changes, error):
    before = chain.tip.height
    assert outcome(chain.act(ADMIN, "propose", changes, "")) == error
    assert chain.ask("pending") == Pending((), 1)
    assert chain.writer.validators_at(before + 3) == VALIDATORS


def test_more_changes_than_a_set_holds_are_refused(chain):
    changes = tuple(remove(bytes([number]) * 32) for number in range(limits.CHANGES + 1))
    assert outcome(chain.act(ADMIN, "propose", changes, "")) == "BAD_ARGUMENTS"


def members(*numbers):
    return validator_set(Validator(bytes([number]) * 32, key("same")) for number in numbers)


@pytest.mark.parametrize(
    ("before", "after", "cut_off", "error"),
    [
        (range(4), range(4), 0, None),
        (range(4), range(4), 1, None),
        (range(4), range(4), 2, "TOO_MANY_REMOVED"),
        (range(4), range(5), 0, None),
        (range(4), range(5), 1, "TOO_MANY_ADDED"),
        (range(4), range(6), 0, "TOO_MANY_ADDED"),
        (range(5), range(4), 0, None),
        (range(5), range(1, 4), 0, "TOO_MANY_REMOVED"),
        (range(7), range(2, 9), 0, None),
        (range(7), range(2, 10), 0, "TOO_MANY_ADDED"),
        (range(7), range(3, 9), 0, "TOO_MANY_REMOVED"),
        (range(15), range(16), 0, "TOO_MANY_MASTERS"),
        (range(20), range(19), 0, None),
        (range(20), range(1, 21), 0, None),
        (range(20), range(21), 0, "TOO_MANY_MASTERS"),
        (range(1), range(1), 0, None),
        (range(1), range(0), 0, "TOO_MANY_REMOVED"),
        (range(1), range(2), 0, "TOO_FEW_MASTERS"),
        (range(1), range(4), 0, "TOO_MANY_ADDED"),
        (range(1), range(1, 2), 0, "TOO_MANY_REMOVED"),
    ],
)
def test_what_may_follow_a_set_of_validators(before, after, cut_off, error):
    assert refusal(members(*before), members(*after), cut_off) == error


# ---- when a change holds ----


def test_a_change_of_block_h_rules_from_h_plus_2_on(chain):
    height = chain.enact(add()) - 2
    joined = validator_set([*VALIDATORS.members, Validator(node_name(NEWCOMERS[0]), add().key)])
    sets = [chain.writer.validators_at(number) for number in range(height + 3)]
    assert sets == [VALIDATORS] * (height + 2) + [joined]
    chain.idle(2)
    assert chain.writer.validators_at(height + 1) == VALIDATORS
    assert chain.writer.validators_at(height + 2) == joined


def test_a_second_change_waits_until_the_first_has_decided_a_block(chain):
    first, second = chain.propose(add()), chain.propose(add(1), by=CLINIC)
    chain.act(CLINIC, "vote", first)
    chain.act(CENTRE, "vote", second)
    both = [chain.transaction(CENTRE, "vote", first), chain.transaction(UNIVERSITY, "vote", second)]
    assert [outcome(receipt) for receipt in chain.run(*both)] == ["OK", "CHANGE_PENDING"]
    height = chain.tip.height
    assert outcome(chain.act(UNIVERSITY, "vote", second)) == "CHANGE_PENDING"
    assert outcome(chain.act(UNIVERSITY, "vote", second)) == "OK"
    assert chain.tip.height == height + 2
    assert len(chain.writer.validators_at(height + 3).members) == 5
    assert len(chain.writer.validators_at(height + 4).members) == 6


def test_a_pending_change_is_followed_by_blocks_until_its_set_has_decided_one(chain):
    chain.enact(add())
    followed = [chain.tip.must_follow]
    for _ in range(2):
        chain.decide()
        followed.append(chain.tip.must_follow)
    assert followed == [True, True, False]


def test_what_was_safe_when_proposed_may_be_refused_when_it_passes(chain):
    chain.enact(add())
    chain.idle(2)
    first, second = (
        chain.propose(remove(master_of("hospital"))),
        chain.propose(remove(master_of("clinic"))),
    )
    chain.act(CENTRE, "vote", first)
    for by in (CENTRE, UNIVERSITY):
        assert outcome(chain.act(by, "vote", second)) == "OK"
    chain.idle(2)
    assert outcome(chain.act(UNIVERSITY, "vote", first)) == "TOO_FEW_MASTERS"
    assert chain.ask("proposal", first).votes == ("hospital", "centre")


def master_of(organisation):
    """The address of the master of genesis that an organisation runs."""
    return next(node_address(node) for node in GENESIS.nodes if node.organisation == organisation)


def test_roles_change_at_the_same_height_as_the_set(chain):
    address = node_name(NEWCOMERS[0])
    height = chain.enact(add(role="observer"))
    expected = Member(address, "newcomer_0", add().key, "hospital", "observer", "", height)
    assert chain.ask("node", address) == expected
    assert chain.ask("members", 4, 10).members == (expected,)
    assert chain.ask("members", 0, 2).next == 2
    assert chain.writer.validators_at(chain.tip.height + 2) == VALIDATORS
    chain.idle(2)
    height = chain.enact(change_role(address, "master"))
    assert chain.ask("node", address).role_before == "observer"
    assert chain.writer.validators_at(height).index_of(address) is not None


def test_a_removed_node_stays_on_the_roll_and_may_come_back_under_its_name(chain):
    chain.enact(add())
    chain.idle(2)
    address = node_name(NEWCOMERS[0])
    chain.enact(remove(address))
    chain.idle(2)
    assert chain.ask("node", address).role == ""
    chain.enact(add(1, name="newcomer_0", role="observer"))
    chain.idle(2)
    assert outcome(chain.act(ADMIN, "propose", (add(),), "")) == "NAME_TAKEN"
    chain.enact(add(name="again"))
    assert [member.name for member in chain.ask("members", 4, 10).members] == [
        "again",
        "newcomer_0",
    ]


def test_a_certificate_is_revoked_from_h_plus_2_on_and_only_restored_by_name(chain):
    height = chain.enact(revoke())
    found = chain.ask("certificate", CERTIFICATE)
    assert found == Revocation(FIRST.address, True, height)
    assert [found.is_revoked_at(number) for number in (height - 1, height)] == [False, True]
    chain.idle(2)
    assert outcome(chain.act(ADMIN, "propose", (revoke(),), "")) == "ALREADY_REVOKED"
    other = (restore(VALIDATORS.members[1].address),)
    assert outcome(chain.act(ADMIN, "propose", other, "")) == "CERTIFICATE_OF_ANOTHER_NODE"
    height = chain.enact(restore())
    found = chain.ask("certificate", CERTIFICATE)
    assert [found.is_revoked_at(number) for number in (height - 1, height)] == [True, False]


def test_nodes_are_read_through_accounts_as_they_are_now(chain):
    address = node_name(NEWCOMERS[0])
    with pytest.raises(Revert, match="NOT_FOUND"):
        chain.read("system", 0, "accounts", "node", address)
    chain.enact(add(role="observer"))
    chain.idle(2)
    assert chain.read("system", 0, "accounts", "node", address).role == "observer"


def test_a_restart_at_every_height_around_a_change_finds_the_same_sets(chain):
    def sets():
        stop = chain.tip.height + 3
        return [chain.writer.validators_at(number) for number in range(1, stop)]

    chain.enact(add())
    for _ in range(4):
        before = sets(), chain.writer.proposers(), chain.tip
        chain.restart()
        assert (sets(), chain.writer.proposers(), chain.tip) == before
        chain.decide(time=chain.tip.time + 60_000)


def test_an_organisation_may_vote_its_own_last_master_out(chain):
    number = chain.propose(remove(master_of("hospital")), add(organisation="clinic"))
    chain.act(CLINIC, "vote", number)
    receipt = chain.act(CENTRE, "vote", number)
    assert receipt.output == encode(Standing(number, 3, 3, chain.tip.height + 2))
