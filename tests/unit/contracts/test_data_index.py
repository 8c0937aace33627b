"""The data index: histories that only their organisation writes, supersession, and paging."""

import msgspec
import pytest

from contracts.data_index import Current, Superseded
from contracts.interface import Revert
from ledger.codec import Schema, encode
from ledger.data_index import Registration
from ledger.receipts import Status
from ledger.transaction import Call
from tests.unit.node_core.chains import (
    CLINIC,
    MEMBER,
    TIME,
    LocalChain,
    make_batch,
    make_transaction,
    register,
)

UPDATE, DELETE, SUPERSEDE = 1, 2, 3
SCHEMA = Schema(Registration, max_bytes=65_536)


@pytest.fixture
def chain():
    return LocalChain()


def registration(number, object_number=None):
    """The argument record of index `number` about another index's object."""
    record = SCHEMA.decode(register(number).arguments)
    if object_number is None:
        return record
    other = SCHEMA.decode(register(object_number).arguments)
    return msgspec.structs.replace(record, object=other.object)


def about(number, object_number):
    return Call("data_index", "register", encode(registration(number, object_number)))


def supersede(index, sequence, kind, successor=None):
    return Call("data_index", "supersede", encode((index, sequence, kind, successor)))


def outcome(receipt):
    return Status(receipt.status), receipt.error


def history(chain, object_number, after=-1, limit=100, organisation="hospital"):
    about_object = registration(object_number).object
    return chain.read("emr", 0, "data_index", "history", organisation, about_object, after, limit)


def test_registering_an_object_again_appends_to_its_history(chain):
    chain.run(make_transaction(register(1), 1), make_transaction(register(2), 2))
    chain.run(make_transaction(about(3, 1), 3))
    found = history(chain, 1)
    assert ([item.sequence for item in found.items], found.complete) == ([0, 2], True)


def test_a_history_is_read_in_pages_across_blocks(chain):
    for block in range(3):
        chain.run(
            *[make_transaction(about(block * 10 + n, 1), block * 10 + n) for n in range(1, 6)]
        )
    seen, after, pages = [], -1, 0
    while True:
        page = history(chain, 1, after, 4)
        seen += [item.sequence for item in page.items]
        pages += 1
        if page.complete:
            break
        after = page.items[-1].sequence
    assert (seen, pages) == (list(range(15)), 4)
    exact = history(chain, 1, 10, 4)
    assert ([item.sequence for item in exact.items], exact.complete) == ([11, 12, 13, 14], True)
    behind = history(chain, 1, 2**63 - 1, 4)
    assert (behind.items, behind.complete) == ((), True)


def test_another_organisation_has_a_history_of_its_own(chain):
    chain.run(make_transaction(register(1), 1), make_transaction(register(1), 2, by=CLINIC))
    assert [item.sequence for item in history(chain, 1).items] == [0]
    assert [item.sequence for item in history(chain, 1, organisation="clinic").items] == [1]


@pytest.mark.parametrize("kind", [UPDATE, SUPERSEDE])
def test_a_successor_supersedes_an_index(chain, kind):
    old = make_transaction(register(1), 1)
    chain.run(old)
    new = make_transaction(supersede(old.id, 0, kind, registration(2, 1)), 2)
    assert [outcome(one) for one in chain.run(new)] == [(Status.OK, "")]
    mark = Superseded(new.id, kind, 2)
    assert chain.read("emr", 0, "data_index", "current", old.id) == Current(mark)
    assert chain.read("emr", 0, "data_index", "current", new.id) == Current(None)
    items = history(chain, 1).items
    assert [(item.sequence, item.superseded) for item in items] == [(0, mark), (1, None)]


def test_an_index_is_superseded_in_the_block_that_creates_it(chain):
    old = make_transaction(register(1), 1)
    new = make_transaction(supersede(old.id, 0, DELETE), 2)
    assert [outcome(one) for one in chain.run(old, new)] == [(Status.OK, ""), (Status.OK, "")]


def test_the_first_index_of_a_chain_is_superseded_later(chain):
    old = make_transaction(register(1), 1)
    chain.run(old)
    new = make_transaction(supersede(old.id, 0, DELETE), 2)
    assert [outcome(one) for one in chain.run(new)] == [(Status.OK, "")]


def test_only_one_of_two_successors_wins(chain):
    old = make_transaction(register(1), 1)
    chain.run(old)
    rivals = [make_transaction(supersede(old.id, 0, UPDATE, registration(n, 1)), n) for n in (2, 3)]
    assert [outcome(one) for one in chain.run(*rivals)] == [
        (Status.OK, ""),
        (Status.REVERTED, "ALREADY_SUPERSEDED"),
    ]


@pytest.mark.parametrize(
    ("call", "by", "error"),
    [
        (lambda old: supersede(old, 0, DELETE), CLINIC, "OTHER_ORGANISATION"),
        (lambda old: supersede(old, 1, DELETE), MEMBER, "INDEX_NOT_FOUND"),
        (lambda _: supersede(bytes(32), 0, DELETE), MEMBER, "INDEX_NOT_FOUND"),
        (lambda old: supersede(old, 2**62, DELETE), MEMBER, "INDEX_NOT_FOUND"),
        (lambda old: supersede(old, 0, UPDATE), MEMBER, "REGISTRATION_MISSING"),
        (
            lambda old: supersede(old, 0, DELETE, registration(2, 1)),
            MEMBER,
            "REGISTRATION_WITH_DELETE",
        ),
        (lambda old: supersede(old, 0, UPDATE, registration(2)), MEMBER, "OTHER_OBJECT"),
    ],
)
def test_a_refused_supersession_leaves_the_index_current(chain, call, by, error):
    old = make_transaction(register(1), 1)
    chain.run(old)
    receipts = chain.run(make_transaction(call(old.id), 2, by=by))
    assert [outcome(one) for one in receipts] == [(Status.REVERTED, error)]
    assert chain.read("emr", 0, "data_index", "current", old.id) == Current(None)
    assert [item.sequence for item in history(chain, 1).items] == [0]


def test_entries_of_all_blocks_are_read_by_position_after_a_restart(chain):
    ids = []
    for block in range(4):
        made = [make_transaction(register(block * 3 + n), block * 3 + n) for n in range(1, 4)]
        chain.run(*made)
        ids += [one.id for one in made]
    chain.restart()
    entries = [chain.read("emr", 0, "data_index", "entry", n).entry.index for n in range(12)]
    assert entries == ids
    with pytest.raises(Revert, match="INDEX_NOT_FOUND"):
        chain.read("emr", 0, "data_index", "entry", 12)


def test_an_aborted_supersession_leaves_no_entry_and_no_mark(chain):
    old = make_transaction(register(1), 1)
    chain.run(old)
    calls = (
        supersede(old.id, 0, UPDATE, registration(2, 1)),
        supersede(old.id, 0, DELETE),
    )
    receipts = chain.run(make_transaction(calls, 2, atomic=True), time=TIME + 500)
    assert [outcome(one) for one in receipts] == [
        (Status.ABORTED, ""),
        (Status.REVERTED, "ALREADY_SUPERSEDED"),
    ]
    assert chain.read("emr", 0, "data_index", "current", old.id) == Current(None)
    chain.decide(make_batch([make_transaction(register(5), 5)], sequence=9))
    assert [item.sequence for item in history(chain, 5).items] == [1]
