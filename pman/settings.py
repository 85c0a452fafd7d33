"""`Settings`: every knob of the daemon as a plain, checked value. Knows nothing of what they do."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from pman.errors import ConfigError


def default_db_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the job DB lives when nobody says otherwise.

    Raises:
        ConfigError: This user has no home directory.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/pman")
    state_home = environ.get("XDG_STATE_HOME")
    if state_home and Path(state_home).is_absolute():
        return Path(state_home) / "pman"
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError as exc:
        raise ConfigError(
            f"user {os.geteuid()} has no home directory, expected --DBpath or XDG_STATE_HOME"
        ) from exc
    return home / ".local" / "state" / "pman"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked configuration of one daemon. Sizes are bytes, times are seconds."""

    ip: str = "127.0.0.1"
    port: int = 5010  #: 0 asks the system for a free one
    protocol: str = "tcp"  #: tcp | ipc; anything else is refused at the start
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
    max_incoming_bytes: int = 1024 * 1024 * 1024  #: of unfinished requests, all clients together
    max_outgoing_bytes: int = 256 * 1024 * 1024  #: of replies not taken, all clients together
    max_unread_bytes: int = 16 * 1024 * 1024  #: of replies to one client that does not read
    max_inline_output_bytes: int = 1024 * 1024  #: of one stream in one reply
    max_output_bytes: int = 1024 * 1024 * 1024  #: of one stream of one part or container; 0: all
    keep_jobs: int = 100_000  #: finished ones; 0: all
    keep_days: float = 30.0  #: since the end of a job; 0: for ever
    keep_bytes: int = 10 * 1024 * 1024 * 1024  #: of output of finished jobs; 0: all
    kill_grace_s: float = 10.0  #: from SIGTERM to SIGKILL
    kill_jobs_on_exit: bool = False
    pending_timeout_s: float = 300.0
    keep_finished_s: float = 0.0  #: from the end of a container job to the removal of its object
    orphan_grace_s: float = 60.0  #: how long an engine's object of ours without a job is left
    store_base: str | None = None  #: replaces the parent of shareDir, on the engine's side
    swarm_manager: str = "native"  #: native | container, as in 2.2
    project: str | None = None  #: namespace; None: that of the pod that pman runs in, or myproject
    kubeconfig: Path | None = None  #: None: what the client library finds, or the service account
    storage_type: str = "emptyDir"  #: emptyDir | hostPath | pvc | claim | swift
    share_claim: str | None = None  #: claim that storage type pvc mounts
    claim_size_bytes: int = 2 * 1024 * 1024 * 1024
    claim_access_mode: str = "ReadWriteMany"
    storage_class: str | None = None  #: None: the cluster's default
    swift_image: str = "fnndsc/pman-swift-publisher"
    swift_secret: str = "swift-credentials"  # noqa: S105  the name of one
    kubecfg_secret: str = "kubecfg"  # noqa: S105  the name of one
    job_deadline_s: float = 0.0  #: activeDeadlineSeconds; 0: none
    job_ttl_s: float = (
        7 * 24 * 3600.0
    )  #: ttlSecondsAfterFinished, should pman not come back; 0: none
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    job_uid: int | None = None  #: runAsUser; None: the cluster's choice
    job_gid: int | None = None  #: runAsGroup and fsGroup; None: the cluster's choice
    max_jobs: tuple[tuple[str, int], ...] = ()  #: (backend, most that run), "" for each; 0: any
    max_jobs_per_auid: int = 0  #: 0: any number
    callback_hosts: tuple[str, ...] = ()  #: who may be called back; "*" for everybody
    callback_secret: Path | None = None  #: None: callback.secret in db_path, made at need
    admin_only: tuple[str, ...] = ("quit", "DBctl")  #: also possible: host
    log_format: str = "text"  #: text | json
    disable_progress: bool = False
    drain_s: float = 0.0  #: from "not ready any more" to the stop
    keep_events: int = 100_000
    config_file: Path | None = None

    @property
    def exit_grace_s(self) -> float | None:
        """How long host jobs may take to end when the daemon stops; None: they run on."""
        return self.kill_grace_s if self.kill_jobs_on_exit else None

    @property
    def directive_path(self) -> Path:
        """The directive file, whether or not one was named."""
        return self.directive_file or self.db_path / "d_msg.json"

    @property
    def log_path(self) -> Path | None:
        """The file that takes the log, or None for stdout."""
        if not self.debug_to_file:
            return None
        if self.debug_file is not None:
            return self.debug_file
        home = os.environ.get("HOME")
        return Path(home, "tmp", "debug-pman.log") if home else self.db_path / "debug-pman.log"
