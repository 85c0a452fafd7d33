"""What a caller may ask for: the role that an action needs, and whose jobs a `run` may make."""

from __future__ import annotations

from pman.actions.base import ActionRequest
from pman.auth import Caller, Role
from pman.errors import Forbidden, shown
from pman.job.spec import JobSpec, spec_from_meta
from pman.option_kinds import RESTRICTABLE
from pman.settings import Settings
from pman.wire import HOST

#: Looked up for every request: a member of an enumeration costs more.
_ADMIN = Role.ADMIN


def check_right(name: str, role: Role, caller: Caller, settings: Settings) -> None:
    """Let a caller ask for an action, or raise.

    What is for administrators is about the daemon as a whole, so no token that is bound to a user
    may ask for it. `--adminOnly` says for which of these it takes no more than the right to run.

    Args:
        name: Of the action.
        role: That it is registered with.
    Raises:
        Forbidden: Says which token it needs.
    """
    if role is _ADMIN:
        if caller.auid is not None:
            raise Forbidden(
                f"{name} is about more than the jobs of one user, expected a token that is bound to"
                " no auid",
                field="action",
            )
        if name in RESTRICTABLE and name not in settings.admin_only:
            role = Role.RUN
    if caller.role < role:
        raise Forbidden(f"{name} {_expected(role, caller)}", field="action")


def check_place(backend: str, caller: Caller, settings: Settings) -> None:
    """Let a caller run a job on a backend, or raise.

    Raises:
        Forbidden: It is the host, which `--adminOnly` keeps to administrators.
    """
    if backend == HOST and HOST in settings.admin_only and caller.role < Role.ADMIN:
        raise Forbidden(f"a job on the host {_expected(Role.ADMIN, caller)}", field="cmd")


def spec_of(request: ActionRequest) -> JobSpec:
    """Return what a `run` request asks for, checked.

    For a caller that is bound to a user, `meta` is made to say whose job it is, and that the
    engine's object gets a name that no other job can have: whether a name is free tells of others.

    Raises:
        RequestError: A key is missing or of the wrong type; names it.
        Forbidden: It is to be somebody else's job.
    """
    auid = request.caller.auid
    is_lenient = not request.is_strict
    if auid is None:
        return spec_from_meta(request.meta, is_lenient=is_lenient)
    meta = request.meta
    if meta.get("auid", "") == "":
        meta["auid"] = auid
    if isinstance(meta.get("container"), dict):
        meta["container"] = meta["container"] | {"uniqueName": True}
    spec = spec_from_meta(meta, is_lenient=is_lenient)
    if spec.auid != auid:
        raise Forbidden(
            f"auid is {shown(spec.auid)}, expected {shown(auid)}, to which the token is bound",
            field="auid",
        )
    return spec


def _expected(role: Role, caller: Caller) -> str:
    return (
        f"needs a token with the role {role.name.lower()}, and this one has the role"
        f" {caller.role.name.lower()}"
    )
