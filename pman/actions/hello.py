"""`hello`: who is there, what time it is, what machine it is."""

from __future__ import annotations

import os
import platform
import socket
from typing import Any

import psutil

from pman.actions import action
from pman.actions.base import ActionContext, ActionRequest, Outcome
from pman.job.record import local_stamp
from pman.wire import CONTRACT_VERSION, NAME


@action(
    "hello",
    is_quick=lambda request, _: request.meta.get("askAbout") != "sysinfo",
    max_body_bytes=None,
)
def hello(request: ActionRequest, context: ActionContext) -> Outcome:
    """Answer `{"askAbout": "timestamp" | "sysinfo" | "echoBack", "echoBack"?: any}`.

    `d_ret` holds name, version and the topic; an unknown topic is answered with status false. Where
    OpenShift routes requests to pman, `route` says from which address.
    Source: WIRE.md 4.1.
    """
    if "askAbout" not in request.meta:
        return Outcome(False, {})
    topic = request.meta["askAbout"]
    about: dict[str, Any] = {"name": NAME, "version": CONTRACT_VERSION}
    if topic == "timestamp":
        about["timestamp"] = {"now": local_stamp(context.now())}
    elif topic == "echoBack":
        about["echoBack"] = {"msg": request.need("echoBack", "hello about echoBack")}
    elif topic == "sysinfo":
        about["sysinfo"] = system_information()
    else:
        return Outcome(False, about)
    for backend in context.backends.values():
        if backend.route_url is not None:
            about["route"] = backend.route_url
    return Outcome(True, about)


def system_information() -> dict[str, Any]:
    """Return the `sysinfo` of 2.2; memory in bytes, loads over 1, 5 and 15 minutes."""
    uname = platform.uname()
    return {
        "system": uname.system,
        "machine": uname.machine,
        "platform": platform.platform(),
        "uname": list(uname),
        "version": uname.version,
        "memory": list(psutil.virtual_memory()),
        "cpucount": psutil.cpu_count() or 1,
        "loadavg": list(os.getloadavg()),
        "cpu_percent": psutil.cpu_percent(interval=None),
        "hostname": socket.gethostname(),
        "inet": host_address(),
    }


def host_address() -> str:
    """Return an IPv4 address of this machine that is not 127.*, "" when it has none.

    Nothing is sent anywhere to find it.
    """
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return str(address.address)
    return ""
