"""The verbs of the API. One file per action; each registers itself in `ACTIONS`."""

from pman.actions.base import Action
from pman.registry import Registry

ACTIONS: Registry[Action] = Registry("action")
