"""Where jobs run. One file per backend; each registers itself in `BACKENDS`."""

from pman.backends.base import Backend
from pman.registry import Registry

BACKENDS: Registry[type[Backend]] = Registry("backend")
