"""Evidence on chain: who may report what, once, in time, judged by the set of its height."""

import msgspec
import pytest

from contracts import evidence
from contracts.evidence import Offence, Report
from contracts.interface import Revert
from ledger.addresses import AddressKind, single_key_script
from ledger.codec import encode
from ledger.evidence import Statement
from ledger.receipts import Status
from ledger.transaction import Call
from tests.unit.ledger.worlds import SUITE, Signer
from tests.unit.node_core.chains import (
    CHAIN,
    MEMBER,
    NEWCOMERS,
    NODE_SECRETS,
    VALIDATORS,
    make_transaction,
    node_name,
)

from .test_membership import Governed, add, outcome, remove

OFFENDER = VALIDATORS.members[2].address


@pytest.fixture
def chain():
    return Governed()


def statement(value, height=1, sender=2, address=OFFENDER, round_number=0):
    unsigned = Statement(2, height, round_number, value, -1, sender, bytes(64))
    signature = SUITE.sign(NODE_SECRETS[address], unsigned.digest(CHAIN))
    return msgspec.structs.replace(unsigned, signature=signature)


def report(**settings):
    return Report(statement(b"a" * 32, **settings), statement(b"b" * 32, **settings))


def node(address=VALIDATORS.members[0].address):
    """The node as the sender of a transaction."""
    public = SUITE.public_key(NODE_SECRETS[address])
    return Signer(single_key_script(AddressKind.NODE, public), (), kind=AddressKind.NODE)


def send(chain, arguments, by, contract="evidence", method="report", module="system"):
    chain.nonce += 1
    call = Call(contract, method, encode(arguments))
    (receipt,) = chain.run(make_transaction(call, 1_000 + chain.nonce, by=by, module=module))
    return receipt


def test_a_node_reports_with_its_own_key_and_everybody_reads_it(chain):
    receipt = send(chain, report(), node())
    assert outcome(receipt) == "OK"
    assert [event.name for event in receipt.events] == ["equivocation"]
    first, second = report().first, report().second
    expected = Offence(OFFENDER, first, second, VALIDATORS.members[0].address, 1)
    assert chain.read("system", 0, "evidence", "get", OFFENDER, 1, 0, 2) == expected
    assert chain.read("system", 0, "evidence", "list", 0, 10).offences == (expected,)


def test_an_account_may_report_as_well(chain):
    assert outcome(send(chain, report(), MEMBER)) == "OK"


def test_an_offence_is_recorded_once(chain):
    send(chain, report(), node())
    swapped = Report(report().second, report().first)
    assert outcome(send(chain, swapped, node(VALIDATORS.members[1].address))) == "ALREADY_REPORTED"
    assert outcome(send(chain, report(round_number=1), node())) == "OK"


def test_a_node_may_send_nothing_else(chain):
    for contract, method in (
        ("membership", "propose"),
        ("accounts", "add_account"),
        ("evidence", "get"),
    ):
        receipt = send(chain, (), node(), contract, method)
        assert Status(receipt.status) is Status.UNKNOWN_ACCOUNT
    receipt = send(chain, report(), node(), module="emr")
    assert Status(receipt.status) is Status.UNKNOWN_ACCOUNT
    envelope = (Call("evidence", "report", encode(report())),)
    (receipt,) = chain.run(make_transaction(envelope, 77, by=node(), module="system"))
    assert Status(receipt.status) is Status.UNKNOWN_ACCOUNT


def test_a_node_reports_while_it_is_a_member_and_no_longer(chain):
    stranger = node(node_name(NEWCOMERS[0]))
    assert outcome(send(chain, report(), stranger)) == "UNKNOWN_ACCOUNT"
    chain.enact(add(role="observer"))
    chain.idle(1)
    assert outcome(send(chain, report(), stranger)) == "OK"
    chain.enact(remove(stranger.address))
    chain.idle(1)
    assert outcome(send(chain, report(round_number=1), stranger)) == "UNKNOWN_ACCOUNT"


def test_what_convicts_nobody_is_refused(chain):
    same = Report(report().first, report().first)
    assert outcome(send(chain, same, node())) == "NOT_EVIDENCE"
    framed = report(address=VALIDATORS.members[1].address)
    assert outcome(send(chain, framed, node())) == "NOT_EVIDENCE"
    with pytest.raises(Revert, match="NOT_FOUND"):
        chain.read("system", 0, "evidence", "get", OFFENDER, 1, 0, 2)


def test_only_recent_heights_count(chain, monkeypatch):
    assert outcome(send(chain, report(height=2), node())) == "OUT_OF_WINDOW"
    monkeypatch.setattr(evidence.limits, "EVIDENCE_HEIGHTS", 3)
    chain.idle(2)
    assert outcome(send(chain, report(height=1), node())) == "OK"
    assert chain.tip.height == 4
    assert outcome(send(chain, report(height=1, round_number=1), node())) == "OUT_OF_WINDOW"


def test_an_index_is_resolved_in_the_set_of_its_height(chain):
    """After a change the same index is somebody else; the old one answers for old heights."""
    joining = node_name(NEWCOMERS[0])
    ahead = [address for address in VALIDATORS.addresses if address > joining]
    assert ahead, "the newcomer must stand before somebody for this to mean anything"
    offender = ahead[-1]
    first_new = chain.enact(add())
    chain.idle(2)
    before, after = VALIDATORS.index_of(offender), chain.writer.validators.index_of(offender)
    assert after == before + 1
    old = report(height=first_new - 1, sender=before, address=offender)
    assert outcome(send(chain, old, node())) == "OK"
    new = report(height=first_new, sender=after, address=offender)
    assert outcome(send(chain, new, node())) == "OK"
    mixed = report(height=first_new, sender=before, address=offender)
    assert outcome(send(chain, mixed, node())) == "NOT_EVIDENCE"
