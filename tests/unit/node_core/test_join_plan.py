"""A state that is filled from a snapshot: whole, or refused at the item that is wrong."""

from collections import Counter

import msgspec
import pytest
import trio

from consensus.events import Verdict
from ledger.block import block_hash
from ledger.codec import encode
from ledger.errors import InvariantError, KanglianError, Reason, Rejected, UnavailableError
from ledger.ids import Height
from ledger.membership import ValidatorHistory
from ledger.receipts import Status
from ledger.replay import SPAN_MS
from ledger.snapshot import (
    ENTRIES,
    HEAD,
    NAMESPACES,
    RUN,
    SUBTREE,
    WINDOW,
    Item,
    Kind,
    PlacedValue,
    check_head,
    check_window,
    kept_headers,
)
from ledger.steps import finish
from ledger.store.blocks import BlockStore
from ledger.store.join_plan import JoinPlan
from ledger.store.joined import JoinedState
from ledger.store.memory import MemoryBodies, MemoryStore
from ledger.store.results import StateStore
from ledger.store.snapshot_source import SnapshotSource
from node.admission import Admission
from node.batches import BatchPool
from node.candidates import Candidates, Check
from node.mempool import Mempool
from node.queries import Queries
from node.scrub import Scrub
from node.stages import StageClock
from node.synced import append_synced
from tests.unit.node_core.chains import (
    CHAIN,
    GENESIS,
    PARAMETERS,
    SUITE,
    TIME,
    VALIDATORS,
    LocalChain,
    fetched,
    make_batch,
    make_transaction,
    register,
)
from tests.unit.node_core.test_membership import governed_chain

HEAD_ITEM = Item(int(Kind.HEAD))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Trees with nodes and logs with runs, out of few keys and entries."""
    for module in ("ledger.snapshot", "ledger.store.snapshot_source"):
        monkeypatch.setattr(f"{module}.SNAPSHOT_KEYS", 4)
        monkeypatch.setattr(f"{module}.RUN_ENTRIES", 2, raising=False)
        monkeypatch.setattr(f"{module}.RUN_LEVEL", 1, raising=False)
    for module in ("join_plan", "joined"):
        monkeypatch.setattr(f"ledger.store.{module}.RUN_ENTRIES", 2)


def grown_chain(blocks=9):
    """A chain with a few blocks, one of them without transactions."""
    chain = LocalChain()
    for number in range(blocks):
        chain.run(
            make_transaction(register(number), number),
            make_transaction(register(100 + number, 2), 100 + number, level=2),
        )
    chain.run(make_transaction(register(50), 50))
    chain.decide()
    return chain


def source_of(chain, store=None):
    """What a node serves of the newest height but one: a view is taken before the next block."""
    state = StateStore(chain.state_data if store is None else store)
    history = ValidatorHistory(GENESIS, chain.state.get)
    return SnapshotSource(SUITE.digest, state, chain.blocks, history)


def view_of(chain):
    """A source of the newest height, once the block that certifies it is there."""
    store = chain.state_data.snapshot()
    chain.decide(time=chain.tip.time + 60_000)
    return source_of(chain, store)


def ask(source, item):
    return finish(source.item(item))


def head_of(source):
    return check_head(ask(source, HEAD_ITEM), GENESIS, TIME + 3_600_000)


def join(source, store, *, change=lambda _item, data: data):
    """All items in turn; the tip."""
    plan = JoinPlan(head_of(source), JoinedState(store, SUITE), CHAIN)
    while (item := plan.next_item()) is not None:
        plan.take(item, change(item, ask(source, item)))
    assert plan.is_done
    return plan.finish()


def pairs(store):
    return dict(store.scan(b"", b"\xff" * 80, reverse=False))


def state_of(store):
    """What must be the same: values, trees, paths, logs, window, tip; not what is only of the past.

    The heights of values and the size of the pieces of logs differ.
    """
    found = pairs(store)
    state = StateStore(store)
    logs = [key[1:] for key in found if key[:1] == b"c"]
    entries = {
        log: [state.log_entry(log, position) for position in range(state.log_count(log))]
        for log in logs
    }
    window = [(one.height, one.time // SPAN_MS, one.namespaces) for one in state.replay_blocks()]
    values = {key: state.map_value(key[1:]).value for key in found if key[:1] == b"m"}
    kept = {key: value for key, value in found.items() if key[:1] in b"azkcpt"}
    nodes = {
        (log, level, index): state.log_node(log, level, index)
        for log in logs
        for level in range(4)
        for index in range(state.log_count(log) >> level)
    }
    return kept, values, entries, window, nodes


def test_a_joined_state_is_that_of_the_node_that_served_it():
    chain = grown_chain()
    before = chain.state_data.snapshot()
    source, store = view_of(chain), MemoryStore()
    tip = join(source, store)
    assert tip == StateStore(before).tip
    assert state_of(store) == state_of(before)
    assert StateStore(store).beginning == tip.height
    assert not [key for key in pairs(store) if key[:1] == b"j"]


def test_one_without_logs_and_with_lone_keys_is_joined_too():
    """The first state there is: genesis and an empty block."""
    chain = LocalChain()
    chain.decide(time=TIME + 60_000)
    before = chain.state_data.snapshot()
    store = MemoryStore()
    source = SnapshotSource(
        SUITE.digest, StateStore(before), chain.blocks, ValidatorHistory(GENESIS, chain.state.get)
    )
    assert ask(source, HEAD_ITEM) is None  # no header certifies it yet
    chain.decide(time=TIME + 120_000)
    assert join(source, store) == StateStore(before).tip
    assert state_of(store) == state_of(before)


class SetClock:
    """Implements `node.clock.Clock`."""

    def __init__(self, ms):
        self.ms = ms

    def now_ms(self):
        return self.ms


def pool_of(batch):
    pool = BatchPool(MemoryBodies())
    pool.add(batch, 0, needed=True)
    return pool


class JoinedChain(LocalChain):
    """A node that joined another chain's newest height but one, with nothing from before it."""

    def __init__(self, source):
        super().__init__()
        self.block_data, self.state_data = MemoryStore(), MemoryStore()
        base = head_of(source)
        join(source, self.state_data)
        blocks = BlockStore(self.block_data, self.bodies)
        blocks.begin(Height(base.height), kept_headers(base, SUITE))
        self.restart()

    def follow(self, chain):
        """Take the blocks that it misses, as block sync does."""
        heights = range(self.tip.height + 1, chain.tip.height + 1)
        trio.run(append_synced, self.writer, fetched(chain, *heights), lambda _height: None)


def test_a_node_that_joined_goes_on_as_the_others_do():
    chain = grown_chain()
    joined = JoinedChain(view_of(chain))
    for number in range(200, 205):
        chain.run(make_transaction(register(number), number))
    assert chain.tip.height > joined.tip.height + 5
    repeated = chain.run(make_transaction(register(3), 3))
    joined.follow(chain)
    assert repeated[0].status == Status.DUPLICATE
    assert joined.tip == chain.tip
    assert joined.writer.next_block(0, TIME + 999_999, ()) == chain.writer.next_block(
        0, TIME + 999_999, ()
    )
    joined.restart()
    assert joined.tip == chain.tip
    assert joined.blocks.block(joined.blocks.first - 1) is None
    assert joined.blocks.decided(joined.blocks.first - 1).header


def test_at_any_height_around_changes_of_validators_a_node_joins_and_goes_on():
    chain, joined_at, left_at = governed_chain()
    copy = LocalChain()
    views = [copy.state_data.snapshot()]
    for height in range(1, chain.tip.height):
        trio.run(append_synced, copy.writer, fetched(chain, height), lambda _height: None)
        views.append(copy.state_data.snapshot())
    assert 2 < joined_at < left_at < chain.tip.height
    for height, view in enumerate(views[1:], 1):
        young = JoinedChain(source_of(chain, view))
        assert young.tip.height == height
        young.follow(chain)
        assert young.tip == chain.tip
        for number in range(1, chain.tip.height + 3):
            assert young.writer.validators_at(number) == chain.writer.validators_at(number)
        top = chain.tip.height
        changes = [trio.run(Queries(one.writer).changes, top) for one in (young, chain)]
        assert changes[0] == changes[1]
        assert len(changes[0]) == 2


def test_below_its_beginning_a_node_answers_by_name():
    chain = grown_chain()
    joined = JoinedChain(view_of(chain))
    chain.run(make_transaction(register(60), 60))
    chain.decide()
    joined.follow(chain)
    queries, lowest = Queries(joined.writer), joined.blocks.first
    for height in (1, lowest - 1):
        with pytest.raises(Rejected, match=f"pruned: .*height={height}, lowest={lowest}"):
            trio.run(queries.block, height)
    assert trio.run(queries.block, lowest).header.height == lowest
    assert trio.run(queries.transaction, make_transaction(register(3), 3).id) is None
    newest = make_transaction(register(60), 60).id
    assert trio.run(queries.proof, newest) == trio.run(Queries(chain.writer).proof, newest)


def test_a_result_of_before_the_beginning_is_refused_and_nobody_waits_for_it():
    chain = grown_chain()
    joined = JoinedChain(view_of(chain))
    known, fresh = (
        make_transaction(register(number), number, is_signed=True) for number in (3, 333)
    )
    chain.run(make_transaction(register(3), 3, is_signed=True))

    async def admit(node):
        clock = SetClock(node.tip.time)
        admission = Admission(node.executor, Mempool(), clock, StageClock(), lambda: None)
        return await admission.admit([known.wire, fresh.wire], "")

    answers = trio.run(admit, joined)
    assert isinstance(answers[0], Rejected)
    assert answers[0].reason is Reason.PRUNED
    assert answers[0].facts == {"lowest": joined.blocks.first}
    assert answers[1] == fresh.id


def test_a_batch_that_may_have_been_ordered_before_gets_no_vote():
    chain = grown_chain()
    joined = JoinedChain(view_of(chain))
    old = chain.writer.read_block(3).batches[0]
    again = make_batch([make_transaction(register(3), 3)], sequence=900)
    expired = make_batch([make_transaction(register(1), 1, valid_until=TIME - 1)], sequence=901)
    fresh = make_batch(
        [make_transaction(register(3), 3), make_transaction(register(444), 444)], sequence=902
    )
    for batch, is_refused in ((old, True), (again, True), (expired, True), (fresh, False)):
        assert joined.writer.may_be_older(batch) == is_refused
        assert not chain.writer.may_be_older(batch)
        block, _ = chain.next_block(batch)
        value = block_hash(block.header, SUITE)
        candidates = Candidates(joined.writer, pool_of(batch), PARAMETERS)
        candidates.remember(
            value, encode(block), round_number=0, sender=0, received_ms=joined.tip.time + 100
        )
        joined.follow(chain)
        candidates.start_check(Check(joined.tip.height + 1, 0, value))
        ((_, verdict),) = candidates.verdicts()
        assert (verdict is Verdict.INVALID) == is_refused


def test_an_interrupted_join_goes_on_and_is_no_state_before_its_end():
    chain = grown_chain()
    source, whole = view_of(chain), MemoryStore()
    join(source, whole)
    base, items = head_of(source), len(all_items(source))
    for stop in range(1, items):
        store = MemoryStore()
        plan = JoinPlan(base, JoinedState(store, SUITE), CHAIN)
        for _ in range(stop):
            item = plan.next_item()
            plan.take(item, ask(source, item))
        plan._state.flush()
        with pytest.raises(UnavailableError, match="began to join from a snapshot and is not done"):
            StateStore(store)
        again = JoinPlan(base, JoinedState(store, SUITE), CHAIN)
        while (item := again.next_item()) is not None:
            again.take(item, ask(source, item))
        assert again.finish() == StateStore(whole).tip
        assert pairs(store) == pairs(whole)
        assert again.taken < items
    assert again.taken < 10


def test_a_join_that_begins_with_another_snapshot_leaves_nothing_of_the_first():
    chain = grown_chain()
    first, store, whole = view_of(chain), MemoryStore(), MemoryStore()
    plan = JoinPlan(head_of(first), JoinedState(store, SUITE), CHAIN)
    while (item := plan.next_item()) is not None:
        plan.take(item, ask(first, item))
    chain.run(make_transaction(register(70), 70))
    chain.decide()
    second = view_of(chain)
    join(second, whole)
    join(second, store)
    assert pairs(store) == pairs(whole)


def test_a_store_that_holds_a_state_is_never_joined():
    with pytest.raises(InvariantError, match="whole is not joined"):
        JoinedState(grown_chain(1).state_data, SUITE)


def scrub_all(chain):
    chain.restart()
    scrub = Scrub(CHAIN, chain.blocks, chain.state, lambda _height: VALIDATORS)
    return sum(1 for height in range(scrub.height + 1) for _ in scrub.check(height))


@pytest.mark.parametrize("name", ["block_data", "state_data"])
def test_every_record_of_a_joined_store_that_is_lost_or_changed_is_found(name):
    """But for the counts of `getinfo`, which stand under no root."""
    chain = grown_chain(2)
    joined = JoinedChain(view_of(chain))
    chain.run(make_transaction(register(0), 0), make_transaction(register(77), 77))
    chain.decide()
    joined.follow(chain)
    assert scrub_all(joined) > 10
    store, missed = getattr(joined, name), []
    for key, value in pairs(store).items():
        for at in (None, *sorted({0, len(value) // 2, len(value) - 1} if value else ())):
            changed = None if at is None else value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
            store.write([(key, changed)])
            try:
                scrub_all(joined)
            except KanglianError:
                pass
            else:
                missed.append((key, at))
            store.write([(key, value)])
    last = len(joined.state_data.get(b"t")) - 1
    assert missed == ([(b"t", last)] if name == "state_data" else [])


def all_items(source):
    """Every item of a snapshot, the head first."""
    found = {HEAD_ITEM: ask(source, HEAD_ITEM)}
    join(source, MemoryStore(), change=found.setdefault)
    return found


def variants(item, data, others):
    """Ways to lie about an item: a byte changed anywhere, a part lost, added, repeated, moved."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]
    yield from others
    match item.kind:
        case Kind.NAMESPACES:
            yield from altered_lists(NAMESPACES.decode(data), encode)
        case Kind.SUBTREE:
            found = SUBTREE.decode(data)
            stray = PlacedValue(b"\0stray", b"x")

            def packed(leaves):
                return encode(msgspec.structs.replace(found, leaves=tuple(leaves)))

            yield from altered_lists(found.leaves, packed)
            yield packed((*found.leaves, stray))
            yield packed((stray, *found.leaves))
        case Kind.RUN:
            run = RUN.decode(data)

            def again(entries):
                return encode(msgspec.structs.replace(run, entries=tuple(entries)))

            yield from altered_lists(run.entries, again)
            yield encode(msgspec.structs.replace(run, path=run.path[1:]))
            yield encode(msgspec.structs.replace(run, path=(*run.path, bytes(32))))
        case Kind.WINDOW:
            yield from altered_lists(WINDOW.decode(data), encode)
        case Kind.ENTRIES:
            yield from altered_lists(ENTRIES.decode(data), encode)


def altered_lists(parts, packed):
    parts = list(parts)
    for at in range(len(parts)):
        yield packed(parts[:at] + parts[at + 1 :])
        yield packed([*parts[: at + 1], *parts[at:]])
        if at:
            yield packed([*parts[: at - 1], parts[at], parts[at - 1], *parts[at + 1 :]])


def harmless(item, wrong):
    """The counts of the head are bound by nothing."""
    if item == HEAD_ITEM:
        good, bad = HEAD.decode(item_data[item]), HEAD.decode(wrong)
        fixed = msgspec.structs.replace(
            bad, transactions=good.transactions, operations=good.operations
        )
        return fixed == good
    return False


item_data: dict[Item, bytes] = {}


def test_whatever_is_changed_lost_added_or_moved_in_any_item_is_refused():
    chain = grown_chain()
    source, store = view_of(chain), MemoryStore()
    item_data.clear()
    item_data.update(all_items(source))
    refused = Counter()
    now = TIME + 3_600_000

    def attempt(item, check):
        others = [data for key, data in item_data.items() if key.kind == item.kind and key != item]
        for wrong in variants(item, item_data[item], others):
            if wrong == item_data[item]:
                continue
            try:
                check(wrong)
            except Rejected:
                refused[Kind(item.kind)] += 1
                continue
            assert harmless(item, wrong), (item, wrong)

    attempt(HEAD_ITEM, lambda wrong: check_head(wrong, GENESIS, now))
    plan = JoinPlan(head_of(source), JoinedState(store, SUITE), CHAIN)
    while (item := plan.next_item()) is not None:
        if item.kind == Kind.WINDOW:
            attempt(item, lambda wrong: check_window(SUITE, plan.base, wrong))
        else:
            attempt(item, lambda wrong, item=item: plan.take(item, wrong))
        plan.take(item, item_data[item])
    before = chain.state_data.snapshot()
    assert plan.finish().height == StateStore(before).tip.height - 1
    assert set(refused) == set(Kind)
    assert min(refused.values()) > 20
