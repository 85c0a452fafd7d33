"""Jobs as Jobs of OpenShift or Kubernetes; registers the backend."""

from __future__ import annotations

from typing import ClassVar

from pman.backends import BACKENDS
from pman.backends._engine.core import EngineBackend
from pman.backends._openshift.engine import KubernetesEngine
from pman.backends._openshift.logtext import log_text
from pman.backends.base import BackendContext
from pman.job.record import Job


@BACKENDS.register("openshift")
class OpenShiftBackend(EngineBackend):
    """Containers as Jobs of one project; on plain Kubernetes, of one namespace."""

    name = "openshift"
    streams = ("stdout",)  # Kubernetes keeps both as one
    #: The folders that Jobs mount are the nodes' or the cluster's, not ours.
    waits_for_share: ClassVar[bool] = False

    def __init__(self, context: BackendContext) -> None:
        self._kubernetes = KubernetesEngine(context.settings, context.instance)
        super().__init__(context, self._kubernetes)

    def log_text(self, job: Job) -> str:
        """Return the logs of all pods in the form of 2.2. Source: WIRE.md 15.3."""
        return log_text(self.context.output, job)

    @property
    def route_url(self) -> str | None:
        """Where OpenShift's router serves pman, or None."""
        return self._kubernetes.route_url
