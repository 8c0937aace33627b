"""The price of bad signatures: who sends many is refused before the next one is checked.

A signature is the one check that costs a client nothing and a node dozens of microseconds. Good
ones are bounded by the room of the pool; each bad one is charged to the address it came from, and
to all addresses together. The account that a transaction names is never charged: anybody can name
it. Without a debt nobody is refused, however much others fail.
Source: research consensus-reliability section 6.1; docs/decisions/0027-admission.md.
"""

from ledger.errors import Reason, Rejected
from node import limits
from node.clock import Clock


class _Debt:
    """Failures not forgiven yet, in thousandths, as of a moment."""

    __slots__ = ("since_ms", "thousandths")

    def __init__(self, now_ms: int) -> None:
        self.thousandths = 0
        self.since_ms = now_ms

    def settle(self, now_ms: int, per_second: int) -> int:
        """Failures that are left, begun ones too; a clock that steps back forgives nothing."""
        elapsed = max(0, now_ms - self.since_ms)
        self.since_ms = now_ms
        self.thousandths = max(0, self.thousandths - elapsed * per_second)
        return -(-self.thousandths // 1_000)

    def charge(self, failures: int) -> None:
        """Add failures."""
        self.thousandths += failures * 1_000


class SignatureFailures:
    """Debts by client address, and that of all."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._all = _Debt(clock.now_ms())
        self._clients: dict[str, _Debt] = {}

    def check(self, client: str) -> None:
        """Refuse a client that owes too much.

        Raises: Rejected(RATE_LIMIT) with `retry_after_ms`.
        """
        debt = self._clients.get(client)
        if debt is None:
            return
        now_ms = self._clock.now_ms()
        failures = debt.settle(now_ms, limits.FAILED_SIGNATURES_PER_S)
        if not failures:
            del self._clients[client]
            return
        is_flood = (
            self._all.settle(now_ms, limits.FAILED_SIGNATURES_ALL_PER_S)
            >= limits.FAILED_SIGNATURES_ALL
        )
        allowed = 1 if is_flood else limits.FAILED_SIGNATURES
        if failures >= allowed:
            excess = failures - allowed + 1
            retry_ms = excess * 1_000 // limits.FAILED_SIGNATURES_PER_S
            raise Rejected(Reason.RATE_LIMIT, failed=failures, retry_after_ms=max(1, retry_ms))

    def charge(self, client: str, failures: int) -> None:
        """Note that so many signatures of a client did not hold."""
        now_ms = self._clock.now_ms()
        debt = self._clients.pop(client, None)
        if debt is None:
            debt = _Debt(now_ms)
            if len(self._clients) >= limits.FAILING_CLIENTS:
                # Whoever failed longest ago has been forgiven most.
                del self._clients[next(iter(self._clients))]
        self._clients[client] = debt
        debt.settle(now_ms, limits.FAILED_SIGNATURES_PER_S)
        debt.charge(failures)
        self._all.settle(now_ms, limits.FAILED_SIGNATURES_ALL_PER_S)
        self._all.charge(failures)
