"""Metrics for Prometheus, in a registry of their own: two servers in one process do not mix theirs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sized
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
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
        self._requests = _Requests()
        self.registry.register(self._requests)
        self.request = self._requests.count

    def watch(self, store: Store, primary: Primary, follower: Follower, exports: Sized) -> None:
        """Show what the store has done and holds, who is followed, and whether the primary is there."""
        self.registry.register(_State(store, primary, follower, exports))

    def text(self) -> bytes:
        """Write all of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Timing:
    """The times of one kind of request: how many fell into each bucket, and their sum."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_REQUEST_S) + 1)
        self.sum_s = 0.0


class _Requests(Collector):
    """Counts requests. All of them pass here, from one thread, so the library's own counters and locks are not used."""

    def __init__(self) -> None:
        self._answered: dict[tuple[str, str, int], int] = {}
        self._timings: dict[tuple[str, str], _Timing] = {}

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        answered = (route, method, status)
        self._answered[answered] = self._answered.get(answered, 0) + 1
        timing = self._timings.get((route, method))
        if timing is None:
            timing = self._timings[route, method] = _Timing()
        timing.buckets[bisect_left(_REQUEST_S, seconds)] += 1
        timing.sum_s += seconds

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "tidepool_http_requests", "Requests answered.", labels=["route", "method", "status"]
        )
        for (route, method, status), number in self._answered.items():
            requests.add_metric([route, method, str(status)], number)
        yield requests
        durations = HistogramMetricFamily(
            "tidepool_http_request_duration_seconds",
            "Time from a request's arrival to its last byte.",
            labels=["route", "method"],
        )
        bounds = [*(str(float(bound)) for bound in _REQUEST_S), "+Inf"]
        for labels, timing in self._timings.items():
            buckets = [*zip(bounds, map(float, accumulate(timing.buckets)), strict=True)]
            durations.add_metric([*labels], buckets, timing.sum_s)
        yield durations


class _State(Collector):
    """What others count already, read when it is asked for."""

    def __init__(self, store: Store, primary: Primary, follower: Follower, exports: Sized) -> None:
        self._store = store
        self._primary = primary
        self._follower = follower
        self._exports = exports

    def collect(self) -> Iterator[Metric]:
        counts = self._store.counts()
        yield CounterMetricFamily("tidepool_syncs", "Syncs of replicas.", counts.syncs)
        yield CounterMetricFamily("tidepool_rebuilds", "Replicas built, the first time included.", counts.rebuilds)
        yield CounterMetricFamily("tidepool_doubts", "Replicas found unfit and set aside.", counts.doubts)
        yield GaugeMetricFamily("tidepool_open_replicas", "Replicas that are open.", counts.open_replicas)
        yield GaugeMetricFamily("tidepool_exports", "Exports that are being made or sent.", len(self._exports))
        following = self._follower.counts()
        yield GaugeMetricFamily("tidepool_followed_users", "Users whose replicas are kept current.", following.followed)
        yield GaugeMetricFamily("tidepool_event_streams", "Event streams that are open.", following.streams)
        yield CounterMetricFamily("tidepool_tail_looks", "Looks at who moved in the primary.", following.looks)
        silent = "Seconds since the tail was heard of last; 0 while nobody is followed."
        yield GaugeMetricFamily("tidepool_tail_silent_seconds", silent, following.silent_s)
        reachable = float(self._primary.reachable)
        yield GaugeMetricFamily("tidepool_primary_reachable", "1 when the primary was there last time.", reachable)
