"""`config`: one table, four sources, and messages that say what is wrong where."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from pman.config import Show, WrongArguments, build_parser, parse_arguments
from pman.errors import ConfigError
from pman.options import OPTIONS, SHOW_OPTIONS, Option
from pman.settings import Settings, default_db_path

#: Flags of 2.2. Source: WIRE.md 13.1.
OLD_FLAGS = re.findall(
    r"\S+",
    "--ip --port --protocol --rawmode --listeners --http --debugToFile --debugFile"
    " --listenerSleep --directiveFile --DBpath --DBsavePeriod --container-env --enableTokenAuth"
    " --tokenPath --verbosity --version --desc --synopsis --help",
)

#: One good value for each kind of option, and what it becomes.
EXAMPLES: dict[str, tuple[str, Any]] = {
    "--ip": ("0.0.0.0", "0.0.0.0"),
    "--port": ("0", 0),
    "--protocol": ("ipc", "ipc"),
    "--rawmode": ("0", False),
    "--listeners": ("12", 12),
    "--listenerSleep": ("0", 0.0),
    "--corsOrigin": ("https://a.example,http://b.example:8000",) * 2,
    "--maxInlineOutput": ("512k", 512 * 1024),
    "--maxBody": ("64MiB", 64 * 1024**2),
    "--maxHeader": ("65536", 65536),
    "--maxConnections": ("5", 5),
    "--headerTimeout": ("1.5", 1.5),
    "--idleTimeout": ("20", 20.0),
    "--maxIncoming": ("2GiB", 2 * 1024**3),
    "--maxOutgoing": ("512MiB", 512 * 1024**2),
    "--maxUnread": ("1GiB", 1024**3),
    "--DBpath": ("/x/db", Path("/x/db")),
    "--DBsavePeriod": ("5", 5.0),
    "--directiveFile": ("/x/d.json", Path("/x/d.json")),
    "--container-env": ("OpenShift", "openshift"),
    "--killGrace": ("0", 0.0),
    "--maxJobs": ("8,host=2", (("", 8), ("host", 2))),
    "--maxJobsPerAuid": ("3", 3),
    "--callbackHosts": ("example.org,localhost:8080",) * 2,
    "--callbackSecret": ("/x/secret", Path("/x/secret")),
    "--adminOnly": ("host,QUIT", ("host", "quit")),
    "--logFormat": ("JSON", "json"),
    "--drain": ("5", 5.0),
    "--keepEvents": ("5000", 5000),
    "--keepJobs": ("5", 5),
    "--keepDays": ("0.5", 0.5),
    "--keepBytes": ("1GiB", 1024**3),
    "--maxOutput": ("0", 0),
    "--pendingTimeout": ("7", 7.0),
    "--keepFinished": ("60", 60.0),
    "--orphanGrace": ("5", 5.0),
    "--storeBase": ("/x/store", "/x/store"),
    "--swarmManager": ("Container", "container"),
    "--project": ("chris", "chris"),
    "--kubeconfig": ("/x/kubeconfig", Path("/x/kubeconfig")),
    "--storageType": ("hostpath", "hostPath"),
    "--shareClaim": ("share", "share"),
    "--claimSize": ("5GiB", 5 * 1024**3),
    "--claimAccess": ("ReadWriteOnce", "ReadWriteOnce"),
    "--storageClass": ("fast", "fast"),
    "--swiftImage": ("local/swift:1", "local/swift:1"),
    "--swiftSecret": ("swift", "swift"),
    "--kubecfgSecret": ("kubecfg-1", "kubecfg-1"),
    "--jobDeadline": ("3600", 3600.0),
    "--jobTTL": ("0", 0.0),
    "--pullPolicy": ("always", "Always"),
    "--pullSecret": ("a,b", "a,b"),
    "--jobUID": ("1000", 1000),
    "--jobGID": ("0", 0),
    "--tokenPath": ("/x/tokens", Path("/x/tokens")),
    "--verbosity": ("3", 3),
    "--debugFile": ("/x/log", Path("/x/log")),
}

ids = {"ids": lambda option: option.flag}
valued = pytest.mark.parametrize("option", [o for o in OPTIONS if o.flag in EXAMPLES], **ids)
switches = pytest.mark.parametrize("option", [o for o in OPTIONS if o.is_switch], **ids)


def settings(*argv: str, **environ: str) -> Settings:
    given = parse_arguments(argv, environ)
    assert isinstance(given, Settings)
    return given


def problem(*argv: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_arguments(argv, environ)
    return str(caught.value)


def expected(option: Option) -> Any:
    value = EXAMPLES[option.flag][1]
    return tuple(value.split(",")) if option.is_list and isinstance(value, str) else value


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    return tmp_path / "pman.ini"


# --- the table ------------------------------------------------------------------------------


def test_every_setting_has_one_option() -> None:
    assert sorted(o.field for o in OPTIONS) == sorted(
        field.name for field in dataclasses.fields(Settings)
    )


def test_every_option_has_an_example() -> None:
    assert {o.flag for o in OPTIONS if not o.is_switch} == {*EXAMPLES, "--config"}


def test_all_flags_of_2_2_are_there() -> None:
    old = [o.flag for o in (*OPTIONS, *SHOW_OPTIONS) if not o.is_new]
    assert sorted(old) == sorted(OLD_FLAGS)


def test_defaults_are_those_of_settings() -> None:
    environ = {"XDG_STATE_HOME": "/x"}
    assert settings(**environ) == Settings(db_path=default_db_path(environ))


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS if o.default is None and not o.is_switch], **ids
)
def test_a_shown_default_is_what_leads_to_the_default(option: Option) -> None:
    value = option.read(option.shown_default, option.flag)
    assert value == getattr(Settings(), option.field)


def test_help_holds_every_flag_and_its_text() -> None:
    text = " ".join(build_parser("pman").format_help().split())
    for option in (*OPTIONS, *SHOW_OPTIONS):
        assert option.flag in text
        assert re.sub(r"\s+", "", option.help) in text.replace(" ", "")


def test_variables_are_the_flags_in_upper_case() -> None:
    variables = {option.flag: option.variable for option in OPTIONS}
    assert variables["--maxBody"] == "PMAN_MAXBODY"
    assert variables["--container-env"] == "PMAN_CONTAINER_ENV"


# --- four sources ---------------------------------------------------------------------------


@valued
def test_as_argument(option: Option) -> None:
    text = EXAMPLES[option.flag][0]
    assert getattr(settings(option.flag, text), option.field) == expected(option)
    assert getattr(settings(f"{option.flag}={text}"), option.field) == expected(option)


@valued
def test_as_variable(option: Option) -> None:
    given = settings(**{option.variable: EXAMPLES[option.flag][0]})
    assert getattr(given, option.field) == expected(option)


@valued
def test_as_line_of_the_file(option: Option, ini: Path) -> None:
    ini.write_text(f"# comment\n{option.key} = {EXAMPLES[option.flag][0]}\n")
    assert getattr(settings("--config", str(ini)), option.field) == expected(option)


@switches
def test_switches(option: Option, ini: Path) -> None:
    assert getattr(settings(option.flag), option.field) is True
    for word in ("1", "true", "Yes", "ON"):
        assert getattr(settings(**{option.variable: word}), option.field) is True
    for word in ("0", "false", "No", "OFF", ""):
        assert getattr(settings(**{option.variable: word}), option.field) is False
    ini.write_text(f"{option.key} = yes")
    assert getattr(settings(PMAN_CONFIG=str(ini)), option.field) is True
    assert getattr(settings(PMAN_CONFIG=str(ini), **{option.variable: "no"}), option.field) is False


def test_arguments_win_over_variables_over_the_file_over_defaults(ini: Path) -> None:
    ini.write_text("port = 1\nlisteners = 1\nverbosity = 3\n")
    given = settings("--port", "3", PMAN_PORT="2", PMAN_LISTENERS="2", PMAN_CONFIG=str(ini))
    assert (given.port, given.listeners, given.verbosity) == (3, 2, 3)
    assert given.max_connections == Settings().max_connections
    assert given.config_file == ini


def test_the_config_argument_wins_over_its_variable(ini: Path) -> None:
    ini.write_text("port = 1")
    assert settings("--config", str(ini), PMAN_CONFIG="/nowhere").port == 1


def test_empty_variables_are_not_set() -> None:
    assert settings(PMAN_TOKENPATH="", PMAN_PORT=" ") == settings()


def test_a_service_link_of_kubernetes_is_no_port() -> None:
    assert settings(PMAN_PORT="tcp://10.0.0.1:5010").port == 5010


def test_a_file_may_hold_the_tokens_too(ini: Path) -> None:
    ini.write_text("port = 7\n[AUTH TOKENS]\none = secret\n[AUTH RIGHTS]\n[[one]]\nrole = read\n")
    assert settings("--config", str(ini)).port == 7


def test_origins_can_be_repeated_and_listed(ini: Path) -> None:
    given = settings("--corsOrigin", "http://a", "--corsOrigin", "http://b,http://c")
    assert given.cors_origins == ("http://a", "http://b", "http://c")


def test_interpolation_and_quotes_in_the_file(ini: Path) -> None:
    ini.write_text('tokenPath = "/x/a,%(b)s#c"')
    assert settings("--config", str(ini)).token_path == Path("/x/a,%(b)s#c")


# --- meaning --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("swarm", "swarm"),
        ("SWARM", "swarm"),
        ("openshift", "openshift"),
        ("kubernetes", "openshift"),
        ("host", "host"),
        ("local", "host"),
        ("", "host"),
    ],
)
def test_container_env(text: str, name: str) -> None:
    assert settings("--container-env", text).container_env == name


@pytest.mark.parametrize("letter", "kmgtKMGT")
def test_sizes_have_binary_units_in_any_spelling(letter: str) -> None:
    size = 3 * 1024 ** ("kmgt".index(letter.lower()) + 1)
    for unit in (letter, f"{letter}i", f"{letter}iB", f"{letter}ib", f" {letter}I"):
        assert settings("--keepBytes", f"3{unit}").keep_bytes == size


@pytest.mark.parametrize("text", ["3KB", "3i", "3iB", "3B", "3 K i", "1.5Gi", "-1Gi", "3Ei", "Gi"])
def test_what_is_no_size(text: str) -> None:
    assert f"--keepBytes is '{text}', expected a size such as" in problem(f"--keepBytes={text}")


def test_variables_of_2_2_are_read_and_ours_win() -> None:
    given = settings(
        STOREBASE="/old", OPENSHIFTMGR_PROJECT="a", KUBECFG_PATH="/x/k", STORAGE_TYPE="hostPath"
    )
    assert (given.store_base, given.project, given.storage_type) == ("/old", "a", "hostPath")
    assert given.kubeconfig == Path("/x/k")
    assert settings(STOREBASE="/old", PMAN_STOREBASE="/new").store_base == "/new"
    assert "STORAGE_TYPE is 'nfs', expected one of emptyDir" in problem(STORAGE_TYPE="nfs")


def test_a_save_period_of_zero_does_not_spin() -> None:
    assert settings("--DBsavePeriod", "0").db_save_period_s > 0


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = settings("--DBpath", "db", "--tokenPath", "../t")
    assert given.db_path == tmp_path / "db"
    assert given.token_path == tmp_path.parent / "t"


def test_the_directive_file_follows_the_db_path() -> None:
    assert settings("--DBpath", "/x").directive_path == Path("/x/d_msg.json")
    assert settings("--DBpath", "/x", "--directiveFile", "/y/d").directive_path == Path("/y/d")


def test_the_log_goes_to_a_file_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert settings("--debugFile", "/x/log").log_path is None
    assert settings("--debugToFile").log_path == Path("/home/me/tmp/debug-pman.log")
    assert settings("--debugToFile", "--debugFile", "/x/log").log_path == Path("/x/log")
    monkeypatch.delenv("HOME")
    assert settings("--debugToFile", "--DBpath", "/d").log_path == Path("/d/debug-pman.log")


def test_where_the_job_db_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_db_path({"XDG_STATE_HOME": "/x"}) == Path("/var/lib/pman")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_db_path({"XDG_STATE_HOME": "/x"}) == Path("/x/pman")
    relative = {"XDG_STATE_HOME": "x", "HOME": "/home/me"}
    assert default_db_path(relative) == Path("/home/me/.local/state/pman")


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr("os.geteuid", lambda: 1234567)
    monkeypatch.setattr(Path, "home", no_home)
    assert "expected --DBpath or XDG_STATE_HOME" in problem()
    assert settings("--DBpath", "/x").db_path == Path("/x")


# --- abbreviations and texts ----------------------------------------------------------------


@pytest.mark.parametrize("flag", OLD_FLAGS)
def test_what_was_unambiguous_in_2_2_still_is(flag: str) -> None:
    option = next(o for o in (*OPTIONS, *SHOW_OPTIONS) if o.flag == flag)
    shortest = next(
        flag[:length]
        for length in range(3, len(flag) + 1)
        if [f for f in OLD_FLAGS if f.startswith(flag[:length])] == [flag] or flag[:length] == flag
    )
    if option in SHOW_OPTIONS:
        assert parse_arguments([shortest], {}) is Show(option.field)
    elif option.is_switch:
        assert getattr(settings(shortest), option.field) is True
    else:
        text = EXAMPLES[flag][0]
        assert getattr(settings(shortest, text), option.field) == EXAMPLES[flag][1]
        assert getattr(settings(f"{shortest}={text}"), option.field) == EXAMPLES[flag][1]


def test_new_flags_can_be_shortened() -> None:
    assert settings("--maxB", "1k").max_body_bytes == 1024


@pytest.mark.parametrize(
    ("argv", "show"),
    [
        (["--version"], Show.VERSION),
        (["--version", "-y"], Show.SYNOPSIS),
        (["-y", "--version", "-x"], Show.DESC),
        (["--version", "-h", "--nosuch"], Show.HELP),
        (["--version", "--port", "x"], Show.VERSION),
    ],
)
def test_texts(argv: list[str], show: Show) -> None:
    assert parse_arguments(argv, {"PMAN_PORT": "bad"}) is show


# --- what is wrong --------------------------------------------------------------------------


def test_a_bad_value_names_its_source(ini: Path) -> None:
    ini.write_text("port = x")
    end = " is 'x', expected a number from 0 to 65535"
    assert problem("--port", "x") == "--port" + end
    assert problem(PMAN_PORT="x") == "PMAN_PORT" + end
    assert problem("--config", str(ini)) == f"port in {ini}" + end


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--port", "65536"),
        ("--port", "-1"),
        ("--port", "1.0"),
        ("--port", ""),
        ("--port", "٣"),
        ("--port", "9" * 5000),
        ("--listeners", "0"),
        ("--rawmode", "2"),
        ("--ip", "a\nb"),
        ("--maxBody", "1.5k"),
        ("--maxBody", "64MB"),
        ("--maxBody", "-1"),
        ("--maxBody", "999999999TiB"),
        ("--killGrace", "nan"),
        ("--keepDays", "nan"),
        ("--keepDays", "-1"),
        ("--keepJobs", "-1"),
        ("--killGrace", "inf"),
        ("--killGrace", "-1"),
        ("--killGrace", "1e10"),
        ("--verbosity", "loud"),
        ("--tokenPath", "a\0b"),
        ("--corsOrigin", "example.org"),
        ("--corsOrigin", "*"),
    ],
)
def test_bad_values(flag: str, text: str) -> None:
    message = problem(f"{flag}={text}")
    assert message.startswith(f"{flag} is ")
    assert ", expected " in message
    assert len(message) < 300


@switches
def test_bad_switches(option: Option) -> None:
    assert problem(**{option.variable: "maybe"}).startswith(f"{option.variable} is 'maybe', ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--nosuch"], "unrecognized arguments: --nosuch"),
        (["extra"], "unrecognized arguments: extra"),
        (["--port"], "expected one argument"),
        (["--p", "1"], "ambiguous option"),
        (["--http=1"], "ignored explicit argument"),
    ],
)
def test_wrong_arguments_come_with_the_usage(argv: list[str], words: str) -> None:
    with pytest.raises(WrongArguments, match=words) as caught:
        parse_arguments(argv, {})
    assert caught.value.usage.startswith("usage: pman")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("DBPath = /x", "key 'DBPath' in {} is unknown, did you mean 'DBpath'"),
        ("max-body = 1", "key 'max-body' in {} is unknown, did you mean 'maxBody'"),
        ("--port = 1", "key '--port' in {} is unknown, did you mean 'port'"),
        ("zzz = 1", "key 'zzz' in {} is unknown, expected a flag without dashes"),
        ("config = /x", "key 'config' in {} is unknown"),
        ("version = 1", "key 'version' in {} is unknown"),
        ("[listen]\nport = 1", "key 'listen' in {} is unknown"),
        ("port = 1, 2", "port in {} is ['1', '2'], expected one value"),
        ("port", "--config {} is not an INI file"),
        ("port = 1\nport = 2", "--config {} is not an INI file"),
        (b"ip = \xff", "--config {} is not an INI file"),
    ],
)
def test_bad_files(content: str | bytes, words: str, ini: Path) -> None:
    ini.write_bytes(content.encode() if isinstance(content, str) else content)
    assert problem("--config", str(ini)).startswith(words.format(ini))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert problem(f"--config={tmp_path / 'none'}").endswith("No such file or directory")
    assert problem(f"--config={tmp_path}").endswith("Is a directory")
