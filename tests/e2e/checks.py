"""What must hold of a network whatever happened to it."""

from .running import RealNetwork


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
