"""A running node: wires the cores to disk, network, clock and keys, and implements NodeService.

Wiring only; every part says itself what it does. Tasks belong to one nursery: when one fails, the
node stops, because a half node is worse than none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import structlog
import trio

from consensus.core import Core
from consensus.timeouts import Timeouts
from contracts.interface import Method
from genesis.networks import read_genesis
from ledger.addresses import AddressKind, encode_text
from ledger.batch import Batch
from ledger.codec import Record
from ledger.errors import Reason, Rejected, UnavailableError, invariant
from ledger.genesis import Genesis
from ledger.ids import (
    Address,
    TransactionId,
    ValidatorIndex,
)
from ledger.limits import PROTOCOL_VERSION
from ledger.proof import Proof
from ledger.store.blocks import BlockStore
from ledger.store.results import StateStore
from ledger.transaction import Chain
from node.admission import Admission
from node.backlog import Backlog
from node.batch_maker import BatchMaker, resumed_author
from node.batches import BatchPool
from node.candidates import Candidates
from node.chain_writer import ChainWriter
from node.clock import SystemClock
from node.config import NodeConfig
from node.damage import refuse_marked
from node.disk_space import DiskSpace
from node.driver import ConsensusDriver
from node.driver_parts import BatchArrived, Collaborators, SpaceReturned, TwinSeen
from node.evidence import EvidenceKeeper
from node.executor import DecidedBlock, Executor
from node.identity import check_links, identify
from node.keystore import LoadedKey, PassphraseSource, load_key
from node.light import LightQueries
from node.linking import Standing, make_network
from node.members import Members
from node.mempool import Mempool
from node.metrics import Metrics
from node.ports import Ports, real_ports
from node.proofs import Proofs
from node.pruning import Pruning
from node.quarantine import open_log
from node.queries import Queries
from node.restore_mark import refuse_unfinished
from node.router import Router
from node.scrub import Scrub
from node.scrub_task import ScrubTask
from node.service import Committed, ConsensusView, FoundBlock, FoundTransaction, Info, PeerView
from node.snapshots import Snapshots
from node.stages import StageClock
from node.sync import BlockSync
from p2p.frames import FrameKind
from p2p.network import Network
from p2p.scoring import Offence

_log = structlog.get_logger("node")


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a node is made of: read, checked and opened."""

    config: NodeConfig
    genesis: Genesis
    key: LoadedKey
    ports: Ports


def prepare(config: NodeConfig, passphrase: PassphraseSource) -> Prepared:
    """Open keys, genesis and the stores on this machine.

    Raises: ConfigError, PrivateFileError, Rejected(BAD_GENESIS | HALF_FINISHED), UnavailableError,
        InvariantError; each names the file and what to do.
    """
    genesis = read_genesis(config.node.genesis_file)
    check_links(genesis, config.tls, SystemClock().now_ms())
    key = load_key(config.node.key_file, passphrase)
    refuse_marked(config.node.data_dir)
    refuse_unfinished(config.node.data_dir)
    return Prepared(config, genesis, key, real_ports(config))


def open_node(config: NodeConfig, passphrase: PassphraseSource) -> "RunningNode":
    """The node of a configuration on this machine. Raises: as `prepare`."""
    return start_node(prepare(config, passphrase))


def start_node(prepared: Prepared) -> "RunningNode":
    """The node of what was prepared, whose stores are its own from now on. Raises: as `prepare`."""
    return RunningNode(prepared.config, prepared.genesis, prepared.key, prepared.ports)


class RunningNode:
    """One node of one chain. `run` serves until cancelled."""

    def __init__(self, config: NodeConfig, genesis: Genesis, key: LoadedKey, ports: Ports) -> None:
        """Join the parts on what the machine gives; `run` closes its stores.

        Raises: Rejected(BAD_GENESIS), UnavailableError, InvariantError.
        """
        self._config = config
        self._genesis = genesis
        self._ports = ports
        self._clock = ports.clock
        self._stages = StageClock()
        self.metrics = Metrics(self._stages)
        data = config.node.data_dir
        self._state = StateStore(ports.state)
        blocks = BlockStore(ports.blocks, ports.bodies)
        self._executor = Executor(genesis, self._state, self._stages)
        self._members = Members(genesis, self._state, lambda: self.height + 1)
        suite = self._executor.chain.suite
        self._identity = identify(config.node, key, suite, self._members)
        self._writer = ChainWriter(genesis, blocks, self._executor, self._stages)
        self._mempool = Mempool()
        self._pool = BatchPool(ports.bodies)
        self._queries = Queries(self._writer)
        self.proofs = Proofs(self._queries)
        self._light = LightQueries(self._writer)
        scrub = Scrub(self._executor.chain, blocks, self._state, self._writer.validators_at)
        self._scrub = ScrubTask(scrub, self._clock, self.metrics)
        self._pruning = Pruning(blocks, self._state, self._pool, config.store.keep_blocks)
        backlog = Backlog(self._pool, lambda: self._router.queued_bytes)
        self._admission = Admission(
            self._executor, self._mempool, self._clock, self._stages, backlog.check
        )
        self._evidence = EvidenceKeeper(
            data / "evidence", self._identity, self._writer, self._clock, self._queries.has_offence
        )
        self._space = DiskSpace()
        self._waiting: dict[TransactionId, list[trio.Event]] = {}
        self._next_block = trio.Event()
        self._log_file = open_log(
            data / "consensus.wal", blocks.height, self._clock.now_ms(), ports.disk
        )
        self._network: Network
        self._maker = self._make_maker()
        self._driver = self._make_driver()
        self._sync = BlockSync(
            writer=self._writer,
            pool=self._pool,
            send=self.send,
            deliver=self._driver.post,
            blame=self.blame,
        )
        self._driver.is_behind = lambda: self._sync.is_behind
        self._snapshots = Snapshots(self._writer, ports.state, self._clock)
        self._router = self._make_router()
        self._network = self._make_network()
        self._network.on_twin(lambda host, port: self._driver.post(TwinSeen(f"{host}:{port}")))
        self.metrics.read_links(self.peers, lambda: self._network.own_expires_ms)
        self._writer.on_block(self._on_block)

    def _make_maker(self) -> BatchMaker:
        maker = BatchMaker(
            address=self._identity.address,
            sign=self._identity.sign,
            mempool=self._mempool,
            pool=self._pool,
            writer=self._writer,
            clock=self._clock,
            stages=self._stages,
            publish=self._publish,
        )
        maker.resume(resumed_author(self._log_file.recovered, self._clock.now_ms()))
        return maker

    def _make_driver(self) -> ConsensusDriver:
        parameters = self._genesis.parameters
        core = Core(
            Timeouts(
                propose_ms=parameters.propose_timeout_ms,
                prevote_ms=parameters.prevote_timeout_ms,
                precommit_ms=parameters.precommit_timeout_ms,
                delta_ms=parameters.timeout_delta_ms,
            )
        )
        self._candidates = Candidates(self._writer, self._pool, parameters)
        parts = Collaborators(
            writer=self._writer,
            candidates=self._candidates,
            pool=self._pool,
            maker=self._maker,
            links=self,
            clock=self._clock,
            stages=self._stages,
            metrics=self.metrics,
            sign=self._identity.sign,
            accuse=self._evidence.keep,
            space=self._space,
        )
        return ConsensusDriver(core, self._log_file, parts, self._identity.address)

    def _make_router(self) -> Router:
        return Router(
            driver=self._driver,
            writer=self._writer,
            candidates=self._candidates,
            pool=self._pool,
            admission=self._admission,
            sync=self._sync,
            snapshots=self._snapshots,
            clock=self._clock,
            stages=self._stages,
            metrics=self.metrics,
            blame=self.blame,
        )

    def _make_network(self) -> Network:
        def voters() -> list[Address]:
            return [Address(item.address) for item in self._writer.validators.members]

        return make_network(
            self._config.p2p,
            self._executor.chain,
            self._identity,
            self._members,
            self._ports,
            self._router,
            Standing(lambda: self.height, voters),
        )

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover, listen, take part; until cancelled.

        Raises: UnavailableError when a port is taken; InvariantError when a promise is broken.
        """
        try:
            await self._writer.recover(self._log_file, self._driver.end_height)
            async with trio.open_nursery() as nursery:
                await nursery.start(self._network.run)
                nursery.start_soon(self._driver.run)
                nursery.start_soon(self._sync.run)
                nursery.start_soon(self._router.verify_batches)
                nursery.start_soon(self._maker.run, self._log_file)
                nursery.start_soon(self._evidence.run, self.submit, lambda: self._maker.is_author)
                nursery.start_soon(self._expire)
                nursery.start_soon(self._scrub.run)
                nursery.start_soon(self._pruning.run)
                nursery.start_soon(self._watch_disk)
                _log.info("node_ready", node=self._identity.name, height=self.height)
                task_status.started()
        finally:
            self._close()

    def _close(self) -> None:
        self._log_file.close()
        self._snapshots.close()
        self._ports.close()

    async def _watch_disk(self) -> None:
        await self._space.watch(
            self._config.node.data_dir,
            lambda: self._driver.post(SpaceReturned()),
            self._ports.usage,
        )

    async def _expire(self) -> None:
        """Once a second, forget what can no longer be executed."""
        while True:
            await trio.sleep(1)
            for expired in self._mempool.expire(self._executor.state_tip.time):
                self.metrics.refused.labels(Reason.EXPIRED.value).inc(expired)
                await trio.lowlevel.checkpoint()
            self._pool.expire(self._executor.state_tip.time, self._candidates.ordered)
            self.metrics.pool.set(len(self._mempool))

    # ---- Links: what the driver needs of the network ----

    def broadcast(self, kind: FrameKind, payload: bytes) -> int:
        """Queue a frame for every linked node."""
        return self._network.broadcast(kind, payload)

    def send(self, address: Address, kind: FrameKind, payload: bytes) -> bool:
        """Queue a frame for one node."""
        return self._network.send(address, kind, payload)

    def blame(self, address: Address, offence: Offence, detail: str) -> None:
        """Count an offence of a node, which may lose its link for it."""
        self.metrics.offences.labels(offence.value).inc()
        self._network.blame(address, offence, detail)

    def _publish(self, batch: Batch) -> None:
        self._network.broadcast(FrameKind.BATCH, batch.wire)
        self._driver.post(BatchArrived())

    def _on_block(self, block: DecidedBlock) -> None:
        """After a block is executed and durable: free what it held, tell who waits."""
        count = 0
        for batch in block.batches:
            count += len(batch.transactions)
            self._mempool.remove(batch.transactions)
        self._pool.remove([batch.digest for batch in block.batches])
        self.metrics.height.set(block.header.height)
        self.metrics.transactions.inc(count)
        self._next_block.set()
        self._next_block = trio.Event()
        if self._waiting:
            self._wake_waiting()
        if self._members.changes_now():
            self._network.enforce_admission()
            self._maker.notify()

    def _wake_waiting(self) -> None:
        done = [item for item in self._waiting if self._queries.located(item)]
        for transaction_id in done:
            for event in self._waiting.pop(transaction_id):
                event.set()

    # ---- NodeService ----

    @property
    def chain(self) -> Chain:
        """Which chain this node serves."""
        return self._executor.chain

    @property
    def genesis(self) -> Genesis:
        """The genesis record."""
        return self._genesis

    @property
    def height(self) -> int:
        """The newest executed and durable height."""
        return self._executor.state_tip.height

    @property
    def blocks(self) -> BlockStore:
        """The decided blocks, to be backed up up to `height`."""
        return self._writer.blocks

    def info(self) -> Info:
        """The node and its chain in one look."""
        tip = self._executor.state_tip
        return Info(
            chain_id=self._genesis.chain_name,
            genesis_hash=self.chain.genesis_hash,
            group=self.chain.group,
            version=version("kanglian"),
            protocol_version=PROTOCOL_VERSION,
            node=self._identity.name,
            height=tip.height,
            latest_block_hash=tip.block_hash,
            latest_block_time=tip.time,
            transactions=tip.transactions,
            operations=tip.operations,
            pending=len(self._mempool),
            masters=len(self._writer.validators.members),
            mode="flat",
            peers=len(self._network.peers),
            syncing=self._sync.is_behind,
            lowest=self._writer.blocks.first,
        )

    def peers(self) -> tuple[PeerView, ...]:
        """All nodes of the allow-list but this one."""
        links = {link.address: link for link in self._network.peers}
        views: list[PeerView] = []
        for address in self._members.addresses():
            link = links.get(address)
            if address == self._identity.address:
                continue
            views.append(
                PeerView(
                    name=self._members.name(address),
                    address=encode_text(AddressKind.NODE, address),
                    role=self._members.role(address),
                    connected=link is not None,
                    endpoint="" if link is None else f"{link.host}:{link.port}",
                    direction="" if link is None else str(link.direction),
                    height=self._sync.tip_of(address),
                    round_trip_ms=None if link is None else link.round_trip_ms,
                    bytes_in=0 if link is None else link.received_bytes,
                    bytes_out=0 if link is None else link.sent_bytes,
                    score=self._network.score(address),
                    standing=str(self._network.standing(address)),
                    throttled_ms=0 if link is None else link.throttled_ms,
                    certificate_expires=None if link is None else link.certificate_expires_ms,
                )
            )
        return tuple(views)

    def consensus(self) -> ConsensusView:
        """Where consensus stands."""
        status = self._driver.core.status
        validators = self._writer.validators
        ordered = [self._members.name(Address(item.address)) for item in validators.members]
        proposers = self._writer.proposers()
        proposer = proposers[(self._driver.height + status.round) % len(proposers)]
        excluded = [
            name for index, name in enumerate(ordered) if ValidatorIndex(index) not in proposers
        ]
        return ConsensusView(
            height=self._driver.height,
            round=status.round,
            step=status.step.name.lower(),
            validators=tuple(ordered),
            quorum=validators.quorum,
            proposer=ordered[proposer],
            demoted=tuple(excluded),
            voting=self._driver.is_voting,
        )

    async def submit(
        self, wires: Sequence[bytes], client: str = ""
    ) -> list[TransactionId | Exception]:
        """Admit transactions of a client."""
        if self._sync.is_behind:
            refusal = UnavailableError("this node is catching up; use another or try again soon")
            return [refusal for _ in wires]
        if not self._maker.is_author:
            refusal = UnavailableError("this node is no master now; send to one that is")
            return [refusal for _ in wires]
        if (full := self._space.refusal) is not None:
            return [full for _ in wires]
        answers = await self._admission.admit(wires, client)
        for answer in answers:
            if isinstance(answer, Rejected):
                self.metrics.refused.labels(answer.reason.value).inc()
        self._maker.notify()
        return answers

    async def committed(self, transaction_id: TransactionId) -> Committed | None:
        """The first result of an id."""
        return await self._queries.committed(transaction_id)

    async def wait_committed(self, transaction_id: TransactionId) -> Committed:
        """Wait until the id is executed."""
        while not self._queries.located(transaction_id):
            event = trio.Event()
            events = self._waiting.setdefault(transaction_id, [])
            events.append(event)
            try:
                await event.wait()
            finally:
                if not event.is_set():
                    events.remove(event)
                    if not events:
                        del self._waiting[transaction_id]
        found = await self._queries.committed(transaction_id)
        invariant(found is not None, "what is located was committed")
        return found  # pyright: ignore[reportReturnType]  # the line above has checked it

    async def wait_height(self, height: int) -> None:
        """Wait until the block at `height` is executed."""
        while self.height < height:
            await self._next_block.wait()

    def is_pending(self, transaction_id: TransactionId) -> bool:
        """Whether the id waits here for a block."""
        return transaction_id in self._mempool

    async def transaction(self, any_id: bytes) -> FoundTransaction | None:
        """A transaction by its id or an operation's id."""
        return await self._queries.transaction(any_id)

    async def block(self, height: int) -> FoundBlock | None:
        """A stored block."""
        return await self._queries.block(height)

    def height_of(self, block_hash: bytes) -> int | None:
        """The height of a block hash."""
        return self._writer.blocks.height_of(block_hash)

    async def proof(self, any_id: bytes) -> Proof | None:
        """The proof of a transaction or operation."""
        return await self._queries.proof(any_id)

    @property
    def light(self) -> LightQueries:
        """What clients that keep no blocks ask."""
        return self._light

    def method(self, module: str, contract: str, name: str) -> Method | None:
        """A method of a contract."""
        return self._executor.engine.method(module, contract, name)

    def read(
        self, module: str, level: int, contract: str, view: Method, arguments: Record
    ) -> Record:
        """Run a reading method."""
        return self._queries.read(module, level, contract, view, arguments)
