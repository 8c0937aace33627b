"""A stubborn client: sends registrations, resends the same bytes until a node names a height."""

import threading

from ledger.errors import UnavailableError
from ledger.ids import TransactionId
from ledger.transaction import parse_transaction
from rpc.client import RpcFailure

from .running import CLOCK, RealNetwork

CALL = 20
WAIT_MS = 2_000
VALID_FOR_MS = 590_000
LATER = {"unavailable", "busy", "behind", "pool_full", "sender_limit", "namespace_limit"}


class Load:
    """Registrations in a thread of its own, until `stop`; every one ends acknowledged."""

    def __init__(self, network: RealNetwork, first: int = 1_000) -> None:
        self.acknowledged: dict[str, int] = {}
        self.refused: list[object] = []
        self._network = network
        self._next = first
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def stop(self) -> None:
        """Send nothing new, and wait until everything sent is acknowledged."""
        self._stopping.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), f"transactions stay unanswered; {self.acknowledged}"

    def _run(self) -> None:
        turn = 0
        waiting: dict[TransactionId, bytes] = {}
        deadline_ms = None
        while waiting or not self._stopping.is_set():
            if self._stopping.is_set():
                deadline_ms = deadline_ms or CLOCK.now_ms() + 45_000
                if CLOCK.now_ms() > deadline_ms:
                    self.refused.append(f"{len(waiting)} unanswered; {self._network.stands()}")
                    return
            if not waiting:
                waiting = self._fresh()
            turn += 1
            name = self._network.names[turn % len(self._network.names)]
            for item in self._ask(name, list(waiting.values())):
                self._take(item, waiting)

    def _fresh(self) -> dict[TransactionId, bytes]:
        wires = [
            self._network.registration(self._next + index, valid_for_ms=VALID_FOR_MS)
            for index in range(CALL)
        ]
        self._next += CALL
        chain = self._network.signer.chain
        return {parse_transaction(wire, chain).id: wire for wire in wires}

    def _ask(self, name: str, wires: list[bytes]) -> list[dict]:
        try:
            with self._network.client(name, timeout_ms=10_000) as client:
                return client.send_transactions(wires, "commit", WAIT_MS)
        except UnavailableError:
            self._stopping.wait(0.05)
        except RpcFailure as failure:
            if failure.kind not in LATER:
                self.refused.append(failure)
        return []

    def _take(self, item: dict, waiting: dict[TransactionId, bytes]) -> None:
        if "error" in item:
            if item["error"]["kind"] not in LATER:
                self.refused.append(item)
            return
        if item.get("block_height") is None:
            return
        if item["status"] != "OK":
            self.refused.append(item)
        self.acknowledged[item["id"]] = item["block_height"]
        del waiting[TransactionId(bytes.fromhex(item["id"]))]
