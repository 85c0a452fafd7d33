"""Jobs as services of a Docker Swarm; registers the backend."""

from __future__ import annotations

from pman.backends import BACKENDS
from pman.backends._engine.core import EngineBackend
from pman.backends._swarm.engine import SwarmEngine
from pman.backends.base import BackendContext


@BACKENDS.register("swarm")
class SwarmBackend(EngineBackend):
    """Containers on a Docker Swarm; with `--swarmManager container`, made by the manager image."""

    name = "swarm"

    def __init__(self, context: BackendContext) -> None:
        super().__init__(
            context, SwarmEngine(context.settings, context.instance, context.state_path)
        )
