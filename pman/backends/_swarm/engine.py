"""`SwarmEngine`: the jobs' services on a Docker Swarm, as an `Engine`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pman.backends._engine.halt import Halt
from pman.backends._engine.order import Order
from pman.backends._engine.port import (
    INSTANCE_LABEL,
    JID_LABEL,
    JOB_LABEL,
    Changed,
    Engine,
    Phase,
    Sink,
    View,
)
from pman.backends._engine.wish import Wish
from pman.backends._swarm import output
from pman.backends._swarm.client import ASK_TIMEOUT_S, EngineClient, filters, url_path
from pman.backends._swarm.elsewhere import Elsewhere
from pman.backends._swarm.events import Event, EventWatch
from pman.backends._swarm.facts import Facts
from pman.backends._swarm.inspection import Inspector
from pman.backends._swarm.manager import Managers, check_manager, manager_of
from pman.backends._swarm.problems import Missing, Refused
from pman.backends._swarm.rescue import Death, Rescue
from pman.backends._swarm.spec import (
    NAME_FIELD,
    check_name,
    check_resources,
    check_size,
    gpu_kind,
    service_name,
    service_spec,
)
from pman.backends._swarm.stopping import (
    heeding,
    is_over,
    signal_here,
    stop_everywhere,
    stop_here,
    wait_until,
)
from pman.backends._swarm.tasks import (
    STAGES,
    Stage,
    container_id,
    is_stopped,
    newest,
    stage_of,
    view_of,
)
from pman.config import Settings
from pman.errors import BackendError, BackendUnavailable, JobConflict, SubmitFailed, shown
from pman.job.record import Worker

#: Events after which a task's state changes within moments: the engine tells the swarm of them.
_HOT_ACTIONS = frozenset({"start", "die", "oom", "create"})

#: Names of services whose job is remembered, for events that carry no label.
_MAX_NAMES = 20_000

#: So often a name is tried that somebody has and nobody is seen to have.
_MAX_TRIES = 5

_SERVICE_ID = "com.docker.swarm.service.id"
_TASK_ATTRIBUTE = "com.docker.swarm.task.id"
_SERVICE_ATTRIBUTE = "com.docker.swarm.service.name"


class SwarmEngine(Engine):
    """A replicated service per job, with restart condition `none`.

    Not a `replicated-job`: the tasks of those are never removed with their service.
    """

    noun = "service"

    def __init__(self, settings: Settings, instance: str, state_path: Path) -> None:
        self._settings = settings
        self._instance = instance
        self._client = EngineClient()
        self._facts = Facts()
        self._inspector = Inspector(self._client, self._facts)
        self._rescue = Rescue(self._client, state_path / "rescued", self._facts)
        self._watch = EventWatch(self._client)
        self._managers = Managers(self._client, instance)
        self._is_managed = self.creates_slowly = settings.swarm_manager == "container"
        self._ours = filters(label=[f"{INSTANCE_LABEL}={instance}"])
        self._elsewhere = Elsewhere(self._client, self._ours)
        self._job_names: dict[str, str] = {}  # {name or id of the service: name of the job}
        self._changed: Changed = lambda _job_name, _is_hot: None

    def connect(self) -> None:
        """See `Engine`."""
        info = self._client.connect()
        self._inspector.node_id = info["Swarm"].get("NodeID", "")

    def check(self, order: Order) -> None:
        """See `Engine`."""
        check_name(order)
        check_size(order)
        if self._is_managed:
            check_manager(order)
        if order.gpus or order.cpu_millis is not None or order.memory_bytes is not None:
            check_resources(order, self._client.get("/nodes", timeout_s=ASK_TIMEOUT_S))
        if order.has_own_name:
            return  # its suffix comes with the job; nobody can have that name
        occupant = self._occupant(service_name(order))
        if occupant is not None and not self._is_replaceable(occupant, order):
            raise self._conflict(occupant, order)

    def create(self, order: Order, share_path: str | None) -> dict[str, Any]:
        """See `Engine`."""
        if self._is_managed:
            check_manager(order)  # a job of a former daemon may have been accepted by another mode
            with self._managers.turn(service_name(order)):
                return self._create_by_manager(order, share_path)
        spec = self._spec(order, share_path)
        self._remember(spec["Name"], order.job_name)
        headers = self._client.registry_headers(order.image)
        for _ in range(_MAX_TRIES):
            try:
                made = self._client.post(
                    "/services/create", spec, headers=headers, timeout_s=ASK_TIMEOUT_S
                )
                return {"service": made["ID"], "name": spec["Name"]}
            except Refused as exc:
                if exc.status != 409:
                    raise
            occupant = self._occupant(spec["Name"]) or self._namesake(spec["Name"])
            if occupant is None:
                continue  # gone in the meantime
            if self._is_of(occupant, order):
                return {"service": occupant["ID"], "name": spec["Name"]}
            if not self._is_replaceable(occupant, order):
                raise self._conflict(occupant, order)
            self._client.delete(url_path("/services/{}", occupant["ID"]))
        raise SubmitFailed(f"the name {shown(spec['Name'])} is taken anew each time it is free")

    def describe(self, order: Order, share_path: str | None) -> dict[str, Any]:
        """See `Engine`. With `--swarmManager container`, the container that makes the service."""
        if not self._is_managed:
            return {"service": self._spec(order, share_path)}
        check_manager(order)
        return {"manager": self._managers.describe(order, service_name(order), share_path)}

    def _spec(self, order: Order, share_path: str | None) -> dict[str, Any]:
        return service_spec(
            order,
            instance=self._instance,
            share_path=share_path,
            stop_grace_s=self._settings.kill_grace_s,
            gpu_kind=gpu_kind(self._client.get("/nodes")) if order.gpus else "",
        )

    def _create_by_manager(self, order: Order, share_path: str | None) -> dict[str, Any]:
        """Have the payload's manager make the service, and make it ours by labels."""
        name = service_name(order)
        self._remember(name, order.job_name)
        occupant = self._occupant(name)
        is_labelled = occupant is not None and self._is_of(occupant, order)
        if not is_labelled:
            if occupant is not None and not self._is_made_for(occupant, order):
                if not self._is_replaceable(occupant, order):
                    raise self._conflict(occupant, order)
                self._client.delete(url_path("/services/{}", occupant["ID"]))
            self._managers.schedule(order, name, share_path)
            occupant = self._occupant(name)
            if occupant is None:
                self._managers.forget(order.job_name)
                raise SubmitFailed(f"the manager ended well and made no service {shown(name)}")
            self._managers.label(occupant, order)
        self._managers.forget(order.job_name)
        assert occupant is not None
        return {"service": occupant["ID"], "name": name}

    def _is_made_for(self, occupant: Mapping[str, Any], order: Order) -> bool:
        """Return whether a former daemon died before it could label what its manager made."""
        labels = occupant["Spec"].get("Labels") or {}
        return JOB_LABEL not in labels and self._managers.has_one(order.job_name)

    # --- looking ----------------------------------------------------------------------------

    def look_all(self) -> dict[str, View]:
        """See `Engine`."""
        # Tasks first: a service that is made in between has none yet, which says nothing wrong.
        tasks_of: dict[str, list[Mapping[str, Any]]] = {}
        for task in self._client.get("/tasks", self._ours) or []:
            tasks_of.setdefault(task["ServiceID"], []).append(task)
        services = self._client.get("/services", self._ours) or []
        lost = self._inspector.lost_nodes(each for tasks in tasks_of.values() for each in tasks)
        views = {}
        for service in services:
            view = self._view(service, tasks_of.get(service["ID"], []), lost)
            if view.job_name:
                self._remember(view.handle["name"], view.job_name)
                views[view.job_name] = view
        return views

    def look(self, job_name: str, handle: dict[str, Any]) -> View | None:
        """See `Engine`."""
        service = self._service(job_name, handle)
        if service is None:
            return None
        tasks = self._tasks(service["ID"])
        return self._view(service, tasks, self._inspector.lost_nodes(tasks))

    def _service(self, job_name: str, handle: Mapping[str, Any]) -> Mapping[str, Any] | None:
        service_id = handle.get("service")
        if not service_id:  # it was asked for, and no answer came
            labels = [f"{INSTANCE_LABEL}={self._instance}", f"{JOB_LABEL}={job_name}"]
            wanted = filters(label=labels)
            return next(iter(self._client.get("/services", wanted) or []), None)
        try:
            found: Mapping[str, Any] = self._client.get(url_path("/services/{}", service_id))
        except Missing:
            return None
        return found

    def _tasks(self, service_id: str) -> list[Mapping[str, Any]]:
        try:
            return self._client.get("/tasks", filters(service=[service_id])) or []
        except Missing:
            return []  # the service has just been removed

    def _view(
        self,
        service: Mapping[str, Any],
        tasks: Iterable[Mapping[str, Any]],
        lost: Mapping[str, str],
    ) -> View:
        tasks = list(tasks)
        self._inspector.inspect(tasks)
        view = view_of(service, tasks, self._facts.get, lost)
        if not view.job_name:
            return view
        self._remember(service["ID"], view.job_name)
        self._elsewhere.note(tasks, self._inspector.node_id)
        if self._inspector.is_ending(tasks):
            self._changed(view.job_name, True)  # what the event has said is still to come
        return view

    # --- watching ---------------------------------------------------------------------------

    def watch(self, changed: Changed, stop: threading.Event) -> None:
        """See `Engine`."""
        self._changed = changed
        self._watch.follow(self._take, self._ready, self._beat, stop)

    def interrupt(self) -> None:
        """See `Engine`."""
        self._watch.interrupt()

    def _ready(self) -> None:
        self._changed(None, False)
        self._rescue.prepare()

    def _beat(self) -> None:
        def report(service_id: str) -> None:
            self._changed(self._job_names.get(service_id), False)

        try:
            self._elsewhere.beat(self._inspector.node_id, report)
        except BackendError:
            # An engine that stops answers nothing more, but still tells how its containers end.
            if not self._rescue.is_under_way:
                raise

    def _take(self, event: Event) -> None:
        """Say which job an event is about; note what only events tell."""
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        action = event.get("Action", "")
        if event.get("Type") == "node":
            self._changed(None, False)
            return
        if event.get("Type") == "service":
            name = attributes.get("name", "")
            job_name = self._job_names.get(name)
            if action == "remove":
                self._job_names.pop(name, None)
                self._job_names.pop(actor.get("ID", ""), None)
        else:
            job_name = self._job_of_container(attributes)
            self._note(event, action, attributes.get(_TASK_ATTRIBUTE, ""))
            if job_name is not None and action in ("kill", "die"):
                self._mind_end(event, action, attributes)
        if job_name is not None:
            self._changed(job_name, action in _HOT_ACTIONS)

    def _job_of_container(self, attributes: Mapping[str, str]) -> str | None:
        if attributes.get(INSTANCE_LABEL) == self._instance:
            return attributes.get(JOB_LABEL)
        return self._job_names.get(attributes.get(_SERVICE_ATTRIBUTE, ""))

    def _note(self, event: Event, action: str, task_id: str) -> None:
        if not task_id:
            return
        at = event.get("timeNano", 0) / 1e9 or None
        if action == "start":
            self._facts.note(task_id, started_at=at)
        elif action == "die":
            self._facts.note(task_id, ended_at=at)
        elif action == "oom":
            self._facts.note(task_id, is_oom=True)

    def _mind_end(self, event: Event, action: str, attributes: Mapping[str, str]) -> None:
        """Have the output kept of a container of ours that somebody else ends."""
        service_id, task_id = attributes.get(_SERVICE_ID, ""), attributes.get(_TASK_ATTRIBUTE, "")
        code = attributes.get("exitCode", "")
        if action == "kill":
            self._rescue.told(service_id, task_id, event["Actor"]["ID"])
        elif code.isdecimal():
            at = event.get("timeNano", 0) / 1e9 or None
            self._rescue.died(Death(task_id, int(code), at))

    def _remember(self, name: str, job_name: str) -> None:
        self._job_names[name] = job_name
        if len(self._job_names) > _MAX_NAMES:
            self._job_names.pop(next(iter(self._job_names)), None)

    # --- output and end ---------------------------------------------------------------------

    def collect(self, view: View, sink: Sink) -> None:
        """See `Engine`. Bytes that are not UTF-8 come as U+FFFD where the engine keeps JSON."""
        tasks = self._tasks(view.handle["service"])
        gone = self._inspector.check_nodes(tasks)
        paths = {task["ID"]: self._rescue.path(task["ServiceID"], task["ID"]) for task in tasks}
        rescued = {task_id: path for task_id, path in paths.items() if path is not None}
        is_whole = output.collect(self._client, view, sink, skipped=gone, rescued=rescued)
        if not is_whole and self._service(view.job_name, view.handle) is None:
            raise BackendUnavailable("the service is gone")

    def peek(self, view: View, max_bytes: int) -> bytes:
        """See `Engine`."""
        return output.peek(self._client, view, max_bytes)

    def stage_of(self, worker: Worker) -> Phase:
        """See `Engine`."""
        if not output.has_output(worker):
            return Phase.WAITING
        is_over = STAGES[worker.state] is Stage.ENDED
        return Phase.ENDED if is_over else Phase.RUNNING

    def follow(self, view: View, worker: int, sink: Sink, halt: Halt, *, waits: bool) -> None:
        """See `Engine`. A container of this engine is read directly, others through the swarm.

        A swarm goes on waiting when the container has ended, until `halt` is set; and an engine may
        keep the last line from who follows. Source: tried with Docker Engine 20.10.
        """
        task_id = view.workers[worker].name
        path = url_path("/tasks/{}/logs", task_id)
        try:
            task = self._client.get(url_path("/tasks/{}", task_id))
        except Missing:
            return
        if container_id(task) and task.get("NodeID") == self._inspector.node_id:
            path = url_path("/containers/{}/logs", container_id(task))
        take = output.into(sink, worker)
        output.follow(self._client, path, output.is_plain(view), take, halt, waits=waits)

    def stop(self, view: View, wish: Wish, sink: Sink) -> bool:
        """See `Engine`. On other nodes signal and grace are the service's: `--killGrace`."""
        service_id = view.handle["service"]
        self._rescue.expect(service_id)
        tasks = newest(self._tasks(service_id))
        stages = {task["ID"]: stage_of(task) for task in tasks}
        running = [task for task in tasks if stages[task["ID"]] is Stage.RUNNING]
        here = [task for task in running if task.get("NodeID") == self._inspector.node_id]
        is_all_here = len(here) == len(running) and Stage.WAITING not in stages.values()
        is_over = functools.partial(self._is_over, service_id)
        with heeding(self._client, here, wish):
            signal = wish.signal
            if signal is not None:
                signal_here(self._client, here, signal)
            if running and is_all_here:
                if signal is not None:
                    wait_until(is_over, wish.left_s())
                left_s = wish.left_s() if signal is None else 0.0
                stop_here(self._client, running, is_over, left_s)
            else:
                stop_everywhere(self._client, service_id, is_over, wish.left_s())
        return False

    def _is_over(self, service_id: str) -> bool:
        tasks = newest(self._tasks(service_id))
        return is_over(tasks, self._inspector.lost_nodes(tasks))

    def remove(self, job_name: str, handle: dict[str, Any]) -> None:
        """See `Engine`."""
        service = self._service(job_name, handle)
        if self._is_managed:
            self._managers.forget(job_name)  # one that never ended
            if service is not None:
                self._remove_by_manager(job_name, service)
        if service is not None:
            self._client.delete(url_path("/services/{}", service["ID"]))
        self._rescue.forget(handle.get("service") or (service or {}).get("ID") or job_name)

    def _remove_by_manager(self, job_name: str, service: Mapping[str, Any]) -> None:
        """Have the manager that made a service remove it: it does so by the name."""
        manager, name = manager_of(service), service["Spec"]["Name"]
        if manager is None:
            return
        with self._managers.turn(name):
            occupant = self._occupant(name)
            if occupant is not None and occupant["ID"] == service["ID"]:
                self._managers.remove(manager, name, job_name)

    def retry(self, view: View) -> bool:
        """See `Engine`. Only when no task is under way: an update would start it anew."""
        if view.phase is not Phase.WAITING or view.reason != "image_pull_failed":
            return False
        service = self._service(view.job_name, view.handle)
        if service is None or is_stopped(service["Spec"].get("TaskTemplate")):
            return False
        now = view_of(service, self._tasks(service["ID"]))
        if not now.workers or any(each.state != "rejected" for each in now.workers):
            return False
        spec = service["Spec"]
        spec["TaskTemplate"]["ForceUpdate"] = spec["TaskTemplate"].get("ForceUpdate", 0) + 1
        spec["UpdateConfig"] = {"Parallelism": 0, "FailureAction": "continue"}  # all at once
        path = url_path("/services/{}/update", service["ID"])
        headers = self._client.registry_headers(spec["TaskTemplate"]["ContainerSpec"]["Image"])
        self._client.post(path, spec, {"version": service["Version"]["Index"]}, headers)
        return True

    def close(self) -> None:
        """See `Engine`."""
        self._rescue.close()
        self._client.close()

    # --- names that are taken ---------------------------------------------------------------

    def _occupant(self, name: str) -> Mapping[str, Any] | None:
        """Return the service that has a name; the engine also takes ids and their beginnings."""
        try:
            path = url_path("/services/{}", name)
            found: Mapping[str, Any] = self._client.get(path, timeout_s=ASK_TIMEOUT_S)
        except Missing:
            return None
        return found if found["Spec"].get("Name") == name else None

    def _namesake(self, name: str) -> Mapping[str, Any] | None:
        """Return the service whose name differs in case only: it has the name, unfound by it."""
        for service in self._client.get("/services") or []:
            if service["Spec"].get("Name", "").lower() == name.lower():
                found: Mapping[str, Any] = service
                return found
        return None

    def _is_of(self, occupant: Mapping[str, Any], order: Order) -> bool:
        labels = occupant["Spec"].get("Labels") or {}
        is_ours = labels.get(INSTANCE_LABEL) == self._instance
        return is_ours and bool(order.job_name) and labels.get(JOB_LABEL) == order.job_name

    def _is_replaceable(self, occupant: Mapping[str, Any], order: Order) -> bool:
        labels = occupant["Spec"].get("Labels") or {}
        is_ours = labels.get(INSTANCE_LABEL) == self._instance
        is_same = is_ours and labels.get(JID_LABEL) == order.jid
        return is_same and self.may_replace(labels.get(JOB_LABEL, ""))

    def _conflict(self, occupant: Mapping[str, Any], order: Order) -> JobConflict:
        labels = occupant["Spec"].get("Labels") or {}
        name, instance = occupant["Spec"]["Name"], labels.get(INSTANCE_LABEL)
        if instance is None:
            owner = "a service that pman did not make"
        elif instance != self._instance:
            owner = f"a service of another pman, {shown(instance)}"
        else:
            owner = f"the service of job {shown(labels.get(JID_LABEL, ''))} of this pman"
        field = NAME_FIELD if order.service_name is not None else "jid"
        return JobConflict(
            f"{field} leads to the name {shown(name)}, which {owner} has; expected a free name, or"
            " that service to be removed first",
            field=field,
        )
