"""A chain whose node makes documents of every kind: one block for each case that proofs have.

Documents are made while the chain grows, because a state can be proved for some heights only.
"""

import trio

from ledger.codec import encode
from ledger.data_index import Supersession
from ledger.proofs.completeness import CompletenessFact
from ledger.proofs.family import document_json
from ledger.proofs.log import LogFact
from ledger.proofs.receipt import EventFact, ReceiptFact
from ledger.proofs.state import Collection, ValueFact
from ledger.state import LogEntry, namespace_prefix
from ledger.state_root import BLOCKS_LOG
from ledger.transaction import Call, operation_ids
from node.proofs import Proofs
from node.queries import Queries
from tests.unit.ledger.worlds import SUITE

from .chains import LocalChain, make_batch, make_transaction, register
from .test_membership import JOIN, LEAVE, govern

SUPERSEDED = Collection("emr", 0, "data_index", "superseded")
INDEX = Collection("emr", 0, "data_index", "index")
BROKEN = Call("data_index", "register", b"\xc0")


def signed(calls, nonce, **changes):
    return make_transaction(calls, nonce, is_signed=True, **changes)


class ProofWorld:
    """The chain, its node, and documents by name."""

    def __init__(self):
        self.chain = LocalChain()
        self.queries = Queries(self.chain.writer)
        self.proofs = Proofs(self.queries)
        self.documents = {}
        self.nonce = 0
        self._quiet()
        self._busy()
        self._changing()

    def __getitem__(self, name):
        """The text of a document."""
        return self.documents[name]

    @property
    def height(self):
        return self.chain.tip.height

    def register(self, count=1, **changes):
        """One block that registers so many indexes, each in a transaction."""
        made = []
        for _ in range(count):
            self.nonce += 1
            made.append(signed(register(self.nonce), self.nonce, **changes))
        self.chain.run(*made)
        return made

    def keep(self, name, document):
        """Keep a document, or what a coroutine function of arguments makes."""
        assert name not in self.documents
        self.documents[name] = document_json(document)

    def ask(self, name, question, *arguments):
        """Keep the document that the node makes."""
        self.keep(name, trio.run(question, *arguments))

    def _quiet(self):
        """Before anything stands in a namespace."""
        self.chain.decide()
        self.chain.decide()
        self.ask("state of nothing", self.proofs.state, SUPERSEDED, bytes(32), None)
        self.ask("log of nothing", self.proofs.log, INDEX, (0, 0), None)
        self.ask("completeness of nothing", self.proofs.completeness, "emr", 0, 1, 1, None)

    def _busy(self):
        """Values, logs, receipts of several statuses, three namespaces, empty blocks between."""
        self.first = self.register()[0]
        for count in (1, 3, 1):
            self.chain.decide()
            self.register(count)
            self.register(module="trial", level=1)
        self.many = signed((register(900), BROKEN, register(901)), 900)
        self.strange = signed(register(902), 902, module="nowhere")
        batches = (
            make_batch([self.many, signed(register(903), 903), self.strange], sequence=900),
            make_batch([signed(register(904), 904, module="trial")], sequence=901, author=1),
        )
        self.chain.decide(*batches)
        self.busy_height = self.height
        self.chain.run(self._supersede(self.first))
        self.superseded_height = self.height
        self.register(module="trial", level=1)
        self.chain.decide()
        self._states()
        self._logs()
        self._ranges()
        self._receipts()
        self._pasts()

    def _supersede(self, old):
        arguments = Supersession(old.id, 0, 2, None)
        return signed(Call("data_index", "supersede", encode(arguments)), 950)

    def _states(self):
        before = self.superseded_height - 1
        self.ask("state before", self.proofs.state, SUPERSEDED, self.first.id, before)
        self.ask("state after", self.proofs.state, SUPERSEDED, self.first.id, None)
        self.ask("state of another key", self.proofs.state, SUPERSEDED, bytes(32), None)
        nowhere = Collection("nowhere", 0, "data_index", "superseded")
        self.keep(
            "state of no namespace", trio.run(self.proofs.state, nowhere, self.first.id, None)
        )
        accounts = Collection("system", 0, "accounts", "account")
        self.ask("state of an account", self.proofs.state, accounts, bytes(32), None)

    def _logs(self):
        self.entries = self.chain.state.log_count(b"emr\0\0data_index\0index\0")
        for first, stop in ((0, 0), (0, 1), (3, 4), (2, 6), (0, self.entries)):
            self.ask(f"log {first}-{stop}", self.proofs.log, INDEX, (first, stop), None)
        last = self.entries - 1
        self.ask("log last", self.proofs.log, INDEX, (last, last + 1), None)
        before = self.busy_height - 1
        self.ask("log before", self.proofs.log, INDEX, (1, 3), before)

    def _ranges(self):
        top = self.height - 1
        shared = [int.from_bytes(entry.key, "big") for entry in self.log_of_blocks(b"emr\0\0")]
        self.emr_heights = shared
        for start, stop in (
            (1, 1),
            (1, 2),
            (1, top),
            (top, top),
            (shared[1], shared[1]),
            (shared[1] + 1, shared[2] - 1),
            (shared[1], shared[3]),
            (shared[0], shared[0]),
            (shared[-1], shared[-1]),
        ):
            if start <= stop:
                name = f"completeness {start}-{stop}"
                if name not in self.documents:
                    self.ask(name, self.proofs.completeness, "emr", 0, start, stop, None)
        self.ask("completeness of trial", self.proofs.completeness, "trial", 1, 1, top, None)
        self.ask("completeness of nobody", self.proofs.completeness, "emr", 3, 1, top, None)

    def log_of_blocks(self, prefix) -> list[LogEntry]:
        state, log = self.chain.state, prefix + BLOCKS_LOG
        return [state.log_entry(log, index) for index in range(state.log_count(log))]

    def _receipts(self):
        ids = operation_ids(self.many, SUITE)
        for index, name in enumerate(("OK", "BAD_ARGUMENTS", "OK again")):
            self.ask(f"receipt {name}", self.proofs.receipt, ids[index])
            self.ask(f"transaction {name}", self.proofs.transaction, ids[index])
        self.ask("receipt of nowhere", self.proofs.receipt, self.strange.id)
        self.ask("transaction alone", self.proofs.transaction, self.first.id)
        self.ask("event", self.proofs.event, ids[2], 0)

    def _pasts(self):
        top = self.height
        for height in (1, 2, 5, top - 1):
            self.ask(f"header {height}", self.proofs.header, height, None)
        self.ask("header under an older one", self.proofs.header, 3, 7)
        for size in (1, 2, 3, 8, top - 1, top):
            self.ask(f"history {size}", self.proofs.history, size, None)

    def _changing(self):
        """Members come and go: the same kinds, led to by changes."""
        govern(self.chain, 500, JOIN)
        self.nonce = 1_000
        self.register(2)
        self.chain.decide()
        self.keep(
            "state after one change", trio.run(self.proofs.state, SUPERSEDED, self.first.id, None)
        )
        govern(self.chain, 600, LEAVE)
        (self.last,) = self.register()
        for _ in range(3):
            self.chain.decide()
        top = self.height
        self.keep(
            "state after two changes", trio.run(self.proofs.state, SUPERSEDED, self.first.id, None)
        )
        self.ask("log after two changes", self.proofs.log, INDEX, (4, 7), None)
        self.ask(
            "completeness after two changes", self.proofs.completeness, "emr", 0, 4, top - 1, None
        )
        self.ask("event after two changes", self.proofs.event, self.last.id, 0)
        self.ask("transaction after two changes", self.proofs.transaction, self.last.id)
        self.ask("header under two changes", self.proofs.header, 4, None)
        self.ask("history under two changes", self.proofs.history, 6, None)


class Truth:
    """What the chain of a world says, read from what each block wrote and not from any tree."""

    def __init__(self, world: ProofWorld) -> None:
        self.values = {}
        self.logs = {}
        state = world.chain.state
        self.results = lambda height: {
            (item.module, item.level): item.receipts for item in state.receipts(height)
        }
        for height in range(world.height + 1):
            for key, value in state.writes(height).maps:
                self.values.setdefault(key, []).append((height, value))
            for log, first in state.writes(height).logs:
                entries = state.log_write(log, first).entries
                self.logs.setdefault(log, []).extend((height, entry) for entry in entries)

    def holds(self, fact) -> bool:
        """Whether a statement about state, receipts or events is true; no other is."""
        match fact:
            case ValueFact():
                key = fact.collection.prefix + fact.collection.path + fact.key
                values = [value for at, value in self.values.get(key, ()) if at <= fact.height]
                return fact.value == (values[-1] if values else None)
            case LogFact():
                log = fact.collection.prefix + fact.collection.path
                entries = self._entries(log, fact.height)
                shown = entries[fact.first : fact.first + len(fact.entries)]
                last = entries[-1][0] if entries else 0
                found = [entry for _, entry in shown]
                return (fact.count, fact.last_height) == (len(entries), last) and found == list(
                    fact.entries
                )
            case CompletenessFact():
                log = namespace_prefix(fact.module, fact.level) + BLOCKS_LOG
                height = fact.certified.header.height - 1
                data = [
                    entry.data
                    for at, entry in self._entries(log, height)
                    if fact.start <= at <= fact.stop
                ]
                return [encode(block) for block in fact.blocks] == data
            case ReceiptFact():
                results = self.results(fact.height)
                items = results.get((fact.module, fact.level), ())
                return items[fact.index] == encode(fact.receipt) and len(items) == fact.count
            case EventFact():
                return self.holds(fact.receipt) and (
                    fact.receipt.receipt.events[fact.index] == fact.event
                )
            case _:
                return False

    def _entries(self, log: bytes, height: int):
        return [item for item in self.logs.get(log, ()) if item[0] <= height]
