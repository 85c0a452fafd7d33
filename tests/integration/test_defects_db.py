"""Defects 55 to 67 of pman 2.2: one test a defect, the number is in the name."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import golden_replay as golden
import pytest
from daemon_factory import NewDaemon
from daemon_process import DEADLINE_S, DaemonProcess, wait_until
from gate import Gate
from leftovers import end_shepherds, shepherds
from probes import assert_refused, job_names, output_of, run_pman


def run_many(daemon: DaemonProcess, count: int, prefix: str = "m") -> list[str]:
    """Run `count` short jobs to their end; return the names of all jobs."""
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda n: daemon.run("true", f"{prefix}{n}"), range(count)))
    assert all(reply.json()["status"] for reply in replies)
    for n in range(count):
        daemon.wait_finished(f"{prefix}{n}")
    return job_names(daemon)


def snapshot_files(daemon: DaemonProcess) -> list[Path]:
    return sorted((daemon.db_path / "jobs").glob("*/*.json"))


def remove_database(daemon: DaemonProcess) -> None:
    for path in daemon.db_path.glob("pman.db*"):
        path.unlink()


@pytest.fixture
def filled(daemon: DaemonProcess) -> DaemonProcess:
    """A daemon that was stopped with five jobs in its job DB."""
    run_many(daemon, 5)
    assert daemon.stop() == 0
    return daemon


@pytest.mark.slow
def test_defect_55_kill_during_saves_loses_nothing(new_daemon: NewDaemon, tmp_path: Path) -> None:
    chance = random.Random(55)
    daemon = new_daemon("--DBsavePeriod", "1")
    names = run_many(daemon, 150)
    export = tmp_path / "export"
    assert daemon.post("DBctl", do="save", dbpath=str(export)).status == 200
    for attempt in range(4):
        daemon.run("true", f"more{attempt}")
        names = job_names(daemon)
        saves = [
            threading.Thread(target=save_until_killed, args=(daemon, path))
            for path in (None, str(export))
        ]
        for thread in saves:
            thread.start()
        time.sleep(chance.uniform(0.02, 0.4))  # anywhere in a save
        daemon.kill()
        for thread in saves:
            thread.join()
        exported = [path for path in export.iterdir() if path.is_dir() and "_" in path.name]
        assert 150 <= len(exported) <= len(names)
        daemon.start()
        assert job_names(daemon) == names


def save_until_killed(daemon: DaemonProcess, dbpath: str | None) -> None:
    where = {} if dbpath is None else {"dbpath": dbpath}
    try:
        while True:
            daemon.post("DBctl", do="save", **where)
    except OSError:
        return  # the daemon is dead


@pytest.mark.slow
def test_defect_56_damaged_database_is_rebuilt(filled: DaemonProcess) -> None:
    names = [path.stem for path in snapshot_files(filled)]
    assert len(names) == 5
    for damage in (
        b"",
        b"not a data base " * 1000,
        (filled.db_path / "pman.db").read_bytes()[:5000],
    ):
        for path in filled.db_path.glob("pman.db-*"):
            path.unlink()
        (filled.db_path / "pman.db").write_bytes(damage)
        filled.start()
        assert job_names(filled) == names
        assert filled.words("m0") == ["finishedSuccessfully"]
        assert filled.stop() == 0


def test_defect_56_missing_database_is_rebuilt(filled: DaemonProcess) -> None:
    names = [path.stem for path in snapshot_files(filled)]
    remove_database(filled)
    filled.start()
    assert job_names(filled) == names


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["", '{"half": '])
def test_defect_56_truncated_file_in_the_snapshot(filled: DaemonProcess, damage: str) -> None:
    files = snapshot_files(filled)
    files[2].write_text(damage)
    remove_database(filled)
    filled.start()
    others = [path.stem for path in files if path != files[2]]
    assert [name for name in job_names(filled) if name != files[2].stem] == others
    assert filled.stop() == 0


def test_defect_56_truncated_file_in_a_tree_of_2_2(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(is_started=False)
    tree = golden.load("db-001-layout-finished")["tree"]
    for name, text in tree.items():
        path = daemon.db_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    first, second = sorted({name.split("/")[0] for name in tree})
    (daemon.db_path / first / "endInfo").write_text("")
    daemon.start()
    assert second in job_names(daemon)


def test_defect_57_pickle_is_refused(shared_daemon: DaemonProcess, tmp_path: Path) -> None:
    target = tmp_path / "pk"
    target.mkdir()
    (target / "x").write_text("precious")
    save = {"do": "save", "dbpath": str(target), "fileio": "pickle"}
    assert_refused(shared_daemon.post("DBctl", **save), 400, None, "fileio")
    assert (target / "x").read_text() == "precious"
    assert_refused(shared_daemon.post("DBctl", do="save", fileio="pickle"), 400, None, "fileio")
    assert shared_daemon.post("DBctl", do="save").status == 200


@pytest.mark.slow
def test_defect_58_put_save_of_a_part_changes_nothing(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    names = run_many(daemon, 4)
    part = {"context": "db", "operation": "save", "dbpath": str(tmp_path / "s")}
    document = {"payload": {"action": "run", "meta": {**part, "key": "jid", "value": "m2"}}}
    assert daemon.request("PUT", "/api/v1/cmd", json.dumps(document)).json()["status"] is True
    exported = [path for path in (tmp_path / "s").iterdir() if path.is_dir()]
    assert len(exported) == 1
    assert json.loads((exported[0] / "jid").read_text()) == "m2"
    assert job_names(daemon) == names
    assert daemon.post("DBctl", do="save").status == 200
    assert [path.stem for path in snapshot_files(daemon)] == sorted(names)
    assert daemon.stop() == 0
    daemon.start()
    assert job_names(daemon) == names


@pytest.mark.slow
@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "SIGKILL", "quit"])
def test_defect_59_acknowledged_jobs_survive_every_end(daemon: DaemonProcess, end: str) -> None:
    assert daemon.run("echo kept", "z").json()["status"] is True
    if end == "quit":
        daemon.post("quit")
    else:
        os.kill(daemon.pid, getattr(signal, end))
    assert daemon.process is not None
    daemon.process.wait(DEADLINE_S)
    daemon.start()
    assert daemon.wait_finished("z") == ["finishedSuccessfully"]
    assert output_of(daemon, "z") == "kept\n"
    assert len(job_names(daemon)) == 1


@pytest.mark.slow
def test_defect_60_clear_keeps_running_jobs_only(daemon: DaemonProcess, gate: Gate) -> None:
    run_many(daemon, 3)
    daemon.run(gate.passage, "c")
    wait_until(lambda: daemon.words("c") == ["started"], "the job runs")
    (running,) = daemon.post("DBctl", do="clear").json()["d_ret"]
    assert daemon.status("c")["0.end"]["jobRoot"] == running
    gate.open()
    assert daemon.wait_finished("c") == ["finishedSuccessfully"]
    assert job_names(daemon) == [running]
    assert daemon.post("DBctl", do="save").status == 200
    assert [path.stem for path in snapshot_files(daemon)] == [running]
    daemon.kill()
    daemon.start()
    assert job_names(daemon) == [running]


@pytest.mark.slow
def test_defect_61_job_that_ran_during_a_restart_has_its_true_end(
    daemon: DaemonProcess, gate: Gate
) -> None:
    for jid in ("before", "after"):
        daemon.run(f"{gate.passage} && echo {jid} && exit 7", jid)
        wait_until(lambda jid=jid: daemon.words(jid) == ["started"], "the job runs")
        if jid == "before":
            daemon.kill()  # ends while there is no daemon
            gate.open()
            daemon.start()
            daemon.wait_finished(jid)
        else:
            daemon.kill()  # ends under the new daemon
            daemon.start()
            assert daemon.words(jid) == ["started"]
            gate.open()
        assert daemon.wait_finished(jid) == ["finishedWithError"]
        assert daemon.status(jid)["0.end"]["returncode"] == [7]
        assert output_of(daemon, jid) == f"{jid}\n"


@pytest.mark.slow
def test_defect_61_job_that_died_with_everything_is_not_started_for_ever(
    daemon: DaemonProcess, gate: Gate
) -> None:
    daemon.run(gate.passage, "lost")
    wait_until(lambda: daemon.words("lost") == ["started"], "the job runs")
    assert len(shepherds(daemon.db_path)) == 1
    daemon.kill()
    end_shepherds(daemon.db_path)
    daemon.start()
    assert daemon.wait_finished("lost") == ["finishedWithError"]
    assert daemon.run("true", "next").json()["status"] is True
    assert daemon.wait_finished("next") == ["finishedSuccessfully"]


def test_defect_62_load_of_nothing_is_404(shared_daemon: DaemonProcess, tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    reply = shared_daemon.post("DBctl", do="load", dbpath=str(missing))
    assert_refused(reply, 404, None, "dbpath")
    assert not missing.exists()


@pytest.mark.parametrize("path", ["/proc/x", "/dev/null"])
def test_defect_62_unusable_dbpath_ends_the_start(path: str) -> None:
    ended = run_pman("--ip", "127.0.0.1", "--port", "0", "--DBpath", path)
    assert ended.returncode == 1
    (line,) = ended.stderr.strip().splitlines()
    assert path in line


@pytest.fixture
def constant_saves(daemon: DaemonProcess, tmp_path: Path) -> Iterator[None]:
    """Save the job DB in both forms, without pause."""
    stop = threading.Event()

    def save(where: dict[str, str]) -> None:
        while not stop.is_set():
            assert daemon.post("DBctl", do="save", **where).status == 200

    with ThreadPoolExecutor(2) as threads:
        saves = [threads.submit(save, w) for w in ({}, {"dbpath": str(tmp_path / "export")})]
        yield
        stop.set()
        for each in saves:
            each.result(DEADLINE_S)


@pytest.mark.slow
@pytest.mark.usefixtures("constant_saves")
def test_defect_63_saves_change_no_working_directory(daemon: DaemonProcess) -> None:
    for n in range(20):
        daemon.run("pwd", f"w{n}")
    for n in range(20):
        assert daemon.wait_finished(f"w{n}") == ["finishedSuccessfully"]
        assert output_of(daemon, f"w{n}") == f"{daemon.folder}\n"
    assert Path(f"/proc/{daemon.pid}/cwd").readlink() == daemon.folder


@pytest.mark.slow
def test_defect_64_order_of_jobs_stays(daemon: DaemonProcess) -> None:
    for n in (3, 1, 2, 0):
        daemon.run("true", f"o{n}")
        daemon.wait_finished(f"o{n}")
    names = job_names(daemon)

    def jids() -> list[Any]:
        found = (daemon.request("GET", f"/api/v1/_{n}/jid").json()["GET"] for n in range(4))
        return [next(iter(each.values()))["jid"] for each in found]

    assert jids() == ["o3", "o1", "o2", "o0"]
    for restart in (daemon.stop, daemon.kill):
        restart()
        daemon.start()
        assert job_names(daemon) == names
        assert jids() == ["o3", "o1", "o2", "o0"]
    daemon.stop()
    remove_database(daemon)
    daemon.start()
    assert jids() == ["o3", "o1", "o2", "o0"]


@pytest.mark.slow
def test_defect_65_saves_at_the_same_time(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon("--DBsavePeriod", "1", "--listeners", "8")
    names = run_many(daemon, 10)
    export = tmp_path / "export"
    targets = [{}, {"dbpath": str(export)}] * 12
    with ThreadPoolExecutor(8) as threads:
        saved = list(threads.map(lambda where: daemon.post("DBctl", do="save", **where), targets))
    assert {reply.status for reply in saved[::2]} == {200}
    # One tree is written by one request at a time; another is told so, and breaks nothing.
    codes = {reply.status for reply in saved[1::2]}
    assert 200 in codes
    assert codes <= {200, 409}
    assert sorted(path.name for path in export.iterdir() if path.is_dir()) == sorted(names)
    assert all((export / name / "end" / "1" / "endInfo").exists() for name in names)
    assert [path.stem for path in snapshot_files(daemon)] == sorted(names)
    beside = [path.name for path in tmp_path.iterdir() if path.name.startswith("export")]
    assert beside == ["export"]


def test_defect_66_record_of_a_compound_job_is_linear(daemon: DaemonProcess) -> None:
    sizes = {}
    for parts in (25, 50):
        jid = f"compound-{parts}"
        daemon.run(";".join(f"echo {n:04}" for n in range(parts)), jid)
        assert daemon.wait_finished(jid) == ["finishedSuccessfully"]
        name = daemon.status(jid)["0.end"]["jobRoot"]
        record = daemon.request("GET", f"/api/v1/{name}/record").json()["GET"][name]["record"]
        sizes[parts] = len(json.dumps(record)), stored_bytes(daemon, name)
    for small, large in zip(sizes[25], sizes[50], strict=True):
        assert large < 2.2 * small


def stored_bytes(daemon: DaemonProcess, name: str) -> int:
    """Return the size of all rows of the data base that mention a job."""
    connection = sqlite3.connect(f"file:{daemon.db_path / 'pman.db'}?mode=ro", uri=True)
    try:
        tables = [
            row[0]
            for row in connection.execute("select name from sqlite_schema where type = 'table'")
        ]
        rows = [row for table in tables for row in connection.execute(f'select * from "{table}"')]
    finally:
        connection.close()
    size = sum(sum(len(str(value)) for value in row) for row in rows if name in str(row))
    assert size > 0
    return size


def test_defect_67_records_have_epoch_seconds(shared_daemon: DaemonProcess) -> None:
    before = time.time()
    shared_daemon.run("true", "r67")
    shared_daemon.wait_finished("r67")
    after = time.time()
    name = shared_daemon.status("r67")["0.end"]["jobRoot"]
    record = shared_daemon.request("GET", f"/api/v1/{name}/record").json()["GET"][name]["record"]
    stamps = [record[key] for key in ("accepted_at", "started_at", "ended_at")]
    # The kernel and the clock of the library may differ by a tick.
    assert before - 0.1 <= stamps[0] <= stamps[1] + 0.1 <= stamps[2] + 0.2 <= after + 0.3
