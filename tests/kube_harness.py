"""A `KubernetesEngine` on the real cluster, with its watch, and nothing left behind."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pman.backends._engine.order import Order, order_from_meta
from pman.backends._engine.port import Phase, View
from pman.backends._openshift.engine import KubernetesEngine
from pman.errors import BackendUnavailable
from pman.job.record import local_stamp
from pman.settings import Settings

IMAGE = "local/busybox:1"
UID = 1000
#: How long the cluster may take for anything, seconds. Its kubelet takes 15 to report a pod that
#: was deleted.
DEADLINE_S = 120.0


class KeptOutput:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.streams: dict[tuple[int, str], bytes] = {}

    def write(self, worker: int, stream: str, raw: bytes) -> None:
        key = worker, stream
        self.streams[key] = self.streams.get(key, b"") + raw


class KubeBox:
    """An engine of an instance of its own. Attributes: failures, with which watches ended."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.instance = f"kt-{uuid.uuid4().hex[:8]}"
        values: dict[str, Any] = {"db_path": folder, "job_uid": UID, "kill_grace_s": 2.0}
        self.settings = Settings(**values | settings)
        self.engine = KubernetesEngine(self.settings, self.instance)
        self.failures: list[BackendUnavailable] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._names: set[str] = set()

    def start(self) -> None:
        """Connect, and watch."""
        self.engine.connect()
        self._thread.start()
        self.wait_watching()

    def wait_watching(self) -> None:
        """Wait until a watch has begun since the last call."""
        assert self._up.wait(DEADLINE_S), f"the watch has not begun: {self.failures}"
        self._up.clear()

    def close(self) -> None:
        """End the watch, and remove what is there."""
        self._stop.set()
        self.engine.interrupt()
        if self._thread.is_alive():
            self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self.engine.close()
        kinds = "jobs,pods,persistentvolumeclaims,configmaps"
        self.kubectl("delete", kinds, "-l", f"pman.instance={self.instance}", "--wait=false")

    def kubectl(self, *words: str) -> str:
        """Run kubectl in the namespace of the jobs; return what it prints."""
        namespace = self.settings.project or "myproject"
        command = ("kubectl", "-n", namespace, *words)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def names(self, kinds: str) -> list[str]:
        """Return the names of what there is of this instance."""
        found = self.kubectl("get", kinds, "-l", f"pman.instance={self.instance}", "-o", "name")
        return found.split()

    def order(self, cmd: str, jid: str = "", **meta: Any) -> Order:
        """Return an order; small, so that many fit on the node."""
        image = meta.pop("image", IMAGE)
        env = meta.pop("manager_env", {})
        block = {"target": {"image": image}, "manager": {"env": env}}
        small = {"cpu_limit": "100m", "memory_limit": "64Mi"}
        whole = {"cmd": cmd, "jid": jid or self.instance, "auid": "t", "container": block}
        name = f"{local_stamp(time.time())}_{uuid.uuid4()}"
        return order_from_meta(whole | small | meta, job_name=name)

    def shell(self, script: str, jid: str = "", **meta: Any) -> Order:
        """Return an order for a shell script without single quotes."""
        return self.order(f"sh -c '{script}'", jid, **meta)

    def view(self, order: Order, handle: dict[str, Any]) -> View:
        found = self.engine.look(order.job_name, handle)
        assert found is not None, "the Job is gone"
        return found

    def until(self, order: Order, handle: dict[str, Any], is_so: Callable[[View], bool]) -> View:
        """Return the view once it is so; looks after each change, and now and then."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            seen = self.view(order, handle)
            if is_so(seen):
                return seen
            assert time.monotonic() < deadline, seen
            with self._changed:
                self._changed.wait(0.5)

    def ended(self, order: Order, handle: dict[str, Any]) -> View:
        return self.until(order, handle, lambda view: view.phase is Phase.ENDED)

    def running(self, order: Order, handle: dict[str, Any]) -> View:
        """Return the view once all workers run."""
        return self.until(
            order,
            handle,
            lambda view: (
                len(view.workers) == order.workers
                and all(worker.state == "Running" for worker in view.workers)
            ),
        )

    def run(self, order: Order) -> dict[str, Any]:
        return self.engine.create(order, None)

    def collected(self, view: View) -> dict[tuple[int, str], bytes]:
        sink = KeptOutput()
        self.engine.collect(view, sink)
        return sink.streams

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.engine.connect()
                self.engine.watch(self._report, self._stop)
            except BackendUnavailable as exc:
                self.failures.append(exc)
                self._stop.wait(0.1)

    def _report(self, job_name: str | None, _is_hot: bool) -> None:
        if job_name is None:
            self._up.set()
        with self._changed:
            self._changed.notify_all()


@contextlib.contextmanager
def kube_box(folder: Path, **settings: Any) -> Iterator[KubeBox]:
    """Yield a box that watches; what it made is removed."""
    box = KubeBox(folder, **settings)
    try:
        box.start()
        yield box
    finally:
        box.close()
