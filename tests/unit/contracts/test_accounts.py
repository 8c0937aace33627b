"""Accounts: who may add whom, and when the newcomer may act."""

import pytest

from contracts.accounts import NodeRecord, OrganisationRecord
from contracts.interface import Account, Revert
from ledger.codec import encode
from ledger.receipts import Status
from ledger.transaction import Call
from tests.unit.node_core.chains import (
    ADMIN,
    CLINIC,
    GENESIS,
    MEMBER,
    STRANGER,
    VALIDATORS,
    LocalChain,
    make_transaction,
    register,
)


@pytest.fixture
def chain():
    return LocalChain()


def add(address, role="member"):
    return Call("accounts", "add_account", encode((address, role)))


def system(call, nonce, by):
    return make_transaction(call, nonce, by=by, module="system")


def outcome(receipt):
    return Status(receipt.status), receipt.error


def test_an_admin_adds_an_account_of_its_own_organisation(chain):
    receipts = chain.run(system(add(STRANGER.address), 1, CLINIC))
    assert [outcome(receipt) for receipt in receipts] == [(Status.OK, "")]
    assert [event.name for event in receipts[0].events] == ["account_added"]
    found = chain.read("system", 0, "accounts", "account", STRANGER.address)
    assert found == Account("clinic", "member", STRANGER.address)


def test_a_member_adds_nobody(chain):
    receipts = chain.run(system(add(STRANGER.address), 1, MEMBER))
    assert [outcome(receipt) for receipt in receipts] == [(Status.REVERTED, "ADMIN_ONLY")]
    with pytest.raises(Revert, match="NOT_FOUND"):
        chain.read("system", 0, "accounts", "account", STRANGER.address)


def test_an_account_cannot_be_taken_over_by_adding_it_again(chain):
    receipts = chain.run(system(add(MEMBER.address, "admin"), 1, CLINIC))
    assert [outcome(receipt) for receipt in receipts] == [(Status.REVERTED, "ACCOUNT_EXISTS")]
    found = chain.read("system", 0, "accounts", "account", MEMBER.address)
    assert found == Account("hospital", "member", MEMBER.address)


@pytest.mark.parametrize("arguments", [(b"", "member"), (bytes(32), "owner"), (bytes(32),)])
def test_arguments_out_of_range_are_refused(chain, arguments):
    call = Call("accounts", "add_account", encode(arguments))
    assert [outcome(receipt) for receipt in chain.run(system(call, 1, ADMIN))] == [
        (Status.BAD_ARGUMENTS, "")
    ]


def test_a_new_account_acts_in_the_block_that_adds_it_if_ordered_behind(chain):
    # Batches order by namespace name, and "emr" stands before "system".
    early = make_transaction(register(1), 1, by=STRANGER)
    late = make_transaction(register(2), 2, by=STRANGER, module="trial")
    receipts = chain.run(early, system(add(STRANGER.address), 3, ADMIN), late)
    assert [outcome(receipt)[0] for receipt in receipts] == [
        Status.UNKNOWN_ACCOUNT,
        Status.OK,
        Status.OK,
    ]


def test_an_added_admin_may_add_others_after_a_restart(chain):
    chain.run(system(add(STRANGER.address, "admin"), 1, CLINIC))
    chain.restart()
    other = bytes(range(32))
    receipts = chain.run(system(add(other), 2, STRANGER))
    assert [outcome(receipt) for receipt in receipts] == [(Status.OK, "")]
    found = chain.read("system", 0, "accounts", "account", other)
    assert found == Account("clinic", "member", other)


def test_an_aborted_addition_gives_no_rights(chain):
    calls = (add(STRANGER.address, "admin"), add(MEMBER.address))
    receipts = chain.run(
        make_transaction(calls, 1, by=ADMIN, module="system", atomic=True),
        make_transaction(register(2), 2, by=STRANGER, module="trial"),
    )
    assert [outcome(receipt) for receipt in receipts] == [
        (Status.ABORTED, ""),
        (Status.REVERTED, "ACCOUNT_EXISTS"),
        (Status.UNKNOWN_ACCOUNT, ""),
    ]


def test_organisations_and_nodes_of_genesis_are_read_by_their_ids(chain):
    organisation = chain.read("system", 0, "accounts", "organisation", "clinic")
    assert organisation == OrganisationRecord("诊所")
    member = VALIDATORS.members[0]
    node = chain.read("system", 0, "accounts", "node", member.address)
    assert isinstance(node, NodeRecord)
    expected = next(item for item in GENESIS.nodes if item.key == member.key.hex())
    assert (node.key, node.organisation, node.role) == (member.key, expected.organisation, "master")
