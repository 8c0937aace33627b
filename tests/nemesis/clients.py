"""Stubborn clients that remember every answer: registrations, envelopes, supersedes, bad input.

What it decides: whether what clients are told holds together. A transaction is sent again, the same
bytes to another node, until some node names its height; from then on every node must tell the same.
"""

import itertools
import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from ledger.codec import encode
from ledger.data_index import Supersession
from ledger.errors import UnavailableError
from ledger.transaction import Call, parse_transaction
from rpc.client import Client, RpcFailure
from tests.e2e.running import registration

from .cluster import CLOCK, Cluster

LATER = {"unavailable", "pool_full", "sender_limit", "busy", "overloaded", "too_many_connections"}
CALL = 10
"""Transactions of one request."""
WAITING = 100
"""So many unanswered ones, and a client creates no more."""
WAIT_MS = 1_500
TIMEOUT_MS = 6_000
VALID_FOR_MS = 590_000
SETTLE_S = 60


@dataclass
class Account:
    """What all clients together know; the audit holds it against the chain."""

    sent: dict[str, None] = field(default_factory=dict)
    acknowledged: dict[str, tuple[int, str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Mix:
    """How often, of a hundred turns, a client does something else than register."""

    envelopes: int = 10
    supersedes: int = 0
    bad_inputs: int = 5
    reads: int = 10
    repeats: int = 10
    valid_for_ms: int = VALID_FOR_MS


class Load:
    """Clients in threads of their own, until `finish`."""

    def __init__(self, cluster: Cluster, rate: float, mix: Mix, seed: int, clients: int = 3):
        self.account = Account()
        self._stopping = threading.Event()
        self._numbers = itertools.count(1)
        self._clients = [
            _Stubborn(self, cluster, rate / clients, mix, random.Random(f"{seed}/{index}"))
            for index in range(clients)
        ]
        self._threads = [threading.Thread(target=one.run, daemon=True) for one in self._clients]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=TIMEOUT_MS / 1_000 + 2)

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def next_number(self) -> int:
        return next(self._numbers)

    def pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def finish(self) -> None:
        """Create nothing new, and wait until everything sent is answered for good."""
        self._stopping.set()
        deadline = time.monotonic() + SETTLE_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        left = sum(len(one.waiting) for one in self._clients)
        if left or any(thread.is_alive() for thread in self._threads):
            self.account.wrong.append(f"{left} transactions unanswered {SETTLE_S} s after the end")


class _Stubborn:
    """One client."""

    def __init__(
        self, load: Load, cluster: Cluster, rate: float, mix: Mix, generator: random.Random
    ) -> None:
        self.waiting: dict[str, bytes] = {}
        self._load = load
        self._account = load.account
        self._chain = cluster.chain
        self._signer = cluster.signer
        self._pause_s = CALL / rate
        self._mix = mix
        self._random = generator
        self._clients = [Client(node.url, cluster.genesis, TIMEOUT_MS) for node in cluster.nodes]
        self._doomed: deque[str] = deque()
        self._recent: deque[str] = deque(maxlen=2_000)

    def run(self) -> None:
        due = time.monotonic()
        deadline = None
        while self.waiting or not self._load.is_stopping:
            if self._load.is_stopping:
                deadline = deadline or time.monotonic() + SETTLE_S
                if time.monotonic() > deadline:
                    break
            elif len(self.waiting) < WAITING and time.monotonic() >= due:
                due = max(due + self._pause_s, time.monotonic() - self._pause_s)
                self._create()
            if self.waiting:
                self._ask(list(self.waiting.values())[:WAITING])
            elif not self._load.is_stopping:
                self._load.pause(max(0.0, due - time.monotonic()))
            self._roam()
        for client in self._clients:
            client.close()

    def _chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent

    def _create(self) -> None:
        for _ in range(CALL):
            name = self._keep(self._register())
            if self._chance(self._mix.supersedes):
                self._doomed.append(name)
        if self._chance(self._mix.envelopes):
            self._keep(self._envelope())
        if self._doomed and self._doomed[0] in self._account.acknowledged:
            self._supersede(self._doomed.popleft())

    def _keep(self, wire: bytes) -> str:
        name = parse_transaction(wire, self._chain).id.hex()
        self.waiting[name] = wire
        self._account.sent[name] = None
        return name

    def _register(self) -> bytes:
        arguments = registration(self._load.next_number())
        return self._signer.call(
            "emr",
            0,
            "data_index",
            "register",
            arguments,
            now_ms=CLOCK.now_ms(),
            valid_for_ms=self._mix.valid_for_ms,
        )

    def _envelope(self) -> bytes:
        calls = [
            Call("data_index", "register", encode(registration(self._load.next_number(), 1)))
            for _ in range(5)
        ]
        now = CLOCK.now_ms()
        valid_for_ms = self._mix.valid_for_ms
        return self._signer.envelope("archive", 1, calls, now_ms=now, valid_for_ms=valid_for_ms)

    def _supersede(self, name: str) -> None:
        """Delete an earlier registration: the one write here whose success depends on the state."""
        found = self._receipt(self._random.choice(self._clients), name)
        if found is None:
            return
        sequence = found["receipt"]["outputs"]["sequence"]
        arguments = Supersession(bytes.fromhex(name), sequence, 2, None)
        wire = self._signer.call(
            "emr",
            0,
            "data_index",
            "supersede",
            arguments,
            now_ms=CLOCK.now_ms(),
            valid_for_ms=self._mix.valid_for_ms,
        )
        self._keep(wire)

    def _ask(self, wires: list[bytes]) -> None:
        try:
            client = self._random.choice(self._clients)
            items = client.send_transactions(wires, "commit", WAIT_MS)
        except UnavailableError:
            self._load.pause(0.05)
            return
        except RpcFailure as failure:
            if failure.kind not in LATER:
                self._account.wrong.append(f"a request was refused: {failure}")
            self._load.pause(0.05)
            return
        if any("error" in item for item in items):
            time.sleep(0.05)
        for item in items:
            self._take(item)

    def _take(self, item: dict) -> None:
        if "error" in item:
            if item["error"]["kind"] not in LATER:
                self._account.wrong.append(f"a good transaction was refused: {item}")
            return
        if item.get("block_height") is None:
            return
        name, told = item["id"], (item["block_height"], item["status"])
        if told[1] != "OK":
            self._account.wrong.append(f"{name} became {told}")
        if self._account.acknowledged.setdefault(name, told) != told:
            earlier = self._account.acknowledged[name]
            self._account.wrong.append(f"{name} was told as {earlier} and later as {told}")
        wire = self.waiting.pop(name, None)
        if wire is not None:
            self._remember(name, wire)

    def _remember(self, name: str, wire: bytes) -> None:
        self._recent.append(name)
        if self._chance(self._mix.repeats):
            # The answer is lost, as it were: the same bytes go to another node once more.
            self._ask([wire])

    def _roam(self) -> None:
        if self._chance(self._mix.bad_inputs):
            self._send_bad()
        if self._chance(self._mix.reads) and self._recent:
            self._receipt(self._random.choice(self._clients), self._random.choice(self._recent))

    def _receipt(self, client: Client, name: str) -> dict | None:
        """Ask some node for an acknowledged transaction; it must know it, or be behind."""
        height = self._account.acknowledged[name][0]
        try:
            found = client.get_transaction_receipt(name)
        except UnavailableError:
            return None
        except RpcFailure as failure:
            if failure.kind == "not_found" and failure.data["height"] >= height:
                text = f"a node at {failure.data['height']} does not know {name} of {height}"
                self._account.wrong.append(text)
            return None
        if found["block_height"] != height:
            text = f"{name} of height {height} is told with {found['block_height']}"
            self._account.wrong.append(text)
        return found if "receipt" in found else None

    def _send_bad(self) -> None:
        """Bytes that must be refused; what parses is remembered as never to be ordered."""
        wire = bytearray(self._register())
        if self._chance(50):
            wire[len(wire) - 10] ^= 1  # within the signature
            name = parse_transaction(bytes(wire), self._chain).id.hex()
            self._account.refused[name] = "bad_signature"
        else:
            wire[self._random.randrange(4)] ^= 0x55
            name = ""
        try:
            (item,) = self._random.choice(self._clients).send_transactions([bytes(wire)])
        except (UnavailableError, RpcFailure):
            return
        if "error" not in item:
            self._account.wrong.append(f"bad input was taken: {item} ({name or 'no transaction'})")
