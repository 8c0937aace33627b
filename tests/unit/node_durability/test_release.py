"""More nodes damaged than the chain bears: it waits, is released by statements, never forks."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from consensus.messages import Proposal, Vote, VoteKind
from ledger.block import block_hash
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.genesis import Organisation, chain_of, node_address
from ledger.ids import Address, Height, Round, ValidatorIndex
from ledger.store.memory import MemoryStore
from ledger.store.results import StateStore
from ledger.votes import Certificate, VoteType, vote_digest
from node import wire
from node.identity import Identity
from node.limits import RELEASE_ROUNDS
from node.log_entries import EndedHeight, LoggedVote, Memory, entries_of
from node.release import judge
from node.rulers import Rulers
from node.statement import STATEMENT_TAG, Statement, parse_statement, statement_digest
from node.stopped import StoppedNode
from node.wal import WriteAheadLog, read_log
from p2p.frames import FrameKind
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import (
    CHAIN,
    GENESIS,
    VALIDATORS,
    LocalChain,
    make_transaction,
    register,
    secret_of,
)
from tests.unit.node_core.memory_network import MemoryNode, running, until
from tests.unit.node_core.test_network import own_messages

OWNERS = ("a", "b", "c", "d")
CONSORTIUM = msgspec.structs.replace(
    GENESIS,
    organisations=tuple(Organisation(name, name) for name in (*OWNERS, "z")),
    modules=(),  # Members that cannot change: every height is that of genesis.
    nodes=tuple(
        msgspec.structs.replace(node, organisation=OWNERS[VALIDATORS.index_of(node_address(node))])
        for node in GENESIS.nodes
    ),
    accounts=(),
)
THEIRS = chain_of(CONSORTIUM)
TOP = 7
A, B = b"\x0a" * 32, b"\x0b" * 32


def name_of(validator, genesis=CONSORTIUM):
    address = VALIDATORS.members[validator].address
    return next(node for node in genesis.nodes if node_address(node) == address)


def signed(validator, message, chain=THEIRS):
    return SUITE.sign(secret_of(validator), wire.digest_of(message, chain))


def vote(validator, round_number, value, kind=1, height=TOP + 1):
    message = Vote(
        VoteKind(kind), Height(height), Round(round_number), value, -1, ValidatorIndex(validator)
    )
    return encode(wire.vote_message(message, signed(validator, message))).hex()


def block_of(chain=None):
    block, _ = (chain or LocalChain()).next_block()
    return block, block_hash(block.header, SUITE)


BLOCK, VALUE = block_of()


def offer(round_number=0, block=BLOCK, value=VALUE, height=TOP + 1):
    proposer = ValidatorIndex((height + round_number) % 4)
    message = Proposal(Height(height), Round(round_number), value, -1, proposer)
    record = wire.proposal_message(message, signed(proposer, message), encode(block))
    return encode(record).hex()


def certificate(height, value=A, signers=(0, 1, 2)):
    digest = vote_digest(THEIRS, VoteType.PRECOMMIT, height, 0, value)
    pairs = tuple((index, SUITE.sign(secret_of(index), digest)) for index in signers)
    return encode(Certificate(height, 0, value, pairs)).hex()


def statement(validator, height=TOP, **changes):
    fields = {
        "format": "kanglian-statement/1",
        "genesis_hash": THEIRS.genesis_hash.hex(),
        "group": THEIRS.group,
        "node": name_of(validator).address,
        "made_ms": 0,
        "is_damaged": False,
        "height": height,
        "certificate": certificate(height) if height else "",
        "proposal": "",
        "prevotes": (),
        "latest": (),
        "signature": "",
        **changes,
    }
    unsigned = Statement(**fields)
    if "signature" in changes:
        return unsigned
    signature = SUITE.sign(secret_of(validator), statement_digest(unsigned, SUITE))
    return msgspec.structs.replace(unsigned, signature=signature.hex())


def locked_statement(validator, round_number=0, **changes):
    prevotes = tuple(vote(index, round_number, VALUE) for index in (0, 1, 2))
    return statement(
        validator, **{"proposal": offer(round_number), "prevotes": prevotes, **changes}
    )


def verdict(*statements, me=3, own=None):
    own = own or {}
    rulers = Rulers(CONSORTIUM, StateStore(MemoryStore()))
    return judge(THEIRS, rulers, Address(VALIDATORS.members[me].address), statements, own.get)


def test_a_quorum_of_organisations_without_a_lock_releases_into_a_new_round():
    release = verdict(statement(0), statement(1), statement(3, is_damaged=True))
    entry = release.entry
    assert (entry.height, entry.after_round) == (TOP + 1, RELEASE_ROUNDS - 1)
    assert (entry.locked_round, entry.locked_value, entry.prevotes) == (-1, None, ())
    assert release.organisations == ("a", "b", "d")
    assert (release.intact_nodes, release.damaged_nodes) == (2, 1)


def test_the_newest_quorum_of_prevotes_becomes_the_lock():
    newest = locked_statement(1, 4)
    entry = verdict(locked_statement(0, 2), newest, statement(3)).entry
    assert (entry.locked_round, entry.locked_value) == (4, VALUE)
    assert tuple(item.hex() for item in entry.prevotes) == newest.prevotes
    assert entry.proposal.hex() == newest.proposal
    assert entry.after_round == 4 + RELEASE_ROUNDS


def test_rounds_are_skipped_that_this_node_is_known_to_have_been_in():
    heard = statement(0, latest=(vote(3, 9, None),))
    assert verdict(heard, statement(1), statement(2)).entry.after_round == 9 + RELEASE_ROUNDS
    assert verdict(heard, statement(1), statement(2), me=2).entry.after_round == RELEASE_ROUNDS - 1


def test_one_far_voter_moves_nobody_and_f_plus_one_do():
    far = statement(0, latest=(vote(0, 2**40, None), vote(1, 6, None)))
    entry = verdict(far, statement(1), statement(2)).entry
    assert entry.after_round == 6 + RELEASE_ROUNDS


def test_older_statements_count_as_organisations_and_for_nothing_else():
    entry = verdict(
        statement(0), locked_statement(1, height=TOP - 1, prevotes=(), proposal=""), statement(2)
    ).entry
    assert (entry.height, entry.locked_value) == (TOP + 1, None)


def test_statements_before_the_first_block_release_at_height_one():
    entry = verdict(*(statement(index, height=0) for index in (0, 1, 2))).entry
    assert entry.height == 1


BAD = {
    "too few organisations": lambda: (statement(0), statement(1)),
    "two statements of one node": lambda: (statement(0), statement(0), statement(1), statement(2)),
    "another chain": lambda: (
        statement(0, genesis_hash=CHAIN.genesis_hash.hex()),
        statement(1),
        statement(2),
    ),
    "a forged signature": lambda: (
        statement(0, signature=statement(1).signature),
        statement(1),
        statement(2),
    ),
    "a field changed after signing": lambda: (
        msgspec.structs.replace(statement(0), is_damaged=True),
        statement(1),
        statement(2),
    ),
    "a stranger": lambda: (statement(0, node="kn1stranger"), statement(1), statement(2)),
    "a certificate below a quorum": lambda: (
        statement(0, certificate=certificate(TOP, signers=(0, 1))),
        statement(1),
        statement(2),
    ),
    "a certificate of another height": lambda: (
        statement(0, certificate=certificate(TOP - 1)),
        statement(1),
        statement(2),
    ),
    "no certificate": lambda: (statement(0, certificate=""), statement(1), statement(2)),
    "two certified blocks": lambda: (
        statement(0, certificate=certificate(TOP, B)),
        statement(1),
        statement(2),
    ),
    "prevotes below a quorum": lambda: (
        locked_statement(0, prevotes=tuple(vote(index, 0, VALUE) for index in (0, 1))),
        statement(1),
        statement(2),
    ),
    "one prevote twice": lambda: (
        locked_statement(0, prevotes=(vote(0, 0, VALUE),) * 3),
        statement(1),
        statement(2),
    ),
    "prevotes for another block": lambda: (
        locked_statement(0, prevotes=tuple(vote(index, 0, A) for index in (0, 1, 2))),
        statement(1),
        statement(2),
    ),
    "prevotes of two rounds": lambda: (
        locked_statement(0, prevotes=tuple(vote(index, index // 2, VALUE) for index in (0, 1, 2))),
        statement(1),
        statement(2),
    ),
    "precommits for prevotes": lambda: (
        locked_statement(0, prevotes=tuple(vote(index, 0, VALUE, 2) for index in (0, 1, 2))),
        statement(1),
        statement(2),
    ),
    "a forged prevote": lambda: (
        locked_statement(
            0,
            prevotes=(*(vote(index, 0, VALUE) for index in (0, 1)), forged(2)),
        ),
        statement(1),
        statement(2),
    ),
    "prevotes without their block": lambda: (
        locked_statement(0, proposal=""),
        statement(1),
        statement(2),
    ),
    "another block under the hash": lambda: (
        locked_statement(0, proposal=offer(block=OTHER)),
        statement(1),
        statement(2),
    ),
    "a message of another height": lambda: (
        statement(0, latest=(vote(3, 9, None, height=TOP),)),
        statement(1),
        statement(2),
    ),
    "a forged message": lambda: (statement(0, latest=(forged(3),)), statement(1), statement(2)),
    "garbage for a message": lambda: (statement(0, latest=("c0",)), statement(1), statement(2)),
}
OTHER = LocalChain().next_block(time=GENESIS.time + 77)[0]


def forged(validator):
    """A prevote of this validator with the signature of another."""
    message = Vote(
        VoteKind.PREVOTE, Height(TOP + 1), Round(0), VALUE, -1, ValidatorIndex(validator)
    )
    return encode(wire.vote_message(message, signed(0, message))).hex()


@pytest.mark.parametrize("name", BAD)
def test_statements_with_any_fault_release_nobody(name):
    with pytest.raises(Rejected) as refusal:
        verdict(*BAD[name]())
    assert refusal.value.reason in (
        Reason.BAD_STATEMENT,
        Reason.BAD_ADDRESS,
        Reason.BAD_CERTIFICATE,
        Reason.MALFORMED,
    )


@pytest.mark.parametrize(("own", "words"), [({TOP: B}, "forked"), ({TOP + 1: B}, "newer blocks")])
def test_this_nodes_own_blocks_must_agree(own, words):
    with pytest.raises(Rejected, match=words) as refusal:
        verdict(statement(0), statement(1), statement(2), own=own)
    assert refusal.value.reason is Reason.BAD_STATEMENT


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"format": 1}'])
def test_a_file_that_is_no_statement_is_refused(data):
    with pytest.raises(Rejected):
        parse_statement(data)


def test_a_statement_survives_its_file():
    made = locked_statement(0)
    assert parse_statement(msgspec.json.encode(made)) == made
    assert STATEMENT_TAG == b"kl.statement\0"


# ---- whole nodes ----


def stopped(index, disk, folder):
    node = name_of(index, GENESIS)
    identity = Identity(node.name, node_address(node), b"", secret_of(index), SUITE)
    disk.open()
    log_path = folder / f"{index}.wal"
    return StoppedNode(CHAIN, identity, disk.blocks, Rulers(GENESIS, disk.state), log_path)


def some(number):
    return [make_transaction(register(number), number, is_signed=True)]


def play(main):
    trio.run(main, clock=MockClock(autojump_threshold=0))


def lose_precommits(node):
    """From now on nobody hears this node's precommits: blocks are locked and not decided."""
    broadcast, send = node.broadcast, node.send

    def drop(kind, payload):
        is_precommit = kind is FrameKind.VOTE and wire.VOTE.decode(payload).kind == 2
        return 0 if is_precommit else broadcast(kind, payload)

    def thin(address, kind, payload):
        if kind is FrameKind.MESSAGES:
            resent = wire.RESENT.decode(payload)
            votes = tuple(one for one in resent.votes if one.kind == 1)
            payload = encode(wire.Resent(resent.proposals, votes))
        return send(address, kind, payload)

    node.broadcast, node.send = drop, thin


def damaged_world(tmp_path):
    """Four nodes that locked a block of a height nobody decided; two of the logs are gone.

    Returns the disks, what each node signed, and the locked block.
    """
    disks = [LocalChain() for _ in range(4)]
    locked = []

    async def first_life():
        nodes = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(4)]
        async with running(*nodes):
            nodes[0].admit(some(1))
            await until(lambda: all(node.height == 2 for node in nodes))
            for node in nodes:
                lose_precommits(node)
            nodes[0].admit(some(2))
            await until(lambda: all(node.driver.core.locked[1] for node in nodes))
            locked.append(nodes[0].driver.core.locked[1])
            await trio.sleep(1)
            for node in nodes:
                node.log.sync()

    play(first_life)
    before = [
        own_messages(entry for _, entry in entries_of((tmp_path / f"{n}.wal").read_bytes()))
        for n in range(4)
    ]
    for n in (2, 3):
        (tmp_path / f"{n}.wal").unlink()
    return disks, before, locked[0]


def test_two_of_four_damaged_nodes_wait_and_go_on_after_a_release_without_a_fork(tmp_path):
    disks, before, locked = damaged_world(tmp_path)

    async def waits():
        nodes = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(4)]
        async with running(*nodes):
            await trio.sleep(120)
            assert [node.height for node in nodes] == [2] * 4
            assert [node.driver.is_voting for node in nodes] == [True, True, False, False]
            for node in nodes:
                node.log.sync()

    play(waits)
    stopped_nodes = [stopped(n, disks[n], tmp_path) for n in range(4)]
    statements = [node.statement(0) for node in stopped_nodes]
    assert [one.is_damaged for one in statements] == [False, False, True, True]
    releases = [stopped_nodes[n].release(statements, 0) for n in (2, 3)]
    assert [release.entry.locked_value for release in releases] == [locked] * 2

    async def goes_on():
        nodes = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(4)]
        async with running(*nodes):
            await until(lambda: all(node.height >= 3 for node in nodes), 300)
            nodes[3].admit(some(3))
            await until(lambda: all(node.disk.tip.operations == 3 for node in nodes), 300)
            for node in nodes:
                node.log.sync()

    play(goes_on)
    hashes = {block_hash(disk.writer.read_block(3).block.header, SUITE) for disk in disks}
    assert hashes == {locked}
    for n in range(4):
        path = tmp_path / f"{n}.wal"
        after = own_messages(entry for _, entry in entries_of(path.read_bytes()))
        assert [place for place, found in after.items() if len(found) > 1] == []
        changed = [place for place in after if before[n].get(place, after[place]) != after[place]]
        assert changed == [], n


def test_a_release_outlives_a_restart_before_its_height_is_decided(tmp_path):
    disks, _, locked = damaged_world(tmp_path)
    nodes = [stopped(n, disks[n], tmp_path) for n in range(4)]
    statements = [node.statement(0) for node in nodes]
    nodes[2].release(statements, 0)
    nodes[3].release(statements, 0)

    async def lives(seconds):
        live = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(4)]
        for node in live:
            lose_precommits(node)
        async with running(*live):
            await trio.sleep(seconds)
            for node in live:
                node.log.sync()
        assert [node.driver.core.locked[1] for node in live] == [locked] * 4

    for seconds in (3, 9):
        trio.run(lives, seconds, clock=MockClock(autojump_threshold=0))
    recovered, is_whole = read_log(tmp_path / "2.wal")
    assert (is_whole, recovered.release.locked_value) == (True, locked)
    found = own_messages(entry for _, entry in entries_of((tmp_path / "2.wal").read_bytes()))
    assert found
    assert [place for place, messages in found.items() if len(messages) > 1] == []
    assert min(place[1] for place in found) == recovered.release.after_round + 1


def test_only_a_node_in_quarantine_is_released_and_only_once(tmp_path):
    disks, _, _ = damaged_world(tmp_path)
    nodes = [stopped(n, disks[n], tmp_path) for n in range(4)]
    statements = [node.statement(0) for node in nodes]
    with pytest.raises(Rejected, match="not in quarantine"):
        nodes[0].release(statements, 0)
    first = nodes[2].release(statements, 0)
    assert nodes[2].release(statements, 0) == first
    for index in (0, 1):
        know_own_round(tmp_path / f"{index}.wal", index, first.entry.height, 30)
    later = [node.statement(0) for node in nodes]
    with pytest.raises(Rejected, match="released before"):
        nodes[2].release(later, 0)  # Other statements, other rounds.


def know_own_round(path, index, height, round_number):
    """Let a log end with an own vote."""
    message = Vote(
        VoteKind.PREVOTE, Height(height), Round(round_number), None, -1, ValidatorIndex(index)
    )
    log = WriteAheadLog(path)
    own = encode(wire.vote_message(message, signed(index, message, CHAIN)))
    log.append(LoggedVote(own, own=True))
    log.sync()
    log.close()


def test_a_release_skips_rounds_that_the_nodes_own_log_still_knows(tmp_path):
    disk = LocalChain()
    log = WriteAheadLog(tmp_path / "2.wal")
    log.append(EndedHeight(0, 0, bytes(32), 9, Memory.COMPLETE))
    log.sync()
    log.close()
    know_own_round(tmp_path / "2.wal", 2, 1, 8)
    node = stopped(2, disk, tmp_path)
    without = [stopped(index, disk, tmp_path).statement(0) for index in (0, 1, 3)]
    assert node.release(without, 0).entry.after_round == 8 + RELEASE_ROUNDS
