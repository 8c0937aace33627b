"""A restart between any two blocks changes nothing: replay window, receipts, state root."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.codec import encode
from ledger.limits import REPLAY_WINDOW_MS
from ledger.transaction import Call
from tests.unit.node_core.chains import (
    ADMIN,
    MEMBER,
    STRANGER,
    TIME,
    LocalChain,
    facts,
    make_batch,
    make_transaction,
    register,
)

SIGNERS = (MEMBER, ADMIN, STRANGER)
BROKEN = Call("data_index", "register", b"\xc0")
ADD = Call("accounts", "add_account", encode((STRANGER.address, "member")))


@st.composite
def streams(draw):
    """Blocks as (time, batches of plans, restart before it?); plans may repeat earlier ones."""
    plans, blocks, time = [], [], TIME
    for _ in range(draw(st.integers(1, 7))):
        time += draw(st.sampled_from((1, 100, 9_999, 10_000, 60_000, 300_000, 599_000)))
        batches = []
        for _ in range(draw(st.integers(0, 2))):
            batch = []
            for _ in range(draw(st.integers(1, 3))):
                if plans and draw(st.booleans()):
                    batch.append(draw(st.sampled_from(plans)))
                    continue
                plan = (
                    draw(st.integers(0, 40)),
                    draw(st.sampled_from(SIGNERS)),
                    time + draw(st.sampled_from((-10_000, -1, 0, 1, 9_000, 300_000, 590_000))),
                    draw(st.sampled_from(("one", "broken", "many", "atomic", "add"))),
                    draw(st.none() | st.sampled_from(range(len(plans)))) if plans else None,
                )
                plans.append(plan)
                batch.append(plan)
            batches.append(batch)
        blocks.append((time, batches, draw(st.booleans())))
    return plans, blocks


def build(plan, plans):
    nonce, signer, valid_until, kind, after = plan
    calls = {
        "one": register(nonce),
        "broken": BROKEN,
        "many": (register(nonce), BROKEN, register(nonce + 1)),
        "atomic": (register(nonce), register(nonce + 1), BROKEN),
        "add": ADD,
    }[kind]
    return make_transaction(
        calls,
        nonce,
        by=signer,
        atomic=kind == "atomic",
        module="system" if kind == "add" else "emr",
        valid_until=valid_until,
        after=None if after is None else build((*plans[after][:4], None), plans).id,
    )


def play(stream, restarts):
    plans, blocks = stream
    chain, sequence = LocalChain(), 0
    for time, batches, restart in blocks:
        made = []
        for batch in batches:
            transactions = [build(plan, plans) for plan in batch]
            if all(one.body.valid_until <= time + REPLAY_WINDOW_MS for one in transactions):
                made.append(make_batch(transactions, sequence=sequence))
                sequence += 1
        if restart and restarts:
            chain.restart()
        chain.decide(*made, time=time)
    return facts(chain)


@settings(max_examples=60, deadline=None)
@given(streams())
def test_restarts_between_blocks_change_neither_receipts_nor_state(stream):
    assert play(stream, restarts=True) == play(stream, restarts=False)


def test_a_transaction_is_known_to_the_end_of_its_validity_across_a_restart():
    chain = LocalChain()
    once = make_transaction(register(1), 1, valid_until=TIME + 1 + REPLAY_WINDOW_MS)
    chain.run(once, time=TIME + 1)
    for step in range(1, 7):
        chain.run(make_transaction(register(50 + step), 50 + step), time=TIME + step * 99_999)
    chain.restart()
    (receipt,) = chain.run(once, time=TIME + 1 + REPLAY_WINDOW_MS)
    assert receipt.status == 2


def test_the_store_keeps_the_entries_of_the_window_and_no_more():
    chain = LocalChain()
    for step in range(9):
        moment = TIME + step * 150_000 + 1
        once = make_transaction(register(step), step, valid_until=moment + 1)
        chain.run(once, time=moment)
    kept = [block.height for block in chain.state.replay_blocks()]
    # The ninth block is at 1,200 s; the span of the fifth, at 600 s, is the first of the window.
    assert kept == [5, 6, 7, 8, 9]
