"""`Settings`: every knob of the daemon, from defaults < file < environment < arguments."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path


def default_db_path() -> Path:
    """Return where the job DB lives when nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/pman")
    state_home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state_home) / "pman"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked configuration of one daemon. Sizes are bytes, times are seconds."""

    ip: str = "127.0.0.1"
    port: int = 5010  #: 0 asks the system for a free one
    protocol: str = "tcp"  #: tcp | ipc
    rawmode: bool = True  #: HTTP over a raw ROUTER; False: ZMTP peers
    listeners: int = 4
    http: bool = False  #: content type application/html instead of application/json
    debug_to_file: bool = False
    debug_file: Path | None = None
    listener_sleep_s: float = 0.1  #: accepted for 2.2's sake; has no effect
    directive_file: Path | None = None  #: None: d_msg.json in db_path
    db_path: Path = dataclasses.field(default_factory=default_db_path)
    db_save_period_s: float = 60.0
    container_env: str = "swarm"  #: backend of jobs with a container block
    disable_host_jobs: bool = False
    enable_token_auth: bool = False
    token_path: Path | None = None  #: None: socket_config.cfg in the working directory
    verbosity: int = 1
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 64 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    max_connections: int = 10_000
    header_timeout_s: float = 30.0  #: from the first byte of a request to its last
    idle_timeout_s: float = 300.0  #: between requests
    max_unread_bytes: int = 16 * 1024 * 1024  #: of replies to one client that does not read
    max_inline_output_bytes: int = 1024 * 1024  #: of one stream in one reply
    kill_grace_s: float = 10.0  #: from SIGTERM to SIGKILL
    pending_timeout_s: float = 300.0
    config_file: Path | None = None
