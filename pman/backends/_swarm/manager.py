"""`Managers`: the containers of `--swarmManager container`, which make and remove services.

They run the image and the app that the payload names, as 2.2 did; WIRE 14.1 and 14.3. A manager
container carries the labels of its job and stays until the job's service carries them too: so a
job is scheduled once, whatever dies in between.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pman.backends._engine.names import unique_name
from pman.backends._engine.order import Manager, Order
from pman.backends._engine.port import INSTANCE_LABEL, JOB_LABEL
from pman.backends._swarm.client import EngineClient, filters, url_path
from pman.backends._swarm.facts import epoch_s
from pman.backends._swarm.logs import Demultiplexer
from pman.backends._swarm.problems import Missing, Refused, plain, socket_path
from pman.backends._swarm.spec import labels_of
from pman.errors import BackendError, JobConflict, RequestError, SubmitFailed, shown

#: Where managers look for the engine, and where its socket is unless DOCKER_HOST names another.
SOCKET_PATH = "/var/run/docker.sock"

#: Labels of a service that a manager has made: what removes it again.
IMAGE_LABEL, APP_LABEL = "pman.manager-image", "pman.manager-app"

#: Longest wait for a manager to end, and for an image to arrive, seconds.
RUN_TIMEOUT_S = 120.0

#: Locks for names of services; names that share one wait for each other without need.
TURNS = 256

#: Lines of a failed manager that are shown.
TAIL_LINES = 20

#: A name that is taken, in the words of engines. Source: moby/swarmkit, store.ErrNameConflict.
_NAME_TAKEN = ("name conflicts with an existing object", "already exists")


def check_manager(order: Order) -> None:
    """Raise when a manager is to make the service, and can't.

    Raises:
        RequestError: None is named, or something is asked for that it has no option for.
    """
    if order.manager is None:
        raise RequestError(
            "container.manager.image and .app are not both given, expected the image and the script"
            " that are to make the service (--swarmManager container)",
            field="container.manager.image",
        )
    unfit = {
        "cpu_limit": order.cpu_millis is not None,
        "memory_limit": order.memory_bytes is not None,
        "gpu_limit": order.gpus > 0,
        "number_of_workers": order.workers > 1,
        "env": bool(order.env),
        "cwd": order.cwd is not None,
    }
    for field, is_given in unfit.items():
        if is_given:
            raise RequestError(
                f"{field} can't be passed to a manager (--swarmManager container), expected it to"
                " be left out, or pman to run with --swarmManager native",
                field=field,
            )


def manager_of(service: Mapping[str, Any]) -> Manager | None:
    """Return the manager that has made a service, or None."""
    labels = service["Spec"].get("Labels") or {}
    image, app = labels.get(IMAGE_LABEL), labels.get(APP_LABEL)
    return Manager(image, app) if image and app else None


def schedule_words(order: Order, name: str, share_path: str | None) -> list[str]:
    """Return the command line that has a manager make a service; words, never pasted text."""
    assert order.manager is not None
    mount = [] if share_path is None else ["-m", share_path]
    return [order.manager.app, "-s", name, *mount, "-i", order.image, "-p", "none", "-c", order.cmd]


class Managers:
    """Runs managers on the engine that we talk to."""

    def __init__(self, client: EngineClient, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._turns = [threading.Lock() for _ in range(TURNS)]

    def turn(self, name: str) -> threading.Lock:
        """Return what to hold while a manager makes or removes the service of a name.

        A manager knows no ids: one that removes would take the next service of the same name.
        """
        return self._turns[hash(name) % len(self._turns)]

    def has_one(self, job_name: str) -> bool:
        """Return whether a manager has been at work for a job whose service has no labels yet."""
        return bool(job_name) and bool(self._containers(job_name))

    def schedule(self, order: Order, name: str, share_path: str | None) -> None:
        """Have a manager make the service of a job; a manager that is there already is awaited.

        Raises:
            JobConflict: The name is taken.
            SubmitFailed: The manager failed; with its last words.
            BackendUnavailable: The engine can't be reached, or the manager takes too long.
        """
        assert order.manager is not None
        found = self._containers(order.job_name)
        if found:
            container = found[0]["Id"]
        else:
            title = f"pman-{unique_name(order.job_name)}"
            container = self._create(title, self.describe(order, name, share_path))
        code, words_said = self._run(container)
        if code == 0 or self._is_made(name, order, container):
            return
        self.forget(order.job_name)
        if any(part in words_said for part in _NAME_TAKEN):
            raise JobConflict(f"the manager says that the name {shown(name)} is taken")
        raise SubmitFailed(
            f"manager {shown(order.manager.app)} of image {shown(order.manager.image)} failed with"
            f" exit code {code}: {words_said}"
        )

    def describe(self, order: Order, name: str, share_path: str | None) -> dict[str, Any]:
        """Return the container that is to make the service of a job."""
        assert order.manager is not None
        words = schedule_words(order, name, share_path)
        return self._container(order.manager.image, words, labels_of(order, self._instance))

    def label(self, service: Mapping[str, Any], order: Order) -> None:
        """Put the job's labels on a service that a manager has made; its tasks go on."""
        assert order.manager is not None
        spec = dict(service["Spec"])
        marks = {IMAGE_LABEL: order.manager.image, APP_LABEL: order.manager.app}
        spec["Labels"] = (spec.get("Labels") or {}) | labels_of(order, self._instance) | marks
        version = {"version": service["Version"]["Index"]}
        self._client.post(url_path("/services/{}/update", service["ID"]), spec, version)

    def remove(self, manager: Manager, name: str, job_name: str) -> None:
        """Have a manager remove a service; whether it did is for the caller to see."""
        title = f"pman-remove-{unique_name(job_name)}"
        labels = {INSTANCE_LABEL: self._instance}
        words = [manager.app, "--remove", name]
        with contextlib.suppress(SubmitFailed):  # the service is removed without it, then
            # The engine removes it, too: nobody would look for it should we die now.
            body = self._container(manager.image, words, labels, is_removed_at_end=True)
            container = self._create(title, body)
            try:
                self._run(container)
            finally:
                self._delete(container)

    def forget(self, job_name: str) -> None:
        """Remove the manager containers of a job."""
        for container in self._containers(job_name):
            self._delete(container["Id"])

    # --- containers -------------------------------------------------------------------------

    def _containers(self, job_name: str) -> list[dict[str, Any]]:
        wanted = [f"{INSTANCE_LABEL}={self._instance}", f"{JOB_LABEL}={job_name}"]
        found = self._client.get("/containers/json", {"all": 1, **filters(label=wanted)}) or []
        # Containers of the service's tasks carry the same labels.
        return [each for each in found if "com.docker.swarm.task.id" not in each["Labels"]]

    def _container(
        self,
        image: str,
        words: Sequence[str],
        labels: Mapping[str, str],
        *,
        is_removed_at_end: bool = False,
    ) -> dict[str, Any]:
        """Return a container as the engine is asked for it."""
        source = socket_path(self._client.host) or SOCKET_PATH
        mount = {"Type": "bind", "Source": source, "Target": SOCKET_PATH}
        return {
            "Image": image,
            "Cmd": list(words),
            "Labels": labels,
            "HostConfig": {"Mounts": [mount], "AutoRemove": is_removed_at_end},
        }

    def _create(self, title: str, body: Mapping[str, Any]) -> str:
        """Make a container; one of that name that is there already is taken."""
        image = body["Image"]
        for is_last in (False, True):
            try:
                return str(self._client.post("/containers/create", body, {"name": title})["Id"])
            except Missing as exc:
                if is_last:
                    raise SubmitFailed(
                        f"container.manager.image {shown(image)} is not there: {exc.words}",
                        field="container.manager.image",
                    ) from exc
                self._pull(image)
            except Refused as exc:
                if exc.status != 409:
                    raise
                return str(self._client.get(url_path("/containers/{}/json", title))["Id"])
        raise AssertionError("the second try returns or raises")

    def _run(self, container: str) -> tuple[int, str]:
        """Start a container that has not been started; return its exit code and last words."""
        state = self._client.get(url_path("/containers/{}/json", container))["State"]
        if state["Status"] == "created":
            self._client.post(url_path("/containers/{}/start", container))
        path = url_path("/containers/{}/wait", container)
        code = self._client.post(path, timeout_s=RUN_TIMEOUT_S)["StatusCode"]
        return code, self._last_words(container) if code else ""

    def _last_words(self, container: str) -> str:
        params = {"stdout": 1, "stderr": 1, "tail": TAIL_LINES}
        demultiplexer = Demultiplexer()
        said = b""
        path = url_path("/containers/{}/logs", container)
        with self._client.stream("GET", path, params) as stream:
            for chunk in stream.chunks():
                said += b"".join(raw for _, raw in demultiplexer.feed(chunk))
        return plain(said.decode("utf-8", "replace"))

    def _delete(self, container: str) -> None:
        path = url_path("/containers/{}", container)
        try:
            self._client.delete(path, {"force": 1, "v": 1})
        except Refused as exc:
            if exc.status != 409:
                raise
            with contextlib.suppress(Missing):  # the engine is just removing it by itself
                self._client.post(f"{path}/wait", params={"condition": "removed"})

    def _pull(self, image: str) -> None:
        """Have the engine fetch an image; whether it has come is seen by the next try."""
        name, tag = _split_tag(image)
        headers = self._client.registry_headers(image)
        params = {"fromImage": name, "tag": tag}
        with (
            contextlib.suppress(BackendError),  # the next try says what is missing
            self._client.stream(
                "POST", "/images/create", params, headers=headers, timeout_s=RUN_TIMEOUT_S
            ) as progress,
        ):
            _drain(progress.chunks())

    def _is_made(self, name: str, order: Order, container: str) -> bool:
        """Return whether a manager that was killed had made the service before."""
        try:
            service = self._client.get(url_path("/services/{}", name))
        except Missing:
            return False
        made = self._client.get(url_path("/containers/{}/json", container)).get("Created")
        spec = service["Spec"]
        wanted = spec["TaskTemplate"]["ContainerSpec"]
        is_later = (epoch_s(service.get("CreatedAt")) or 0.0) >= (epoch_s(made) or 0.0)
        is_alike = wanted.get("Command", []) == order.command and spec["Name"] == name
        return is_later and is_alike and JOB_LABEL not in (spec.get("Labels") or {})


def _split_tag(image: str) -> tuple[str, str]:
    """Return the name and the tag of an image; a digest stays with the name."""
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag or "@" in image:
        return image, "" if "@" in image else "latest"
    return name, tag


def _drain(chunks: Iterator[bytes]) -> None:
    for _ in chunks:
        pass  # progress, for people at a terminal
