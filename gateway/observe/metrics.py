"""Metrics for Prometheus, in a registry of their own: two servers in one process do not mix theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from primary.postgres import Primary
from replica.follower import Follower
from replica.store import Store

CONTENT_TYPE = CONTENT_TYPE_LATEST

# A read takes a millisecond, the first build of a large replica seconds.
_REQUEST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """What is counted. Labels hold route templates and never paths or users: their number is bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "tidepool_http_requests",
            "Requests answered.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._request_s = Histogram(
            "tidepool_http_request_duration_seconds",
            "Time from a request's arrival to its last byte.",
            ["route", "method"],
            buckets=_REQUEST_S,
            registry=self.registry,
        )
        self._seen: dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered. Every request passes here, so labels are looked up only once."""
        key = (route, method, status)
        seen = self._seen.get(key)
        if seen is None:
            counter = self._requests.labels(route, method, str(status))
            seen = self._seen[key] = (counter.inc, self._request_s.labels(route, method).observe)
        seen[0]()
        seen[1](seconds)

    def watch(self, store: Store, primary: Primary, follower: Follower) -> None:
        """Show what the store has done and holds, who is followed, and whether the primary is there."""
        self.registry.register(_State(store, primary, follower))

    def text(self) -> bytes:
        """Write all of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _State(Collector):
    """What others count already, read when it is asked for."""

    def __init__(self, store: Store, primary: Primary, follower: Follower) -> None:
        self._store = store
        self._primary = primary
        self._follower = follower

    def collect(self) -> Iterator[Metric]:
        counts = self._store.counts()
        yield CounterMetricFamily("tidepool_syncs", "Syncs of replicas.", counts.syncs)
        yield CounterMetricFamily("tidepool_rebuilds", "Replicas built, the first time included.", counts.rebuilds)
        yield CounterMetricFamily("tidepool_doubts", "Replicas found unfit and set aside.", counts.doubts)
        yield GaugeMetricFamily("tidepool_open_replicas", "Replicas that are open.", counts.open_replicas)
        following = self._follower.counts()
        yield GaugeMetricFamily("tidepool_followed_users", "Users whose replicas are kept current.", following.followed)
        yield GaugeMetricFamily("tidepool_event_streams", "Event streams that are open.", following.streams)
        yield CounterMetricFamily("tidepool_tail_looks", "Looks at who moved in the primary.", following.looks)
        silent = "Seconds since the tail was heard of last; 0 while nobody is followed."
        yield GaugeMetricFamily("tidepool_tail_silent_seconds", silent, following.silent_s)
        reachable = float(self._primary.reachable)
        yield GaugeMetricFamily("tidepool_primary_reachable", "1 when the primary was there last time.", reachable)
