"""All metrics of a node, in one file; units are base units, labels are bounded.

The registry belongs to the node object, so that two nodes in one process (tests) do not share it.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from node.stages import Stage, StageClock


class Metrics:
    """Counters and gauges; `render` gives the text that GET /metrics answers."""

    def __init__(self, stages: StageClock) -> None:
        self._registry = CollectorRegistry()
        self._stages = stages
        registry = self._registry
        self.height = Gauge("kanglian_height", "Newest executed height", registry=registry)
        self.peers = Gauge("kanglian_peers", "Connected peers", registry=registry)
        self.pool = Gauge("kanglian_pool_transactions", "Transactions pending", registry=registry)
        self.transactions = Counter(
            "kanglian_transactions", "Executed transactions", registry=registry
        )
        self.rounds = Counter(
            "kanglian_consensus_rounds", "Rounds beyond the first of a height", registry=registry
        )
        self.refused = Counter(
            "kanglian_refused", "Refused items by reason", ["reason"], registry=registry
        )
        self.dropped = Counter(
            "kanglian_dropped_messages", "Consensus messages of a flood", registry=registry
        )
        self.accused = Counter(
            "kanglian_equivocations", "Proven equivocations of validators", registry=registry
        )
        self.scrubbed = Counter(
            "kanglian_scrubbed_heights", "Heights whose records were checked", registry=registry
        )
        self._stage_seconds = Gauge(
            "kanglian_stage_cpu_seconds", "CPU time by stage", ["stage"], registry=registry
        )

    def render(self) -> bytes:
        """The Prometheus text format."""
        for stage in Stage:
            seconds = self._stages.nanoseconds[stage] / 1e9
            self._stage_seconds.labels(stage.value).set(seconds)
        return generate_latest(self._registry)
