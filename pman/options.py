"""`OPTIONS`: the one table that flags, help texts, variables and file keys come from."""

from __future__ import annotations

import dataclasses
from typing import Any

from pman.errors import ConfigError, shown
from pman.option_kinds import (
    ADMIN_ONLY,
    DAYS,
    ENVIRONMENT,
    JOB_LIMITS,
    NAMES,
    ORIGINS,
    PATH,
    RAW_MODE,
    SIZE,
    SWITCH,
    TEXT,
    Kind,
    choice,
    number,
    seconds,
)
from pman.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """One knob.

    Attributes:
        flag: Long flag; its other names are made from it.
        field: Field of `Settings`, or of the parsed arguments.
        kind: How its text is read.
        help: One or two sentences.
        group: Heading in `--help`; "" for none.
        metavar: Stands for the value in texts; "" for switches.
        default: Text for the default where `Settings` cannot tell; "" for none.
        aliases: Short flags.
        is_new: True for what 2.2 did not have.
        is_list: May be given more than once.
    """

    flag: str
    field: str
    kind: Kind = SWITCH
    help: str
    group: str = ""
    metavar: str = ""
    default: str | None = None
    aliases: tuple[str, ...] = ()
    is_new: bool = False
    is_list: bool = False
    old_variable: str = ""

    @property
    def key(self) -> str:
        """Name in the configuration file."""
        return self.flag.removeprefix("--")

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return "PMAN_" + self.key.upper().replace("-", "_")

    @property
    def is_switch(self) -> bool:
        """True when the flag stands alone."""
        return self.kind is SWITCH

    @property
    def shown_default(self) -> str:
        """The default as a person would write it, "" when there is none."""
        if self.default is not None:
            return self.default
        return self.kind.spell(_DEFAULTS[self.field])

    def read(self, text: str, given_as: str) -> Any:
        """Make the value from text.

        Args:
            text: What was given.
            given_as: Where, for the message: `--port`, `PMAN_PORT`, `port in FILE`.
        Raises:
            ConfigError: The text is not of this kind.
        """
        try:
            return self.kind.parse(text.strip())
        except (ValueError, KeyError) as exc:
            raise ConfigError(
                f"{given_as} is {shown(text)}, expected {self.kind.expected}", field=self.key
            ) from exc


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Settings)}

OPTIONS: tuple[Option, ...] = (
    Option(
        flag="--ip",
        field="ip",
        kind=TEXT,
        metavar="ADDRESS",
        group="Listening",
        help="Address to listen on: an IP address, the name of an interface, or '*' for all. With"
        " --protocol ipc, the path of the socket file (else pman-PORT.sock in the DBpath).",
    ),
    Option(
        flag="--port",
        field="port",
        kind=number(0, 65535),
        metavar="PORT",
        group="Listening",
        help="Port to listen on; 0 takes a free one and the log says which.",
    ),
    Option(
        flag="--protocol",
        field="protocol",
        kind=TEXT,  # what it may be is checked where it listens: not 2 but 1 is the exit status
        metavar="NAME",
        group="Listening",
        help="Transport: tcp, or ipc for a socket file on this machine.",
    ),
    Option(
        flag="--rawmode",
        field="rawmode",
        kind=RAW_MODE,
        metavar="MODE",
        group="Listening",
        help="1 speaks HTTP; 0 speaks ZMTP to ZeroMQ peers.",
    ),
    Option(
        flag="--listeners",
        field="listeners",
        kind=number(1, 1024),
        metavar="COUNT",
        group="Listening",
        help="Threads that carry out requests.",
    ),
    Option(
        flag="--listenerSleep",
        field="listener_sleep_s",
        kind=seconds(),
        metavar="SECONDS",
        group="Listening",
        help="Has no effect; taken because older versions had it.",
    ),
    Option(
        flag="--drain",
        field="drain_s",
        kind=seconds(),
        metavar="SECONDS",
        group="Listening",
        is_new=True,
        help="How long requests are still served after the stop was asked for, while /readyz"
        " already says no.",
    ),
    Option(
        flag="--http",
        field="http",
        group="Replies",
        help="Send replies with content type application/html instead of application/json.",
    ),
    Option(
        flag="--corsOrigin",
        field="cors_origins",
        kind=ORIGINS,
        metavar="ORIGIN",
        default="",
        group="Replies",
        is_new=True,
        is_list=True,
        help="Origin whose pages may use pman from a browser; those of all others are refused."
        " Can be repeated, or hold several with commas between.",
    ),
    Option(
        flag="--maxInlineOutput",
        field="max_inline_output_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Replies",
        is_new=True,
        help="Most of one output stream of a job that a reply holds; the end is kept.",
    ),
    Option(
        flag="--maxBody",
        field="max_body_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Limits",
        is_new=True,
        help="Longest body of a request, and longest directive.",
    ),
    Option(
        flag="--maxHeader",
        field="max_header_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Limits",
        is_new=True,
        help="Longest head of a request.",
    ),
    Option(
        flag="--maxConnections",
        field="max_connections",
        kind=number(1, 1_000_000),
        metavar="COUNT",
        group="Limits",
        is_new=True,
        help="Most connections at a time.",
    ),
    Option(
        flag="--headerTimeout",
        field="header_timeout_s",
        kind=seconds(0.1),
        metavar="SECONDS",
        group="Limits",
        is_new=True,
        help="Longest time from the first byte of a request to its last.",
    ),
    Option(
        flag="--idleTimeout",
        field="idle_timeout_s",
        kind=seconds(0.1),
        metavar="SECONDS",
        group="Limits",
        is_new=True,
        help="Longest time that a connection may stay open between requests.",
    ),
    Option(
        flag="--maxIncoming",
        field="max_incoming_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Limits",
        is_new=True,
        help="Most bytes of unanswered requests kept for all clients together.",
    ),
    Option(
        flag="--maxOutgoing",
        field="max_outgoing_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Limits",
        is_new=True,
        help="Most bytes of unread replies kept for all clients together.",
    ),
    Option(
        flag="--maxUnread",
        field="max_unread_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Limits",
        is_new=True,
        help="Most bytes of replies kept for a client that does not read them.",
    ),
    Option(
        flag="--DBpath",
        field="db_path",
        kind=PATH,
        metavar="FOLDER",
        default="$XDG_STATE_HOME/pman, else ~/.local/state/pman; /var/lib/pman for root",
        group="Job DB",
        help="Folder of the job DB.",
    ),
    Option(
        flag="--DBsavePeriod",
        field="db_save_period_s",
        kind=seconds(0.1),
        metavar="SECONDS",
        group="Job DB",
        help="Time between two writes of the readable snapshot; less than 0.1 is taken as 0.1. Jobs"
        " are safe without it.",
    ),
    Option(
        flag="--keepEvents",
        field="keep_events",
        kind=number(1000, 1_000_000_000),
        metavar="COUNT",
        group="Job DB",
        is_new=True,
        help="Most events of jobs that are kept; beyond that the oldest are forgotten.",
    ),
    Option(
        flag="--directiveFile",
        field="directive_file",
        kind=PATH,
        metavar="FILE",
        default="d_msg.json in the DBpath",
        group="Job DB",
        help="File that is looked for once a second, carried out as a request, and removed.",
    ),
    Option(
        flag="--container-env",
        field="container_env",
        kind=ENVIRONMENT,
        metavar="NAME",
        group="Jobs",
        help="Where jobs with a container block run: swarm, openshift or kubernetes; anything else:"
        " host only.",
    ),
    Option(
        flag="--disableHostJobs",
        field="disable_host_jobs",
        group="Jobs",
        is_new=True,
        help="Refuse jobs that would run on this machine outside of a container.",
    ),
    Option(
        flag="--maxJobs",
        field="max_jobs",
        kind=JOB_LIMITS,
        metavar="COUNT",
        default="",
        group="Jobs",
        is_new=True,
        is_list=True,
        help="Most jobs that run at a time on each backend; those over it wait, the highest"
        " priority first. host=COUNT (swarm=, openshift=) is for that backend alone. Can be"
        " repeated, or hold several with commas between. Default: any number.",
    ),
    Option(
        flag="--maxJobsPerAuid",
        field="max_jobs_per_auid",
        kind=number(0, 1_000_000_000),
        metavar="COUNT",
        group="Jobs",
        is_new=True,
        help="Most jobs of one auid that run at a time; those over it wait. 0 is any number.",
    ),
    Option(
        flag="--disableProgress",
        field="disable_progress",
        group="Jobs",
        is_new=True,
        help="Do not look for progress that jobs print.",
    ),
    Option(
        flag="--callbackHosts",
        field="callback_hosts",
        kind=NAMES,
        metavar="HOST",
        default="",
        group="Jobs",
        is_new=True,
        is_list=True,
        help="Host that a job's callback may go to, at port 80 (http) or 443 (https); host:port for"
        " another, host:* for any; '*' allows everything. Can be repeated, or hold several with"
        " commas between. Default: none, jobs with a callback are refused.",
    ),
    Option(
        flag="--callbackSecret",
        field="callback_secret",
        kind=PATH,
        metavar="FILE",
        default="callback.secret in the DBpath, made when it is first needed",
        group="Jobs",
        is_new=True,
        help="File with the secret that callbacks are signed with.",
    ),
    Option(
        flag="--killGrace",
        field="kill_grace_s",
        kind=seconds(),
        metavar="SECONDS",
        group="Jobs",
        is_new=True,
        help="Time from SIGTERM to SIGKILL when a job is cancelled.",
    ),
    Option(
        flag="--killJobsOnExit",
        field="kill_jobs_on_exit",
        group="Jobs",
        is_new=True,
        help="Cancel the host jobs when the daemon stops, and wait for their end. Without it they"
        " run on, and the next daemon takes them over.",
    ),
    Option(
        flag="--keepJobs",
        field="keep_jobs",
        kind=number(0, 1_000_000_000),
        metavar="COUNT",
        group="Jobs",
        is_new=True,
        help="Most finished jobs that are kept: beyond that those that ended first are forgotten,"
        " with their output. 0 keeps all.",
    ),
    Option(
        flag="--keepDays",
        field="keep_days",
        kind=DAYS,
        metavar="DAYS",
        group="Jobs",
        is_new=True,
        help="How long a job is kept after its end. 0 keeps it for ever.",
    ),
    Option(
        flag="--keepBytes",
        field="keep_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Jobs",
        is_new=True,
        help="Most output of finished jobs that is kept: beyond that those that ended first are"
        " forgotten. 0 keeps all.",
    ),
    Option(
        flag="--maxOutput",
        field="max_output_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="Jobs",
        is_new=True,
        help="Most of one output stream of a job that is kept: past it the middle is dropped"
        " and the job goes on. 0 keeps all.",
    ),
    Option(
        flag="--pendingTimeout",
        field="pending_timeout_s",
        kind=seconds(),
        metavar="SECONDS",
        group="Jobs",
        is_new=True,
        help="How long a job that cannot start may wait for what it needs before it has failed.",
    ),
    Option(
        flag="--keepFinished",
        field="keep_finished_s",
        kind=seconds(),
        metavar="SECONDS",
        group="Containers",
        is_new=True,
        help="How long the service or Job of a job stays on the engine after its end. Output and"
        " exit codes are safe before it goes.",
    ),
    Option(
        flag="--orphanGrace",
        field="orphan_grace_s",
        kind=seconds(),
        metavar="SECONDS",
        group="Containers",
        is_new=True,
        help="How long an object on the engine that carries our label and belongs to no job is"
        " left before it is removed.",
    ),
    Option(
        flag="--storeBase",
        field="store_base",
        kind=TEXT,
        metavar="FOLDER",
        default="",
        group="Containers",
        is_new=True,
        old_variable="STOREBASE",
        help="Folder, as the engine sees it, that holds the shareDir of every job: replaces the"
        " parent of a shareDir.",
    ),
    Option(
        flag="--swarmManager",
        field="swarm_manager",
        kind=choice("native", "container"),
        metavar="WHO",
        group="Docker Swarm",
        is_new=True,
        help="Who makes the services: native, pman itself; container, the manager image that a job"
        " names, as in 2.2.",
    ),
    Option(
        flag="--project",
        field="project",
        kind=TEXT,
        metavar="NAME",
        default="the one that pman runs in, else myproject",
        group="OpenShift",
        is_new=True,
        old_variable="OPENSHIFTMGR_PROJECT",
        help="Project (namespace) of the jobs.",
    ),
    Option(
        flag="--kubeconfig",
        field="kubeconfig",
        kind=PATH,
        metavar="FILE",
        default="$KUBECONFIG, ~/.kube/config, else the service account of the pod",
        group="OpenShift",
        is_new=True,
        old_variable="KUBECFG_PATH",
        help="How to reach the API server, and as whom.",
    ),
    Option(
        flag="--storageType",
        field="storage_type",
        kind=choice("emptyDir", "hostPath", "pvc", "claim", "swift"),
        metavar="TYPE",
        group="OpenShift",
        is_new=True,
        old_variable="STORAGE_TYPE",
        help="What is mounted at /share: emptyDir, scratch space; hostPath, a folder of the node,"
        " as in 2.2; pvc, a folder of --shareClaim; claim, a claim per job; swift, filled and"
        " emptied by --swiftImage.",
    ),
    Option(
        flag="--shareClaim",
        field="share_claim",
        kind=TEXT,
        metavar="NAME",
        default="",
        group="OpenShift",
        is_new=True,
        help="Persistent volume claim of storage type pvc.",
    ),
    Option(
        flag="--claimSize",
        field="claim_size_bytes",
        kind=SIZE,
        metavar="SIZE",
        group="OpenShift",
        is_new=True,
        help="Size of the claim of a job, for the storage types claim and swift.",
    ),
    Option(
        flag="--claimAccess",
        field="claim_access_mode",
        kind=choice("ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"),
        metavar="MODE",
        group="OpenShift",
        is_new=True,
        help="Access mode of the claim of a job.",
    ),
    Option(
        flag="--storageClass",
        field="storage_class",
        kind=TEXT,
        metavar="NAME",
        default="that of the cluster",
        group="OpenShift",
        is_new=True,
        help="Storage class of the claim of a job.",
    ),
    Option(
        flag="--swiftImage",
        field="swift_image",
        kind=TEXT,
        metavar="IMAGE",
        group="OpenShift",
        is_new=True,
        help="Image of the containers that fetch and publish data with storage type swift.",
    ),
    Option(
        flag="--swiftSecret",
        field="swift_secret",
        kind=TEXT,
        metavar="NAME",
        group="OpenShift",
        is_new=True,
        help="Secret with the credentials for swift.",
    ),
    Option(
        flag="--kubecfgSecret",
        field="kubecfg_secret",
        kind=TEXT,
        metavar="NAME",
        group="OpenShift",
        is_new=True,
        help="Secret with the kubeconfig that the publishing container needs.",
    ),
    Option(
        flag="--jobDeadline",
        field="job_deadline_s",
        kind=seconds(),
        metavar="SECONDS",
        group="OpenShift",
        is_new=True,
        help="Longest run time of a job. 0 sets no limit.",
    ),
    Option(
        flag="--jobTTL",
        field="job_ttl_s",
        kind=seconds(),
        metavar="SECONDS",
        group="OpenShift",
        is_new=True,
        help="When the cluster removes a finished Job by itself, should pman not come back to do"
        " so; its result is lost then. 0: never.",
    ),
    Option(
        flag="--pullPolicy",
        field="pull_policy",
        kind=choice("IfNotPresent", "Always", "Never"),
        metavar="POLICY",
        group="OpenShift",
        is_new=True,
        help="When images are pulled.",
    ),
    Option(
        flag="--pullSecret",
        field="pull_secrets",
        kind=NAMES,
        metavar="NAME",
        group="OpenShift",
        is_list=True,
        is_new=True,
        help="Secret for pulling images. Can be repeated, or hold several with commas between.",
    ),
    Option(
        flag="--jobUID",
        field="job_uid",
        kind=number(1, 2**31 - 1),
        metavar="UID",
        default="that of the image, or of the project on OpenShift",
        group="OpenShift",
        is_new=True,
        help="User id that containers run as. They never run as root: an image whose user is root"
        " needs this on plain Kubernetes.",
    ),
    Option(
        flag="--jobGID",
        field="job_gid",
        kind=number(0, 2**31 - 1),
        metavar="GID",
        default="that of the image, or of the project on OpenShift",
        group="OpenShift",
        is_new=True,
        help="Group id that containers run as, and that owns their volumes.",
    ),
    Option(
        flag="--enableTokenAuth",
        field="enable_token_auth",
        group="Security",
        help="Carry out only requests that hold a token of --tokenPath.",
    ),
    Option(
        flag="--tokenPath",
        field="token_path",
        kind=PATH,
        metavar="FILE",
        default="socket_config.cfg in the working directory",
        group="Security",
        help="INI file with tokens in its section [AUTH TOKENS], or file with one token on a line.",
    ),
    Option(
        flag="--adminOnly",
        field="admin_only",
        kind=ADMIN_ONLY,
        metavar="WHAT",
        group="Security",
        is_new=True,
        is_list=True,
        help="What only tokens with the role admin may ask for: quit, DBctl, host (jobs on this"
        " machine), with commas between, or none.",
    ),
    Option(
        flag="--logFormat",
        field="log_format",
        kind=choice("text", "json"),
        metavar="FORM",
        group="Log",
        is_new=True,
        help="Form of the log: text; or json, one object a line, with a line for each request and"
        " each change of a job's state.",
    ),
    Option(
        flag="--verbosity",
        field="verbosity",
        kind=number(0, 9),
        metavar="LEVEL",
        aliases=("-v",),
        group="Log",
        help="0 logs errors only, 1 what happens, 2 details, 3 those of the libraries as well.",
    ),
    Option(
        flag="--debugToFile",
        field="debug_to_file",
        group="Log",
        help="Write the log to --debugFile instead of stdout.",
    ),
    Option(
        flag="--debugFile",
        field="debug_file",
        kind=PATH,
        metavar="FILE",
        default="$HOME/tmp/debug-pman.log",
        group="Log",
        help="File for --debugToFile; its folder is created.",
    ),
    Option(
        flag="--config",
        field="config_file",
        kind=PATH,
        metavar="FILE",
        default="",
        group="Configuration",
        is_new=True,
        help="INI file with lines 'flag = value', flags without their dashes. Environment variables"
        " win over it, arguments over both.",
    ),
)

SHOW_OPTIONS: tuple[Option, ...] = (
    Option(flag="--help", field="help", aliases=("-h",), help="Show the flags."),
    Option(flag="--desc", field="desc", aliases=("-x",), help="Show the long description."),
    Option(
        flag="--synopsis", field="synopsis", aliases=("-y",), help="Show the short description."
    ),
    Option(flag="--version", field="version", help="Show the version."),
)
