"""A chain whose members change twice, with registrations of every kind in it."""

from ledger.transaction import Call
from tests.unit.node_core.chains import LocalChain, make_transaction, register
from tests.unit.node_core.test_membership import JOIN, LEAVE, govern

BROKEN = Call("data_index", "register", b"\xc0")


class World:
    """Decided blocks: one, an envelope, a failure, a change, one, another change, one, an end."""

    def __init__(self) -> None:
        self.local = LocalChain()
        self.single = self._run(register(1), 1)
        self.envelope = self._run((register(2), register(3)), 2)
        self.mixed = self._run((register(4), BROKEN), 3)
        self.failed = self._run(BROKEN, 4)
        self.joined = govern(self.local, 500, JOIN)
        self.middle = self._run(register(5), 5)
        self.left = govern(self.local, 600, LEAVE)
        self.late = self._run(register(6, 1), 6)
        for number in range(7, 12):
            self._run(register(number), number)
        self.local.decide()

    def _run(self, calls, nonce):
        made = make_transaction(calls, nonce, is_signed=True)
        self.local.run(made)
        return made
