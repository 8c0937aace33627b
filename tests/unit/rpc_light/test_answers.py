"""A client with trust: honest answers pass unchanged, changed ones are refused."""

import copy

import pytest

from ledger.errors import KanglianError, Reason, Rejected
from ledger.transaction import operation_ids
from rpc.failure import RpcFailure
from rpc.light import anchor, source
from rpc.light.keeper import TrustKeeper
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import CHAIN, make_transaction, register
from tests.unit.rpc_light.callers import NOW, LocalCaller, keeper, told, verifying
from tests.unit.rpc_light.local_node import LocalNode
from tests.unit.rpc_light.worlds import World

WORLD = World()
NODE = LocalNode(WORLD.local)
LAST = NODE.height
PROVEN_INFO = {
    "genesis_hash", "group", "suite", "protocol_version", "height", "blocks", "latest_block_hash",
    "latest_block_time", "masters",
}  # fmt: skip
EVERY = (WORLD.single, WORLD.envelope, WORLD.mixed, WORLD.failed, WORLD.middle, WORLD.late)
IDS = sorted(
    {one.id.hex() for one in EVERY}
    | {name.hex() for one in EVERY for name in operation_ids(one, SUITE)}
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(anchor, "FOLLOW_MS", 10)
    monkeypatch.setattr(source, "PATIENCE_PAUSE_MS", 1)


@pytest.fixture(scope="module")
def client():
    return verifying(LocalCaller(NODE))


@pytest.mark.parametrize("name", IDS)
def test_every_transaction_is_answered_as_an_honest_node_does(client, name):
    assert client.get_transaction(name) == told(NODE, "get_transaction", {"id": name})
    receipt = told(NODE, "get_transaction_receipt", {"id": name})
    assert client.get_transaction_receipt(name) == receipt


@pytest.mark.parametrize("height", range(1, LAST + 1))
def test_every_block_is_answered_as_an_honest_node_does(client, height):
    block = told(NODE, "get_block", {"height": height})
    assert client.get_block(height) == client.get_block(block_hash=block["hash"]) == block
    header = told(NODE, "get_block_header", {"height": height})
    assert client.get_block_header(height) == header
    assert client.get_block_header(block_hash=block["hash"]) == header


def test_the_newest_block_is_answered_and_getinfo_holds_what_is_proven(client):
    assert client.get_block() == told(NODE, "get_block", {"height": LAST})
    assert client.get_block_header() == told(NODE, "get_block_header", {"height": LAST})
    info = told(NODE, "getinfo", {})
    assert client.getinfo() == {name: info[name] for name in PROVEN_INFO}
    assert client.wait_height(3) == LAST
    assert client.chain() == CHAIN


# ---- a node that lies ---------------------------------------------------------------------------


def changes_of(value):
    """Other values of one member: a little off, of another type, missing."""
    match value:
        case bool():
            return [not value, None]
        case int():
            return [value + 1, -value - 1, str(value)]
        case str():
            flipped = ("0" if value[-1:] != "0" else "1") if value else "x"
            return [value[:-1] + flipped, value + "00", 7]
        case None:
            return [0, {}]
        case _:
            return [None]


def mutants(value):
    """Copies of an answer with one member changed, added or taken away, at any depth."""
    if isinstance(value, dict):
        for name, member in value.items():
            rest = {other: copy.deepcopy(it) for other, it in value.items() if other != name}
            yield rest
            for changed in (*changes_of(member), *mutants(member)):
                yield {**rest, name: changed}
        yield {**copy.deepcopy(value), "extra": 1}
    elif isinstance(value, list):
        for index, member in enumerate(value):
            before, after = value[:index], value[index + 1 :]
            yield [*before, *after]
            yield [*before, member, *value[index:]]
            for changed in (*changes_of(member), *mutants(member)):
                yield [*before, changed, *after]
        yield [*value, None]


class Liar:
    """Changes the answers of one method, the same each time it is asked."""

    def __init__(self, method, answer):
        self.method, self.answer = method, answer

    def __call__(self, method, result):
        return self.answer if method == self.method else result


def followed():
    """A trust in the newest header."""
    trust = keeper()
    verifying(LocalCaller(NODE), trust).getinfo()
    return trust.trust


def renewed(trust):
    return TrustKeeper(trust, lambda: NOW)


def outcome(act, client):
    """What a client comes to: a value, or None where it refuses."""
    try:
        return act(client)
    except KanglianError:
        return None


QUESTIONS = {
    "getinfo": lambda client: client.getinfo(),
    "get_transaction": lambda client: client.get_transaction(WORLD.single.id.hex()),
    "get_transaction of an envelope": lambda client: client.get_transaction(WORLD.mixed.id.hex()),
    "get_transaction_receipt": lambda client: client.get_transaction_receipt(WORLD.failed.id.hex()),
    "get_block": lambda client: client.get_block(2),
    "get_block of the newest": lambda client: client.get_block(),
    "get_block_header": lambda client: client.get_block_header(3),
    "get_block_header of the newest": lambda client: client.get_block_header(),
    "get_proof": lambda client: client.get_proof(WORLD.middle.id.hex()),
    "send_transaction": lambda client: client.send_transaction(WORLD.single.wire, "commit", 10),
    "send_transactions": lambda client: client.send_transactions(
        [WORLD.envelope.wire, WORLD.mixed.wire], "commit", 10
    ),
}
UNREAD = {
    "getinfo": {"chain_id", "node", "version", "transactions", "operations", "pending", "mode",
                "lowest", "peers", "syncing", "extra"},
    "send_transactions": {"height", "extra"},
}  # fmt: skip
"""Members that no answer of the client holds: whatever a node says there reaches nobody."""


def first_answers(act):
    """The honest answer of every method that a question asks, the first time."""
    found = {}

    def note(method, result):
        found.setdefault(method, result)
        return result

    expected = act(verifying(LocalCaller(NODE, twist=note)))
    return expected, found


def differs_only_in(honest, mutant, names):
    if not isinstance(mutant, dict) or not isinstance(honest, dict):
        return False
    nothing = object()
    return all(
        honest.get(name, nothing) == mutant.get(name, nothing)
        for name in {*honest, *mutant}
        if name not in names
    )


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_changed_member_of_the_answer_itself_is_refused(question):
    act, method = QUESTIONS[question], question.split()[0]
    expected, honest = first_answers(act)
    caller = LocalCaller(NODE)
    client = verifying(caller)
    act(client)  # what is asked beside the answer itself is honest and need not be asked again
    refused = 0
    for mutant in mutants(honest[method]):
        caller.twist = Liar(method, mutant)
        found = outcome(act, client)
        if found is None:
            refused += 1
        else:
            assert differs_only_in(honest[method], mutant, UNREAD.get(method, set())), mutant
            assert found == expected
    assert refused > 10


PARTS = {
    "get_headers": QUESTIONS["getinfo"],
    "get_validator_changes": QUESTIONS["getinfo"],
    "wait_height": QUESTIONS["getinfo"],
    "get_old_header": QUESTIONS["get_transaction of an envelope"],
    "get_batches": QUESTIONS["get_transaction of an envelope"],
    "get_receipts": QUESTIONS["get_transaction of an envelope"],
    "get_validators": QUESTIONS["get_block_header"],
}


@pytest.mark.parametrize("method", PARTS)
def test_a_lie_about_what_the_answer_is_proven_by_is_refused_or_harmless(method):
    act = PARTS[method]
    expected, honest = first_answers(act)
    trust = None if act is QUESTIONS["getinfo"] else followed()
    refused = 0
    for mutant in mutants(honest[method]):
        client = verifying(
            LocalCaller(NODE, twist=Liar(method, mutant)),
            keeper() if trust is None else renewed(trust),
        )
        found = outcome(act, client)
        assert found in (None, expected)
        refused += found is None
    assert refused > 3


# ---- what is refused by name --------------------------------------------------------------------


def refusal(act) -> Rejected:
    with pytest.raises(Rejected) as caught:
        act()
    return caught.value


@pytest.mark.parametrize(
    ("act", "method"),
    [
        (lambda client: client.call("system", 0, "accounts", "account", {}), "call"),
        (lambda client: client.get_peers(), "get_peers"),
        (lambda client: client.get_consensus(), "get_consensus"),
        (lambda client: client.request("getinfo"), "getinfo"),
    ],
)
def test_what_nothing_can_prove_is_refused_by_name_and_not_asked(act, method):
    caller = LocalCaller(NODE)
    found = refusal(lambda: act(verifying(caller)))
    assert found.reason is Reason.UNPROVEN
    assert str(found).startswith(f"unproven: {method} cannot be verified: ")
    assert caller.asked == []


def test_a_lie_names_the_node_the_method_and_the_members():
    def twist(method, result):
        return {**result, "block_time": 7, "index": 9} if method == "get_transaction" else result

    client = verifying(LocalCaller(NODE, twist=twist))
    found = refusal(lambda: client.get_transaction(WORLD.single.id.hex()))
    assert found.reason is Reason.BAD_PROOF
    assert str(found) == (
        "bad_proof: http://local:1 answered get_transaction otherwise than is proven: "
        "members=block_time, index"
    )


def test_a_node_that_stands_still_passes_for_the_newest_only_while_it_is_fresh():
    late = WORLD.local.tip.time + keeper().trust.terms.lag_ms
    assert verifying(LocalCaller(NODE), keeper(late)).getinfo()["height"] == LAST
    for ask in (lambda one: one.getinfo(), lambda one: one.get_block()):
        found = refusal(lambda ask=ask: ask(verifying(LocalCaller(NODE), keeper(late + 1))))
        assert found.reason is Reason.STALE
    # What is named stays true for ever.
    assert verifying(LocalCaller(NODE), keeper(late + 1)).get_block(2)["height"] == 2


def test_a_node_behind_the_trusted_header_does_not_show_the_newest():
    old = LocalNode(World().local)
    trust = TrustKeeper(followed(), lambda: NOW)
    ahead = LocalNode(World().local)
    ahead.local.decide()
    verifying(LocalCaller(ahead), trust).getinfo()
    found = refusal(lambda: verifying(LocalCaller(old), trust).get_block())
    assert found.reason is Reason.STALE


def test_an_acknowledgement_without_a_block_that_holds_it_is_refused():
    """The node keeps the transaction to itself and says what its sender wants to hear."""
    node = LocalNode(World().local, decides=False)
    made = make_transaction(register(99), 99, is_signed=True)
    said = {"id": made.id.hex(), "status": "OK", "block_height": 2}

    def twist(method, result):
        return said if method == "send_transaction" else result

    client = verifying(LocalCaller(node, twist=twist))
    assert refusal(lambda: client.send_transaction(made.wire)).reason is Reason.BAD_PROOF
    del said["block_height"]
    assert refusal(lambda: client.send_transaction(made.wire)).reason is Reason.BAD_PROOF
    said["status"] = "pending"
    assert client.send_transaction(made.wire) == said


def test_an_acknowledgement_is_believed_with_the_receipts_under_the_next_header():
    client = verifying(LocalCaller(LocalNode(World().local)))
    made = make_transaction(register(98), 98, is_signed=True)
    sent = client.send_transaction(made.wire, "commit", 1_000)
    assert (sent["id"], sent["status"]) == (made.id.hex(), "OK")
    assert client.get_transaction(sent["id"])["block_height"] == sent["block_height"]


def test_a_second_place_of_a_transaction_does_not_pass_for_its_result():
    local = World().local
    once = make_transaction(register(97), 97, is_signed=True)
    local.run(once)
    first = local.tip.height
    local.run(once)
    local.decide()
    node = LocalNode(local)

    def twist(method, result):
        return {**result, "block_height": first + 1} if method == "get_transaction" else result

    name = once.id.hex()
    assert verifying(LocalCaller(node)).get_transaction(name)["block_height"] == first
    found = refusal(lambda: verifying(LocalCaller(node, twist=twist)).get_transaction(name))
    assert "names a block that does not hold it" in str(found)


def test_an_error_of_the_node_is_no_answer_and_passes_as_what_it_is(client):
    with pytest.raises(RpcFailure) as failure:
        client.get_transaction("ab" * 32)
    assert failure.value.kind == "not_found"
