"""All metrics of a node, in one file; units are base units, labels are bounded.

The registry belongs to the node object, so that two nodes in one process (tests) do not share it.
"""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from node.service import PeerView
from node.stages import Stage, StageClock


class Metrics:
    """Counters and gauges; `render` gives the text that GET /metrics answers."""

    def __init__(self, stages: StageClock) -> None:
        self._registry = CollectorRegistry()
        self._peers: Callable[[], Sequence[PeerView]] = tuple
        self._own_expires_ms: Callable[[], int | None] = lambda: None
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
        self.offences = Counter(
            "kanglian_peer_offences", "Offences of peers by kind", ["offence"], registry=registry
        )
        self._scores = Gauge(
            "kanglian_peer_score", "0 or less; -100 bans", ["node"], registry=registry
        )
        self._banned = Gauge("kanglian_peers_banned", "Banned nodes", registry=registry)
        self._demoted = Gauge("kanglian_peers_demoted", "Demoted nodes", registry=registry)
        self._throttled = Gauge(
            "kanglian_peer_throttled_seconds",
            "Not read for its budgets",
            ["node"],
            registry=registry,
        )
        self._expiry = Gauge(
            "kanglian_certificate_expiry_seconds",
            "When a TLS certificate ends, in Unix time",
            ["node"],
            registry=registry,
        )
        self._stage_seconds = Gauge(
            "kanglian_stage_cpu_seconds", "CPU time by stage", ["stage"], registry=registry
        )

    def read_links(
        self,
        peers: Callable[[], Sequence[PeerView]],
        own_expires_ms: Callable[[], int | None],
    ) -> None:
        """Where to read what is known of the other nodes, and when certificates end."""
        self._peers, self._own_expires_ms = peers, own_expires_ms

    def _show_links(self) -> None:
        peers, own_expires_ms = self._peers(), self._own_expires_ms()
        for peer in peers:
            self._scores.labels(peer.name).set(peer.score)
            self._throttled.labels(peer.name).set(peer.throttled_ms / 1_000)
            if peer.certificate_expires is not None:
                self._expiry.labels(peer.name).set(peer.certificate_expires / 1_000)
        self._banned.set(sum(peer.standing == "banned" for peer in peers))
        self._demoted.set(sum(peer.standing == "demoted" for peer in peers))
        if own_expires_ms is not None:
            self._expiry.labels("self").set(own_expires_ms / 1_000)

    def render(self) -> bytes:
        """The Prometheus text format."""
        self._show_links()
        for stage in Stage:
            seconds = self._stages.nanoseconds[stage] / 1e9
            self._stage_seconds.labels(stage.value).set(seconds)
        return generate_latest(self._registry)
