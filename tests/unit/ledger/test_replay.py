"""An id is remembered until its expiry rule would refuse it anyway, and headers commit to that."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.codec import encode
from ledger.limits import REPLAY_WINDOW_MS
from ledger.merkle import root_of_entries
from ledger.replay import (
    SPAN_MS,
    CommittedWindow,
    ReplayBlock,
    ReplayWindow,
    replay_block,
)
from tests.unit.ledger.worlds import SUITE, secret

EMPTY = root_of_entries(SUITE.digest, ())


def test_an_id_is_seen_until_its_span_lies_wholly_in_the_past():
    window = ReplayWindow()
    window.record(b"a", SPAN_MS + 1, succeeded=True)
    assert window.seen(b"a", SPAN_MS + 1)
    assert not window.seen(b"b", SPAN_MS + 1)
    window.advance(2 * SPAN_MS - 1)
    assert window.seen(b"a", SPAN_MS + 1)
    window.advance(2 * SPAN_MS)
    assert not window.seen(b"a", SPAN_MS + 1)
    assert len(window) == 0


def test_success_is_remembered_beside_the_id():
    window = ReplayWindow()
    window.record(b"good", 5, succeeded=True)
    window.record(b"bad", 5 + SPAN_MS, succeeded=False)
    found = [window.succeeded(name) for name in (b"good", b"bad", b"unknown")]
    assert found == [True, False, False]
    assert len(window) == 2


def test_a_block_is_restored_as_far_as_it_still_counts():
    window = ReplayWindow()
    gone, kept = (secret("gone"), 9_999, True), (secret("kept"), 10_000, False)
    window.restore(replay_block(1, 0, {("emr", 0): [gone, kept]}), 19_999)
    assert not window.seen(gone[0], gone[1])
    assert window.seen(kept[0], kept[1])
    assert (len(window), window.succeeded(kept[0])) == (1, False)


def naive_root(blocks, time):
    """The definition of docs/format.md, from the bottom up, over all blocks ever."""
    oldest = (time - REPLAY_WINDOW_MS) // SPAN_MS
    namespaces = []
    for key in sorted({(one.module, one.level) for block in blocks for one in block.namespaces}):
        spans = []
        for span in sorted({block.time // SPAN_MS for block in blocks}):
            entries = [
                b"kl.replay-block\0"
                + encode(
                    (block.height, one.count, SUITE.digest(b"kl.replay-entries\0" + one.entries))
                )
                for block in blocks
                for one in block.namespaces
                if block.time // SPAN_MS == span >= oldest and (one.module, one.level) == key
            ]
            if entries:
                root = root_of_entries(SUITE.digest, entries)
                spans.append(b"kl.replay-span\0" + encode((span, root)))
        if spans:
            root = root_of_entries(SUITE.digest, spans)
            namespaces.append(b"kl.replay-namespace\0" + encode((*key, root)))
    return root_of_entries(SUITE.digest, namespaces)


KEYS = st.sampled_from([("", 0), ("emr", 0), ("emr", 1), ("trial", 0)])
STEPS = st.lists(
    st.tuples(
        st.sampled_from((1, 100, 9_999, 10_000, 50_000, 299_999, 600_000, 600_001, 2_000_000)),
        st.dictionaries(KEYS, st.integers(1, 3), max_size=3),
    ),
    max_size=25,
)


def played(steps):
    """Blocks of these steps."""
    time, blocks = 1_760_000_000_000, []
    for height, (step, counts) in enumerate(steps, start=1):
        time += step
        entries = {
            key: [(secret(f"{height} {key} {number}"), time + number, True) for number in range(n)]
            for key, n in counts.items()
        }
        blocks.append(replay_block(height, time, entries))
    return blocks


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_the_root_is_that_of_the_definition_after_every_block_and_every_restart(steps):
    window, kept, blocks = CommittedWindow(SUITE), {}, played(steps)
    for number, block in enumerate(blocks):
        forgotten = window.add(block)
        if block.namespaces:
            kept[block.height] = block
        for height in forgotten:
            del kept[height]
        expected = naive_root(blocks[: number + 1], block.time)
        restarted = CommittedWindow(SUITE)
        for one in kept.values():
            assert restarted.add(one) == ()
        restarted.add(ReplayBlock(block.height, block.time, ()))
        assert (window.root(), restarted.root()) == (expected, expected)


def test_a_window_is_empty_before_the_first_block_and_long_after_the_last():
    window = CommittedWindow(SUITE)
    assert window.root() == EMPTY
    window.add(replay_block(1, 5_000, {("emr", 0): [(secret("a"), 6_000, True)]}))
    before = window.root()
    assert before != EMPTY
    # The span of the first block ends at 10,000 and reaches into the window until 609,999.
    assert window.add(ReplayBlock(2, 609_999, ())) == ()
    assert window.root() == before
    assert window.add(ReplayBlock(3, 610_000, ())) == (1,)
    assert window.root() == EMPTY


def test_every_part_of_an_entry_is_under_the_root():
    a, b = (secret("a"), 6_000, True), (secret("b"), 6_000, True)

    def root(height=1, key=("emr", 0), entries=None):
        window, entries = CommittedWindow(SUITE), entries or [a]
        window.add(replay_block(height, 5_000, {key: entries}))
        return window.root()

    others = [
        root(height=2),
        root(key=("emr", 1)),
        root(key=("other", 0)),
        root(entries=[b]),
        root(entries=[(secret("a"), 6_001, True)]),
        root(entries=[(secret("a"), 6_000, False)]),
        root(entries=[a, b]),
        root(entries=[b, a]),
    ]
    assert len({root(), *others}) == 1 + len(others)
