"""Joining a chain from a snapshot: before a node is made, its stores are filled from its peers.

What it decides: which height to join, whom to ask for what, and who is believed no more. What it
never does: take part. Votes, batches and blocks that come in meanwhile are not looked at.
The height is the one that most peers offer, and of those the newest. Blocks begin after it, then
the log says so, then the state becomes whole: a join that ends in between goes on at the next
start (ledger/store/joined.py).
Source: docs/decisions/0039-snapshots.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
import trio

from ledger.codec import encode
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.genesis import Genesis, genesis_validators
from ledger.ids import Address, Height
from ledger.snapshot import ITEM_BYTES, Base, Item, Kind, check_head, kept_headers
from ledger.store.blocks import BlockStore
from ledger.store.join_plan import JoinPlan
from ledger.store.joined import JoinedState
from ledger.store.memory import MemoryStore
from ledger.store.results import JOINING, TIP, StateStore
from node import limits, wire
from node.config import NodeConfig
from node.executor import Executor
from node.identity import identify
from node.keystore import LoadedKey
from node.linking import Standing, make_network
from node.log_entries import EndedHeight, LogDamagedError
from node.members import Members
from node.ports import Ports
from node.requests import Requests
from node.stages import StageClock
from node.wal import WriteAheadLog
from p2p.frames import Frame, FrameKind
from p2p.network import Network
from p2p.peer import Peer
from p2p.scoring import Offence, PeerOffenceError

_HEAD = Item(int(Kind.HEAD))
# Items in a row that a link did not bring before it is asked again what it has.
_PATIENCE = 3
# So long nobody may serve a snapshot before another one is chosen.
_GONE_S = 15.0
_REPORT_S = 5.0
# How often it says that it waits for somebody who serves.
_SILENCE_S = 30.0
_log = structlog.get_logger("join")


@dataclass(slots=True, eq=False)
class _Source:
    """A link, and what its other end can serve: `base` is the snapshot it offered last."""

    peer: Peer
    base: Base | None = None
    open_pulls: int = 0
    failures: int = 0
    waiting: dict[int, "_Question"] = field(default_factory=dict[int, "_Question"])


@dataclass(slots=True, eq=False)
class _Question:
    """A part of an item; `part` stays empty when nobody answered."""

    part: wire.SnapshotPart | None = None
    answered: trio.Event = field(default_factory=trio.Event)


class _NobodyServesError(Exception):
    """No link is left whose other end serves the snapshot."""


def may_join(config: NodeConfig, ports: Ports) -> bool:
    """Whether a node is told to join from a snapshot and holds nothing yet, or a join in progress.

    Raises: UnavailableError when its log says that it held blocks, StoreDamagedError.
    """
    if not config.sync.snapshot or ports.state.get(TIP) is not None:
        return False
    if ports.state.get(JOINING) is None:
        StateStore(ports.state)  # it is damaged if there is anything in it
        ended = _ended_height(config, ports)
        if ended or BlockStore(ports.blocks, ports.bodies).height:
            raise UnavailableError(
                f"the log ended height {ended}, so this node held blocks that are gone. Run "
                "`kanglian node rebuild --config FILE --store blocks`; then it may join anew"
            )
    return True


def _ended_height(config: NodeConfig, ports: Ports) -> int:
    """The height that the log ended last; 0 without one, or when it is damaged."""
    try:
        log = WriteAheadLog(config.node.data_dir / "consensus.wal", ports.disk)
    except LogDamagedError:
        return 0
    log.close()
    return 0 if log.recovered.ended is None else log.recovered.ended.height


def _move_log(config: NodeConfig, ports: Ports, height: int) -> None:
    """A log that ended a lower height ends this one, and remembers from when on it may vote.

    A log that is missing or damaged begins at the start of the node, in quarantine.
    """
    try:
        log = WriteAheadLog(config.node.data_dir / "consensus.wal", ports.disk)
    except LogDamagedError:
        return
    ended = log.recovered.ended
    if ended is not None and ended.height < height:
        sequence, previous = log.recovered.own_batches()
        log.end_height(EndedHeight(height, sequence, previous, ended.voting_from, ended.memory))
        log.sync()
    log.close()


class SnapshotJoin:
    """One join. Implements `p2p.network.FrameHandler`."""

    def __init__(self, config: NodeConfig, genesis: Genesis, key: LoadedKey, ports: Ports) -> None:
        """Raises: Rejected(BAD_GENESIS) when the key is of no member that genesis knows."""
        self._config = config
        self._genesis = genesis
        self._ports = ports
        # Who may link is known of genesis alone, until the state is here.
        first = StateStore(MemoryStore())
        self._chain = Executor(genesis, first, StageClock()).chain
        members = Members(genesis, first, lambda: 1)
        identity = identify(config.node, key, self._chain.suite, members)
        voters = [Address(item.address) for item in genesis_validators(genesis).members]
        self._network: Network = make_network(
            config.p2p,
            self._chain,
            identity,
            members,
            ports,
            self,
            Standing(lambda: 0, lambda: voters),
        )
        self._state = JoinedState(ports.state, self._chain.suite)
        self._lowest = _ended_height(config, ports)
        self._sources: dict[Address, _Source] = {}
        self._liars: dict[Address, None] = {}
        self._requests: Requests[_Question] = Requests()
        self._changed = trio.Event()

    async def run(self) -> int:
        """Join; the height whose state is here then.

        Raises: UnavailableError when the port is taken or the disk refuses.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._network.run)
            while True:
                base = await self._choose()
                _log.info("joining", height=base.height, block=base.block_hash.hex())
                try:
                    await self._fetch(base)
                except _NobodyServesError:
                    _log.warning("snapshot_gone", height=base.height)
                    continue
                nursery.cancel_scope.cancel()
                return base.height
        raise UnavailableError("the network ended")

    # ---- FrameHandler ----

    def on_connected(self, peer: Peer) -> None:
        """A link is up."""
        if peer.address not in self._liars:
            self._sources[peer.address] = _Source(peer)
            self._wake()

    def on_disconnected(self, peer: Peer) -> None:
        """A link is gone, and with it what was asked there."""
        source = self._sources.pop(peer.address, None)
        for question in source.waiting.values() if source else ():
            question.answered.set()
        self._requests.forget(peer.address)
        self._wake()

    async def on_frames(self, peer: Peer, frames: list[Frame]) -> None:
        """Take answers, and tell who asks that nothing is here; the rest is for later.

        Raises: PeerProtocolError.
        """
        for kind, payload in frames:
            try:
                self._on_frame(peer, kind, payload)
            except Rejected as refusal:
                detail = f"{kind.name.lower()}: {refusal}"
                raise PeerOffenceError(Offence.MALFORMED, detail) from refusal

    def _on_frame(self, peer: Peer, kind: FrameKind, payload: bytes) -> None:
        match kind:
            case FrameKind.SNAPSHOT_RESPONSE:
                number, body = wire.split_answer(payload)
                question = self._requests.take(peer.address, number)
                question.part = wire.SNAPSHOT_PART.decode(body)
                question.answered.set()
            case FrameKind.BATCH_REQUEST:
                number = wire.BATCH_REQUEST.decode(payload).number
                peer.send(FrameKind.BATCH_RESPONSE, wire.answer(number, b""))
            case FrameKind.BLOCK_REQUEST:
                number = wire.BLOCK_REQUEST.decode(payload).number
                nothing = encode(wire.BlockResponse(0, ()))
                peer.send(FrameKind.BLOCK_RESPONSE, wire.answer(number, nothing))
            case FrameKind.SNAPSHOT_REQUEST:
                number = wire.SNAPSHOT_REQUEST.decode(payload).number
                missing = encode(wire.SnapshotPart(0, 0, b""))
                peer.send(FrameKind.SNAPSHOT_RESPONSE, wire.answer(number, missing))
            case _:
                pass  # a node that holds nothing has no use for it

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ---- Which snapshot ----

    async def _choose(self) -> Base:
        """The snapshot that most peers offer; one that was begun, if anybody still serves it."""
        begun, since = self._begun(), trio.current_time()
        while True:
            if trio.current_time() - since > _SILENCE_S:
                advice = "at the birth of a chain nobody can: start without `snapshot = true`"
                _log.warning("nobody_serves_snapshots", links=len(self._sources), advice=advice)
                since = trio.current_time()
            for source in self._sources.values():
                source.base = None
            with trio.move_on_after(limits.SNAPSHOT_CHOICE_MS / 1_000):
                await self._ask_heads(0)
            if begun is not None and self._offers():
                with trio.move_on_after(limits.SNAPSHOT_CHOICE_MS / 1_000):
                    await self._ask_heads(begun.height)
                if any(one.block_hash == begun.block_hash for one in self._offers()):
                    return begun
                begun = None
                continue
            offers = [base for base in self._offers() if base.height >= self._lowest]
            if offers:
                return max(offers, key=lambda base: (_count(base, offers), base.height))
            await trio.sleep(limits.SNAPSHOT_RETRY_MS / 1_000)

    def _begun(self) -> Base | None:
        if not self._state.head:
            return None
        try:
            return check_head(self._state.head, self._genesis, self._ports.clock.now_ms())
        except Rejected as refusal:
            _log.warning("join_begins_anew", reason=str(refusal))
            return None

    def _offers(self) -> list[Base]:
        return [source.base for source in self._sources.values() if source.base is not None]

    async def _ask_heads(self, height: int) -> None:
        """Ask every link for its newest snapshot, or whether it has that of a height."""
        async with trio.open_nursery() as nursery:
            for source in list(self._sources.values()):
                nursery.start_soon(self._ask_head, source, height)

    async def _ask_head(self, source: _Source, height: int) -> None:
        source.base = None
        try:
            data = await self._ask(source, height, _HEAD)
            if not data:
                return
            base = check_head(data, self._genesis, self._ports.clock.now_ms())
            if height not in (0, base.height):
                raise Rejected(Reason.BAD_PROOF, "the head of another height", height=base.height)
        except Rejected as refusal:
            self._distrust(source, refusal)
            return
        source.base = base

    def _distrust(self, source: _Source, refusal: Rejected) -> None:
        """Whoever sent what is wrong is asked nothing more, and named."""
        address = source.peer.address
        _log.error("snapshot_refused", peer=address.hex(), reason=str(refusal))
        self._liars[address] = None
        self._sources.pop(address, None)
        self._network.blame(address, Offence.FALSE_SNAPSHOT, str(refusal))

    # ---- Its items ----

    async def _fetch(self, base: Base) -> None:
        """Everything of a snapshot, then the stores that begin with it.

        Raises: _NobodyServesError.
        """
        plan = JoinPlan(base, self._state, self._chain)
        for source in self._sources.values():
            if source.base is not None and source.base.block_hash != base.block_hash:
                source.base = None  # it may have this one too
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._welcome, base)
            nursery.start_soon(self._report, plan)
            is_gone = await self._work_together(plan)
            nursery.cancel_scope.cancel()
        if is_gone:
            raise _NobodyServesError
        blocks = BlockStore(self._ports.blocks, self._ports.bodies)
        blocks.begin(Height(base.height), kept_headers(base, self._chain.suite))
        _move_log(self._config, self._ports, base.height)
        plan.finish()
        _log.info("joined", height=base.height, items=plan.taken)

    async def _work_together(self, plan: JoinPlan) -> bool:
        """Fetch with several hands; whether nobody serves what is missing."""
        async with trio.open_nursery() as hands:
            for _ in range(limits.SNAPSHOT_PULLS):
                hands.start_soon(self._work, plan, hands.cancel_scope)
        return not plan.is_done

    async def _welcome(self, base: Base) -> None:
        """Ask those who came later, and those who failed, whether they serve this snapshot."""
        while True:
            await trio.sleep(limits.SNAPSHOT_RETRY_MS / 1_000)
            async with trio.open_nursery() as nursery:
                for source in list(self._sources.values()):
                    if source.base is None:
                        nursery.start_soon(self._ask_head, source, base.height)
            self._wake()

    async def _report(self, plan: JoinPlan) -> None:
        while True:
            await trio.sleep(_REPORT_S)
            servers = len(self._serving(plan.base))
            _log.info("join_progress", height=plan.base.height, items=plan.taken, servers=servers)

    async def _work(self, plan: JoinPlan, scope: trio.CancelScope) -> None:
        """One item after the other, until nothing is missing; ends all hands when nobody serves."""
        while not plan.is_done:
            item = plan.next_item()
            if item is None:
                await self._changed.wait()
                continue
            source = await self._free_source(plan.base)
            if source is None:
                plan.put_back(item)
                scope.cancel()
                return
            source.open_pulls += 1
            try:
                self._take(plan, source, item, await self._ask(source, plan.base.height, item))
            except Rejected as refusal:
                plan.put_back(item)
                self._distrust(source, refusal)
            finally:
                source.open_pulls -= 1
            self._wake()

    def _take(self, plan: JoinPlan, source: _Source, item: Item, data: bytes | None) -> None:
        """Raises: Rejected when it is not that of the snapshot."""
        if data:
            plan.take(item, data)
            source.failures = 0
            return
        plan.put_back(item)
        source.failures += 1
        if data is not None or source.failures == _PATIENCE:
            source.base, source.failures = None, 0  # it is asked again whether it has it

    def _serving(self, base: Base) -> list[_Source]:
        return [
            source
            for source in self._sources.values()
            if source.base is not None and source.base.block_hash == base.block_hash
        ]

    async def _free_source(self, base: Base) -> _Source | None:
        """The least busy link that serves a snapshot; None when there was none for a while."""
        with trio.move_on_after(_GONE_S) as patience:
            while True:
                serving = self._serving(base)
                free = [one for one in serving if one.open_pulls < limits.SNAPSHOT_PULLS_PER_PEER]
                if free:
                    return min(free, key=lambda one: (one.failures, one.open_pulls))
                if serving:
                    patience.deadline = trio.current_time() + _GONE_S
                await self._changed.wait()
        return None

    async def _ask(self, source: _Source, height: int, item: Item) -> bytes | None:
        """The whole item, part by part: nothing when it is not there, None when nobody answers.

        Raises: Rejected when the parts are none of one item.
        """
        data = bytearray()
        while True:
            part = await self._ask_part(source, height, item, len(data))
            if part is None or not part.size:
                return None if part is None else b""
            if height not in (0, part.height) or part.size > ITEM_BYTES[Kind(item.kind)]:
                raise Rejected(Reason.BAD_PROOF, "a part of another item", height=part.height)
            if not part.data or len(data) + len(part.data) > part.size:
                raise Rejected(Reason.BAD_PROOF, "parts of another size", size=part.size)
            height = part.height
            data += part.data
            if len(data) == part.size:
                return bytes(data)

    async def _ask_part(
        self, source: _Source, height: int, item: Item, offset: int
    ) -> wire.SnapshotPart | None:
        question = _Question()
        number = self._requests.open(source.peer.address, question)
        request = wire.SnapshotRequest(number, height, item, offset)
        if not source.peer.send(FrameKind.SNAPSHOT_REQUEST, encode(request)):
            return None
        source.waiting[number] = question
        with trio.move_on_after(limits.SNAPSHOT_TIMEOUT_MS / 1_000):
            await question.answered.wait()
        source.waiting.pop(number, None)
        return question.part


def _count(base: Base, offers: Sequence[Base]) -> int:
    return sum(other.block_hash == base.block_hash for other in offers)
