"""Builds all parts of pman, starts and stops them in order; no logic of its own."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable

import zmq

import pman.actions
import pman.backends
from pman import __version__
from pman.actions import ACTIONS
from pman.actions.base import ActionContext
from pman.auth import Role, TokenAuth
from pman.backends import BACKENDS
from pman.backends.base import Backend, BackendContext
from pman.config import Settings
from pman.descriptors import raise_limit
from pman.dispatcher import Dispatcher
from pman.job.record import Job
from pman.jobdb.events import EventLog
from pman.jobdb.opening import OpenJobDB, open_job_db
from pman.jobdb.store import JobStore
from pman.meters import Meters
from pman.ops.lines import JobLines
from pman.ops.operations import Operations
from pman.output import OutputFiles
from pman.pageguard import PageGuard
from pman.queue import JobQueue
from pman.services.base import Service
from pman.services.closer import BEYOND_GRACE_S, BackendCloser
from pman.services.connections import SPARE_DESCRIPTORS, connection_limit
from pman.services.directive import DirectiveWatcher
from pman.services.endpoint import is_local_port, is_loopback
from pman.services.errands import Errands
from pman.services.front import Front
from pman.services.herald import Herald
from pman.services.keeper import Keeper
from pman.services.listener import Listener
from pman.services.notify import Heartbeat, Notifier
from pman.services.postman import Postman
from pman.services.progress import ProgressWatcher
from pman.services.pump import Pump
from pman.services.queuedriver import QueueDriver
from pman.services.saver import Saver
from pman.services.signing import open_signer
from pman.services.timers import Timers
from pman.services.writer import Writer
from pman.wire import HOST

_log = logging.getLogger(__name__)

#: How long one thread may hold the interpreter while another wants it, seconds. Front, listeners
#: and writer hand work to and fro; by default each time may cost 5 ms.
SWITCH_INTERVAL_S = 0.0005

#: How long all services together may take to stop, seconds.
STOP_TIMEOUT_S = 5.0

#: What of that is kept for the writer, and what each of the others has at least, seconds.
RESERVE_S, PATIENCE_S = 1.0, 0.1

#: Threads for what takes a while and nobody waits for (removing files of deleted jobs).
ERRAND_THREADS = 2

#: Descriptors for other things than connections, and of each listener.
OWN_DESCRIPTORS, LISTENER_DESCRIPTORS = 2 * SPARE_DESCRIPTORS, 4


class Daemon:
    """One pman. `run` starts it, blocks until somebody asks for the end, and stops it."""

    def __init__(self, settings: Settings, notifier: Notifier | None = None) -> None:
        """Prepare.

        Args:
            notifier: Whom to tell how far it is.
        """
        self.settings = settings
        self._notifier = notifier or Notifier()
        self._stop = threading.Event()
        self._no_drain = threading.Event()
        if not settings.drain_s:
            self._no_drain.set()
        self._services: list[Service] = []
        self._backends: dict[str, Backend] = {}

    def request_stop(self) -> bool:
        """Ask for the end; from any thread, any number of times.

        Returns:
            Whether nobody has asked before.
        """
        is_first = not self._stop.is_set()
        self._stop.set()
        return is_first

    def cut_drain(self) -> bool:
        """End at once the time for which requests are still served; from any thread.

        Returns:
            False when there is none, or it is over already.
        """
        if self._no_drain.is_set():
            return False
        self._no_drain.set()
        return True

    def run(self) -> int:
        """Serve until `request_stop`.

        Returns:
            Exit status: 0, or 1 when a service died.
        Raises:
            StartError: The daemon cannot start; says why.
        """
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._raise_limits()
        job_db = open_job_db(self.settings)
        try:
            return self._run(job_db)
        finally:
            job_db.close()

    def _run(self, job_db: OpenJobDB) -> int:
        settings = self.settings
        auth = self._make_auth()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        errands = Errands(ERRAND_THREADS)
        try:
            output = OutputFiles(settings.db_path / "output", settings.max_inline_output_bytes)
            database = job_db.database
            meters = Meters()
            writer = Writer(database, settings.keep_events, meters.commits)
            events = EventLog(writer.numbering, database.horizon, job_db.reader.events)
            herald = Herald(events)
            writer.on_events(events.publish)
            writer.on_events(herald.ring)
            store = JobStore(writer)
            JobLines().watch(store)
            store.load(job_db.jobs)
            job_db.jobs.clear()
            gc.freeze()  # what a start has made stays; the collector need not look at it again
            saver = Saver(settings, store, output)
            self._backends = self._make_backends(job_db.instance, output)
            queue = JobQueue(store, self._backends, settings)
            keeper = Keeper(settings, store, self._backends, output)
            timers = Timers()
            ACTIONS.load(pman.actions)
            action_context = ActionContext(
                store=store,
                events=events,
                backends=self._backends,
                settings=settings,
                output=output,
                snapshots=saver,
                request_stop=self.request_stop,
                now=time.time,
                errands=errands,
                timers=timers,
                queue=queue,
            )
            operations = Operations(action_context, meters, self._stop.is_set)
            guard = None
            if auth is None:
                guard = PageGuard(settings.cors_origins, lambda: is_local_port(front.endpoint))
            dispatcher = Dispatcher(action_context, auth, operations, guard)
            heartbeat = Heartbeat(self._notifier)
            pump = Pump()
            front = Front(context, settings, dispatcher, pump, meters.clients, heartbeat)
            listeners = [
                Listener(context, n, dispatcher, front.exchange, front.listener_endpoint)
                for n in range(settings.listeners)
            ]
            directives = DirectiveWatcher(settings, dispatcher.execute)
            closer = BackendCloser(self._backends, errands, store, queue, settings.exit_grace_s)
            driver = QueueDriver(queue)
            progress = ProgressWatcher(store, self._backends, output)
            watchers = [] if settings.disable_progress else [progress]
            observe = progress.with_last(queue.observe) if watchers else queue.observe
            postmen = self._postmen(job_db, writer, timers)
            self._start([writer, timers, saver, closer, *postmen])
            unfinished = store.unfinished()
            given = queue.take_over(unfinished)
            for backend in self._backends.values():
                backend.start(observe)
            for backend in self._backends.values():
                errands.submit(queue.reconcile, backend, given[backend.name])
            self._name_left_behind(unfinished)
            self._start([driver, keeper, pump, *watchers, *listeners, front, directives, herald])
            if guard is not None:
                # A thread of its own, for which no stop waits: a name server may not answer.
                threading.Thread(target=guard.learn_own_name, name="own-name", daemon=True).start()
            self._announce(front)
            self._stop.wait()
            self._drain()
            code = self._finish()
            front.request_stop()  # first, so that nobody comes who would have to wait
            for postman in postmen:
                postman.request_stop()  # else its time limits would come to an end, too
            timers.hurry()
            return code
        finally:
            self._stop_services()
            context.destroy(linger=0)

    # --- start ----------------------------------------------------------------------------

    def _raise_limits(self) -> None:
        """See that there are descriptors for all connections; say so if there are too few."""
        settings = self.settings
        raise_limit(
            settings.max_connections + OWN_DESCRIPTORS + LISTENER_DESCRIPTORS * settings.listeners
        )
        limit = connection_limit(settings)
        if limit < settings.max_connections:
            _log.warning(
                "at most %d connections at a time, not the %d of --maxConnections:"
                " the hard limit on open files (ulimit -Hn) is too low",
                limit,
                settings.max_connections,
            )

    def _make_auth(self) -> TokenAuth | None:
        if not self.settings.enable_token_auth:
            return None
        auth = TokenAuth(self.settings.token_path)
        restricted = [each.name for each in auth.callers if each.role < Role.ADMIN or each.auid]
        may_run_here = not self.settings.disable_host_jobs and HOST not in self.settings.admin_only
        if restricted and may_run_here:
            _log.warning(
                "a job on the host can read all that this pman keeps, so tokens with less than all"
                " rights are held by them only with --adminOnly quit,DBctl,host or"
                " --disableHostJobs"
            )
        return auth

    def _postmen(self, job_db: OpenJobDB, writer: Writer, timers: Timers) -> list[Postman]:
        """Make who delivers callbacks, if any are allowed; else what waits in the outbox stays."""
        settings = self.settings
        if not settings.callback_hosts:
            return []
        signer = open_signer(settings.callback_secret, settings.db_path)
        postman = Postman(
            job_db.reader, writer.change_outbox, signer, settings.callback_hosts, timers
        )
        writer.on_letters(postman.take)
        return [postman]

    def _make_backends(self, instance: str, output: OutputFiles) -> dict[str, Backend]:
        """Make the host backend and the one for containers, if there is one of that name."""
        BACKENDS.load(pman.backends)
        made: dict[str, Backend] = {}
        for name in {HOST, self.settings.container_env}:
            kind = BACKENDS.get(name)
            if kind is None:
                continue
            state_path = self.settings.db_path / "backends" / name
            state_path.mkdir(mode=0o700, parents=True, exist_ok=True)
            made[name] = kind(
                BackendContext(
                    settings=self.settings,
                    instance=instance,
                    state_path=state_path,
                    output=output,
                )
            )
        return made

    def _start(self, services: Iterable[Service]) -> None:
        for service in services:
            self._services.append(service)
            service.start(on_failure=self._abort)
        for service in services:
            service.wait_ready()

    def _name_left_behind(self, unfinished: list[Job]) -> None:
        """Say which jobs nobody follows, because their backend is not among ours."""
        for name in sorted({job.backend for job in unfinished} - set(self._backends)):
            _log.warning(
                "jobs of the backend %r are not followed: this pman was not started with it", name
            )

    def _announce(self, front: Front) -> None:
        settings = self.settings
        if not settings.enable_token_auth and not is_loopback(front.endpoint):
            _log.warning(
                "anybody who can reach %s can run commands here: use --enableTokenAuth and"
                " --tokenPath, or listen on 127.0.0.1",
                front.endpoint,
            )
        _log.info(
            "pman %s is listening on %s (%s, %d listeners, job DB %s)",
            __version__,
            front.endpoint,
            "HTTP" if settings.rawmode else "ZMTP",
            settings.listeners,
            settings.db_path,
        )
        self._notifier.status(f"listening on {front.endpoint}", "READY=1")

    # --- stop -----------------------------------------------------------------------------

    def _abort(self, _: Service) -> None:
        """End without further ado, because a service has died."""
        self._no_drain.set()
        self.request_stop()

    def _drain(self) -> None:
        """Go on serving for `drain_s`, while `/readyz` says no, so that requests go elsewhere."""
        if not self._no_drain.is_set():
            seconds = self.settings.drain_s
            _log.info("requests are still served for %g s; a second signal ends that", seconds)
            self._notifier.status("serving until the drain is over", "STOPPING=1")
            self._no_drain.wait(seconds)
        self._no_drain.set()
        self._notifier.status("stopping", "STOPPING=1")

    def _finish(self) -> int:
        failed = [service for service in self._services if service.failure is not None]
        for service in failed:
            _log.error("%s failed: %s", service.name, service.failure)
        ends = "are ended" if self.settings.kill_jobs_on_exit else "run on"
        _log.info("stopping; host jobs %s", ends)
        return 1 if failed else 0

    def _stop_services(self) -> None:
        """Stop in the reverse order of the start, so that what others rely on goes last."""
        late: list[str] = []
        deadline = time.monotonic() + STOP_TIMEOUT_S
        if self.settings.exit_grace_s is not None:
            deadline += self.settings.exit_grace_s + BEYOND_GRACE_S
        for service in reversed(self._services):
            service.request_stop()
            # One that is stuck must not keep the writer, the last of all, from its turn.
            is_last = service is self._services[0]
            limit = max(deadline - RESERVE_S, time.monotonic() + PATIENCE_S)
            if not service.join(deadline if is_last else limit):
                late.append(service.name)
        if late:
            # Nothing may be closed that a thread still uses; what counts is on disk already.
            _log.error("did not stop in time: %s", ", ".join(late))
            reason = sys.exc_info()[1]
            if reason is not None:  # a start that failed; this is the last chance to say why
                print(f"pman: {reason}", file=sys.stderr)
            logging.shutdown()
            os._exit(1)
