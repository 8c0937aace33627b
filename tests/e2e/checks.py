"""What must hold of a network whatever happened to it."""

from .load import Load
from .running import RealNetwork


def check_nothing_lost(network: RealNetwork, load: Load, earlier: int = 0) -> None:
    """Every node tells each acknowledged transaction as it was told to the client, and no other.

    A registration answers its position in the index log, so positions 0, 1, 2 … without a gap mean
    that nothing else was executed and nothing twice. `earlier` registrations came before the load.
    """
    network.agree()
    assert load.refused == []
    for name in network.names:
        with network.client(name) as client:
            found = {one: client.get_transaction_receipt(one) for one in load.acknowledged}
        heights = {one: receipt["block_height"] for one, receipt in found.items()}
        assert heights == load.acknowledged, name
        assert {receipt["receipt"]["status"] for receipt in found.values()} <= {"OK"}
        sequences = sorted(receipt["receipt"]["outputs"]["sequence"] for receipt in found.values())
        assert sequences == list(range(earlier, earlier + len(load.acknowledged))), name


def check_clean_logs(network: RealNetwork) -> None:
    """No equivocation, no quarantine, no traceback, no broken promise."""
    for name in network.names:
        assert network.metric(name, "kanglian_equivocations_total") == 0, name
        log = network.log(name).lower()
        found = [
            line
            for line in log.splitlines()
            if any(
                word in line
                for word in ("quarantine", "traceback", "mistake in", "equivocation", "banned")
            )
        ]
        assert found == [], name
