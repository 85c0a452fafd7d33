"""`/metrics`: what the meters say, in the text forms of Prometheus.

No job id, user or token is in a label, and no client can make up a value of one.
Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pman import __version__
from pman.actions.base import ActionContext
from pman.backends import BACKENDS
from pman.http.message import Response
from pman.job.state import JobState
from pman.jobdb.store import JobStore
from pman.meters import OTHER, Histogram, Meters

#: Why a job may wait with pman itself.
WAITING = ("limit", "after", "retry")


class Exposition:
    """The page `/metrics` of one daemon. Thread-safe."""

    def __init__(
        self, context: ActionContext, meters: Meters, is_draining: Callable[[], bool]
    ) -> None:
        # Not the registry of the library: that is one for the whole process, and tests make several
        # daemons in one.
        self._registry = CollectorRegistry()
        self._registry.register(_Requests(meters))
        self._registry.register(_Parts(context, meters, is_draining))
        self._registry.register(_Jobs(context))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def response(self, accept: str) -> Response:
        """Return the page in the form that the value of an `Accept` header asks for."""
        encode, content_type = choose_encoder(accept)
        return Response(200, encode(self._registry), content_type)


class _Requests(Collector):
    """Requests: how many, how long."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def collect(self) -> Iterator[Metric]:
        """Give the families."""
        counts: dict[tuple[str, str, int], int] = {}
        times: dict[str, list[Histogram]] = {}
        for kind, histogram in itertools.chain(
            self._meters.quick.kinds(), self._meters.requests.kinds()
        ):
            counts[kind] = counts.get(kind, 0) + sum(histogram.counts)
            times.setdefault(kind[0], []).append(histogram)
        yield _counter(
            "pman_requests",
            "Requests that have been answered, or left by their client before that: status 499.",
            ("action", "method", "status"),
            (((action, method, str(status)), n) for (action, method, status), n in counts.items()),
        )
        yield _histogram(
            "pman_request_duration_seconds",
            "From the last byte of a request to its reply, or the head of a stream, before that is"
            " sent.",
            ("action",),
            (((action,), histograms) for action, histograms in times.items()),
        )


class _Parts(Collector):
    """Clients, disk, backends, and pman as a whole."""

    def __init__(
        self, context: ActionContext, meters: Meters, is_draining: Callable[[], bool]
    ) -> None:
        self._context = context
        self._meters = meters
        self._is_draining = is_draining

    def collect(self) -> Iterator[Metric]:
        """Give the families."""
        info = InfoMetricFamily("pman_build", "Which pman this is.")
        info.add_metric((), {"version": __version__, "python": platform.python_version()})
        yield info
        yield _gauge("pman_draining", "1 once the stop was asked for.", int(self._is_draining()))
        yield from self._clients()
        yield from self._commits()
        yield from self._backends()

    def _clients(self) -> Iterator[Metric]:
        clients = self._meters.clients
        yield _gauge("pman_connections", "Open connections.", clients.connections())
        yield _gauge(
            "pman_streams", "Replies that are made while they are sent.", clients.streams()
        )
        yield _counter(
            "pman_connections_accepted", "Connections made.", (), [((), clients.accepted)]
        )
        yield _counter(
            "pman_connections_refused",
            "Connections turned away at once: there were too many, or pman was to stop.",
            (),
            [((), clients.refused)],
        )
        yield _counter(
            "pman_clients_dropped",
            "Clients cut off because they did not read, or sent too far ahead.",
            (),
            [((), clients.dropped)],
        )
        yield _gauge(
            "pman_request_buffer_bytes",
            "Size of requests that have not been answered.",
            clients.buffered_bytes(),
        )
        yield _gauge(
            "pman_reply_buffer_bytes",
            "Size of replies that clients have not taken.",
            clients.unread_bytes(),
        )

    def _commits(self) -> Iterator[Metric]:
        commits = self._meters.commits
        yield _histogram(
            "pman_db_commit_duration_seconds",
            "How long commits of the job DB took.",
            (),
            [((), [commits.times])],
        )
        yield _histogram(
            "pman_db_commit_changes",
            "Changes that one commit of the job DB held.",
            (),
            [((), [commits.sizes])],
        )
        yield _counter(
            "pman_db_commit_failures",
            "Commits that the disk did not take.",
            (),
            [((), commits.failures)],
        )

    def _backends(self) -> Iterator[Metric]:
        backends = self._context.backends.items()
        up = GaugeMetricFamily(
            "pman_backend_up", "1 while jobs can be run there.", labels=("backend",)
        )
        for name, backend in backends:
            up.add_metric((name,), int(backend.state() == "ok"))
        yield up
        yield _counter(
            "pman_backend_outages",
            "How often the engine, or the shepherd, has gone away.",
            ("backend",),
            (((name,), backend.outages) for name, backend in backends),
        )
        yield _counter(
            "pman_engine_errors",
            "Calls to an engine, or to the shepherd, that have failed.",
            ("backend", "call", "reason"),
            (
                ((name, *which), count)
                for name, backend in backends
                for which, count in backend.errors.counts()
            ),
        )


class _Jobs(Collector):
    """Jobs, out of the ledger of the store."""

    def __init__(self, context: ActionContext) -> None:
        self._context = context
        assert isinstance(context.store, JobStore), "all jobs are counted, not those of one user"
        self._ledger = context.store.ledger

    def collect(self) -> Iterator[Metric]:
        """Give the families."""
        ledger = self._ledger
        # Each backend has all its series from the start, or a rate would miss the first jobs.
        ours = list(self._context.backends)
        jobs = {(name, state.value): 0 for name in ours for state in JobState}
        waiting = {(name, why): 0 for name in ours for why in WAITING}
        for (backend, state, hold), count in ledger.jobs():
            key = _known(backend), state.value
            jobs[key] = jobs.get(key, 0) + count
            if hold in WAITING and not state.is_final:
                wait = key[0], hold
                waiting[wait] = waiting.get(wait, 0) + count
        accepted = dict.fromkeys(ours, 0) | dict(ledger.all_accepted())
        yield _family(
            GaugeMetricFamily("pman_jobs", "Jobs on record.", labels=("backend", "state")),
            jobs.items(),
        )
        yield _family(
            GaugeMetricFamily(
                "pman_jobs_waiting",
                "Jobs that pman holds back: others come first, or it is too early for another try.",
                labels=("backend", "why"),
            ),
            waiting.items(),
        )
        yield _counter(
            "pman_jobs_accepted",
            "Jobs that were accepted.",
            ("backend",),
            (((name,), count) for name, count in accepted.items()),
        )
        yield _counter(
            "pman_jobs_ended",
            "Jobs that have ended.",
            ("backend", "reason"),
            ledger.all_ended(),
        )


#: Values of labels, and the value.
Samples = Iterable[tuple[Sequence[str], float]]


def _known(backend: str) -> str:
    """Return the name of a backend; a record that was read from a file may say anything."""
    return backend if BACKENDS.get(backend) is not None else OTHER


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    return _family(CounterMetricFamily(name, text, labels=labels), samples)


def _family(family: CounterMetricFamily | GaugeMetricFamily, samples: Samples) -> Metric:
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _histogram(
    name: str,
    text: str,
    labels: Sequence[str],
    histograms: Iterable[tuple[Sequence[str], Sequence[Histogram]]],
) -> Metric:
    """Return a family; several histograms of the same bounds become one."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, parts in histograms:
        counts = (sum(column) for column in zip(*(part.counts for part in parts), strict=True))
        bounds = [*map(str, parts[0].bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, itertools.accumulate(counts)), strict=True))
        family.add_metric(values, buckets, sum(part.total for part in parts))
    return family
