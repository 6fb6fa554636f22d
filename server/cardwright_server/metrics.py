"""What Prometheus asks: calls, tasks, streams, and how the parts of this process stand. No label names a person."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .timers import TaskState

OTHER = "other"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one process. ``known``: procedures that get a label of their own; others are ``other``."""

    def __init__(self, known: Collection[str]) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._known = frozenset(known)
        self._calls = Counter("cardwright_calls", "Calls by status.", ("call", "status"), registry=registry)
        self._seconds = Histogram(
            "cardwright_call_seconds", "How long calls took.", ("call",), buckets=_SECONDS, registry=registry
        )
        self._denied = Counter(
            "cardwright_calls_denied", "Calls that authorization refused.", ("call",), registry=registry
        )
        self._limited = Counter("cardwright_calls_limited", "Calls above a limit.", ("call",), registry=registry)
        self._streams = Gauge("cardwright_streams", "Open streams.", ("call",), registry=registry)
        self._task_runs = Counter("cardwright_task_runs", "Runs that ended well.", ("task",), registry=registry)
        self._task_failures = Counter("cardwright_task_failures", "Runs that failed.", ("task",), registry=registry)
        self._task_failing = Gauge(
            "cardwright_task_failing", "Failures since the last run that ended well.", ("task",), registry=registry
        )
        self._task_done = Gauge(
            "cardwright_task_last_success_seconds", "Its end, since 1970.", ("task",), registry=registry
        )
        self._started = Gauge("cardwright_start_seconds", "When this process started, since 1970.", registry=registry)

    def started(self, at: datetime) -> None:
        """The process serves."""
        self._started.set(at.timestamp())

    def called(self, call: str, status: str, seconds: float) -> None:
        """A call ended."""
        self._calls.labels(self._label(call), status).inc()
        self._seconds.labels(self._label(call)).observe(seconds)

    def stream(self, call: str, change: int) -> None:
        """A stream began (1) or ended (-1)."""
        self._streams.labels(self._label(call)).inc(change)

    def denied(self, call: str) -> None:
        """See ``calling.Watch``."""
        self._denied.labels(self._label(call)).inc()

    def limited(self, call: str) -> None:
        """See ``calling.Watch``."""
        self._limited.labels(self._label(call)).inc()

    def task(self, state: TaskState, *, failed: bool) -> None:
        """A run of a task ended."""
        (self._task_failures if failed else self._task_runs).labels(state.name).inc()
        self._task_failing.labels(state.name).set(state.failures)
        if state.done_at is not None:
            self._task_done.labels(state.name).set(state.done_at.timestamp())

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when somebody looks."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def watch_parts(self, standing: Callable[[], Iterable[tuple[str, bool]]]) -> None:
        """Whether each part is good, asked when somebody looks: one gauge, labelled by the part's name."""
        self.registry.register(_Parts(standing))

    def _label(self, call: str) -> str:
        return call if call in self._known else OTHER


class _Parts(Collector):
    def __init__(self, standing: Callable[[], Iterable[tuple[str, bool]]]) -> None:
        self._standing = standing

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See Collector."""
        gauge = GaugeMetricFamily("cardwright_part_good", "Whether `server status` calls it good.", labels=("part",))
        for name, good in self._standing():
            gauge.add_metric((name,), float(good))
        yield gauge


def make_app(metrics: Metrics, healthy: Callable[[], bool]) -> Starlette:
    """``/metrics`` for Prometheus, ``/health`` (200 or 503) for what starts and watches processes."""

    async def show(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def health(_: Request) -> Response:
        return Response("ok\n") if healthy() else Response("not serving\n", status_code=503)

    return Starlette(routes=[Route("/metrics", show, methods=["GET"]), Route("/health", health, methods=["GET"])])
