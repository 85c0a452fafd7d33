"""2.2's layout: recorded trees, round trips, what may be replaced, crashes."""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import golden_replay as golden
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobdb_builders import FACTS, THEN, finished_job, make_job, nested, no_output, plant

from pman.errors import RequestError, SnapshotError, UnknownJob
from pman.job.record import Job, Part, Worker
from pman.job.state import FINAL_STATES, JobState
from pman.jobdb import exchange, tree22, view
from pman.jobdb.record_json import decode_record, encode_record
from pman.output import OutputFiles


@pytest.fixture
def output(tmp_path: Path) -> OutputFiles:
    return OutputFiles(tmp_path / "output", 1024 * 1024)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "tree"


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def beside(path: Path) -> list[str]:
    """Return what lies beside a tree and has its name at the beginning."""
    return sorted(p.name for p in path.parent.iterdir() if p.name.startswith(path.name))


# --- import -------------------------------------------------------------------------------


def test_recorded_tree_is_shown_as_2_2_shows_it(target: Path, output: OutputFiles) -> None:
    recorded = golden.load("db-001-layout-finished")["tree"]
    plant(recorded, target)
    jobs = tree22.import_tree(target, output)
    assert [job.state for job in jobs] == [JobState.COMPLETED, JobState.FAILED]
    assert [job.exit_code for job in jobs] == [0, 1]
    for job in jobs:
        tree = view.job_tree(job, output.read_text)
        del tree["record"]
        assert tree == nested(recorded)[job.name]


def test_recorded_tree_is_exported_file_by_file(target: Path, output: OutputFiles) -> None:
    recorded = golden.load("db-001-layout-finished")["tree"]
    plant(recorded, target)
    again = target.with_name("again")
    tree22.export_tree(tree22.import_tree(target, output), again, output.read_text)
    ours = {
        name: raw.decode()
        for name, raw in files(again).items()
        if Path(name).name not in ("record", tree22.RECORD, tree22.MARKER)
    }
    assert ours == recorded


def test_job_that_ran_is_lost(target: Path, output: OutputFiles) -> None:
    recorded = golden.load("db-002-layout-running")["tree"]
    plant(recorded, target)
    (job,) = tree22.import_tree(target, output)
    assert (job.state, job.reason, job.jid) == (JobState.LOST, "lost", "db-3")
    assert job.message
    assert job.ended_at is not None
    theirs = nested(recorded)[job.name]
    ours = view.job_tree(job, output.read_text)
    for leaf in ("d_meta", "cmd", "auid", "jid"):
        assert ours[leaf] == theirs[leaf]
    started = theirs["start"]["0"]["startInfo"]["0"]
    shown = ours["start"]["0"]["startInfo"]["0"]
    assert {**shown, **started} == {**shown, "done": False, "started": True}


def test_swarm_jobs_take_the_word_of_their_task(target: Path, output: OutputFiles) -> None:
    plant(golden.load("swarm-041-db-layout")["tree"], target)
    jobs = tree22.import_tree(target, output)
    assert [view.status_word(job) for job in jobs] == [
        "finishedSuccessfully",
        "finishedWithError",
        "finishedSuccessfully",
        "finishedSuccessfully",
    ]
    assert [job.backend for job in jobs] == ["swarm", "swarm", "swarm", "host"]
    assert [view.return_codes(job) for job in jobs] == [[0], [1], [0], [0]]
    assert jobs[1].extra is not None
    assert jobs[1].extra["logs"] == "ls: /nonexistent: No such file or directory\r\n"


@pytest.mark.parametrize(
    ("leaf", "text"),
    [  # DEFECTS 56
        ("endInfo", ""),
        ("jid", "{"),
        ("jid", "7"),
        ("end/0/endInfo", '{"0": 5}'),
        ("end/0/endInfo", '{"5": {"cmd": "x"}}'),
        ("end/0/endInfo", '{"0": {"cmd": "x", "startstamp": "yesterday"}}'),
        ("end/0/endInfo", '{"0": {"cmd": "x", "system": 5}}'),
        ("start", "5"),
        ("cmd", "[" * 100_000),
    ],
)
def test_damaged_job_is_left_out(
    target: Path,
    output: OutputFiles,
    caplog: pytest.LogCaptureFixture,
    leaf: str,
    text: str,
) -> None:
    plant(golden.load("db-001-layout-finished")["tree"], target)
    first, second = sorted(path.name for path in target.iterdir())
    path = target / first / leaf
    if path.is_dir():
        path.rename(target.with_name("elsewhere"))
    path.write_text(text)
    with caplog.at_level(logging.ERROR):
        jobs = tree22.import_tree(target, output)
    assert [job.name for job in jobs] == [second]
    assert first in caplog.text


def test_links_and_pipes_are_not_followed(target: Path, output: OutputFiles) -> None:
    plant(golden.load("db-001-layout-finished")["tree"], target)
    first, second = sorted(path.name for path in target.iterdir())
    secret = target.with_name("secret")
    secret.write_text('"secret"')
    (target / first / "cmd").unlink()
    (target / first / "cmd").symlink_to(secret)
    (target / second / "cmd").unlink()
    os.mkfifo(target / second / "cmd")
    assert tree22.import_tree(target, output) == []


def test_foreign_folders_are_left_out(target: Path, output: OutputFiles) -> None:
    for name in ("notes", "20261123085225.330570_x", "20261123085225_" + "a" * 36):
        (target / name).mkdir(parents=True)
    assert tree22.import_tree(target, output) == []
    assert not tree22.holds_jobs(target)
    with pytest.raises(UnknownJob):
        tree22.import_tree(target / "nosuch", output)


def test_output_that_is_here_already_stays(target: Path, output: OutputFiles) -> None:
    plant(golden.load("db-001-layout-finished")["tree"], target)
    name = min(path.name for path in target.iterdir())
    output.folder(name).mkdir(parents=True)
    output.path(name, 0, "stdout").write_text("all of it")
    tree22.import_tree(target, output)
    assert output.read_text(name, 0, "stdout") == "all of it"


def set_in_record(folder: Path, **values: Any) -> None:
    path = folder / tree22.RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("moment", [1e300, 1e12, -1.0, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["accepted_at", "started_at", "ended_at", "part"])
def test_job_at_an_impossible_moment_is_left_out(
    target: Path, output: OutputFiles, caplog: pytest.LogCaptureFixture, name: str, moment: float
) -> None:
    bad, good = finished_job("bad"), finished_job("good")
    tree22.export_tree([bad, good], target, no_output)
    part = {"cmd": "x", "started_at": moment}
    values: dict[str, Any] = {"parts": [part]} if name == "part" else {name: moment}
    set_in_record(target / bad.name, **values)
    assert [job.jid for job in tree22.import_tree(target, output)] == ["good"]
    assert bad.name in caplog.text


def test_half_a_surrogate_pair_is_replaced(target: Path, output: OutputFiles) -> None:
    plant(golden.load("db-001-layout-finished")["tree"], target)
    name = min(path.name for path in target.iterdir())
    for leaf in ("cmd", "jid", "auid", "d_meta"):
        (target / name / leaf).write_text(r'"a\ud800b"')
    job = tree22.import_tree(target, output)[0]
    assert (job.cmd, job.jid, job.auid, job.meta) == ("a?b",) * 4
    assert decode_record(encode_record(job)) == job


def test_import_is_dated(target: Path, output: OutputFiles) -> None:
    tree22.export_tree([finished_job(imported_at=5.0), finished_job()], target, no_output)
    jobs = tree22.import_tree(target, output, lambda: THEN)
    assert [job.imported_at for job in jobs] == [THEN, THEN]


# --- round trip ---------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
moment = st.integers(0, 2**31 * 10**6).map(lambda us: us / 10**6)
leaf = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text
block = st.dictionaries(
    text, st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(text, inner))
)


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    count = draw(st.integers(0, 4))
    begin = THEN
    made = []
    for _ in range(count):
        end = begin + draw(st.floats(0, 5))
        code = draw(st.integers(-64, 255))
        made.append(Part(draw(text), draw(st.integers(1, 2**22)), begin, end, code))
        begin = end
    return made + [Part(draw(text)) for _ in range(draw(st.integers(0, 2)))]


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    is_host = draw(st.booleans())
    return make_job(
        draw(text),
        draw(text),
        auid=draw(text),
        meta=draw(st.builds(json.dumps, block)),
        backend="host" if is_host else "swarm",
        state=draw(st.sampled_from(sorted(FINAL_STATES, key=lambda s: s.value))),
        reason=draw(text),
        message=draw(text),
        exit_code=draw(st.none() | st.integers(0, 255)),
        signal=draw(st.none() | st.integers(1, 64)),
        started_at=draw(st.none() | moment),
        ended_at=draw(moment),
        parts=draw(parts()) if is_host else [],
        workers=[] if is_host else [Worker("w", "failed", draw(st.none() | st.integers(0, 255)))],
        container=None if is_host else draw(block),
        extra=None if is_host else draw(st.none() | block),
        handle=draw(st.none() | block),
        facts=FACTS,
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(jobs(), max_size=3), st.dictionaries(st.sampled_from("oe"), text, min_size=2))
def test_export_and_import_give_the_same_views(made: list[Job], texts: dict[str, str]) -> None:
    def read(name: str, part: int, stream: str) -> str:
        return f"{part}{texts['o' if stream == 'stdout' else 'e']}" if part == 0 else ""

    with tempfile.TemporaryDirectory() as folder:
        output = OutputFiles(Path(folder, "output"), 1024)
        tree22.export_tree(made, Path(folder, "tree"), read)
        again = tree22.import_tree(Path(folder, "tree"), output)
        assert [job.name for job in again] == sorted(job.name for job in made)
        by_name = {job.name: job for job in made}
        for job in again:
            ours = view.job_tree(job, output.read_text)
            assert ours == view.job_tree(by_name[job.name], read)
            assert job.handle is None


def test_export_of_a_job_that_runs_comes_back_lost(target: Path, output: OutputFiles) -> None:
    tree22.export_tree([make_job(state=JobState.RUNNING)], target, no_output)
    (job,) = tree22.import_tree(target, output)
    assert (job.state, job.reason) == (JobState.LOST, "lost")


def test_names_within_a_block_stay_within_the_tree(target: Path) -> None:
    evil = {"../../evil": 1, "/etc/evil": 2, "..": {"x": 3}, "": 4, ".record": 5, "a" * 5000: 6}
    job = make_job(state=JobState.FAILED, backend="swarm", container={**evil, "inner": evil})
    tree22.export_tree([job], target, no_output)
    assert beside(target) == ["tree"]
    assert not list(target.parent.rglob("evil"))
    assert {p.name for p in target.iterdir()} == {tree22.MARKER, job.name}


def test_names_that_look_alike_are_kept_apart(target: Path) -> None:
    odd = ["", "%", "%25", "a/b", "a%2Fb", "a%252Fb", *("x" * 5000 + last for last in ("", "y"))]
    for first, second in itertools.permutations(odd, 2):
        job = make_job(state=JobState.FAILED, backend="swarm", container={first: 1, second: {}})
        tree22.export_tree([job], target, no_output)
        assert len(os.listdir(target / job.name / "container")) == 3


# --- what may be replaced (DEFECTS 27) ----------------------------------------------------


def test_tree_of_ours_is_replaced(target: Path, output: OutputFiles) -> None:
    tree22.export_tree([finished_job("a"), finished_job("b")], target, no_output)
    tree22.export_tree([finished_job("c")], target, no_output)
    assert [job.jid for job in tree22.import_tree(target, output)] == ["c"]
    assert beside(target) == ["tree"]
    tree22.clear_tree(target)
    assert [p.name for p in target.iterdir()] == [tree22.MARKER]


def test_empty_and_new_folders_are_taken(target: Path, output: OutputFiles) -> None:
    target.mkdir()
    tree22.export_tree([finished_job()], target, no_output)
    deep = target.parent / "x" / "y" / "z"
    tree22.export_tree([finished_job()], deep, no_output)
    assert len(tree22.import_tree(target, output)) == len(tree22.import_tree(deep, output)) == 1


def _holds_a_file(target: Path) -> None:
    target.mkdir()
    (target / "precious").write_text("x")


def _ours_with_a_guest(target: Path) -> None:
    tree22.export_tree([], target, no_output)
    (target / "precious").write_text("x")


def _tree_of_2_2(target: Path) -> None:
    plant(golden.load("db-001-layout-finished")["tree"], target)


def _file(target: Path) -> None:
    target.write_text("x")


def _link(target: Path) -> None:
    tree22.export_tree([], target.with_name("aim"), no_output)
    target.symlink_to("aim")


@pytest.mark.parametrize("prepare", [_holds_a_file, _ours_with_a_guest, _tree_of_2_2, _file, _link])
def test_what_is_not_ours_is_never_touched(target: Path, prepare: Any) -> None:
    prepare(target)
    before = files(target.parent)
    for write in (lambda: tree22.clear_tree(target), lambda: tree22.export_tree([], target, None)):
        with pytest.raises(RequestError) as caught:
            write()
        assert (caught.value.hint, caught.value.field) == (409, "dbpath")
    assert files(target.parent) == before


GUESTS = [
    "{job}/notes.txt",
    "{job}/.hidden",
    "{job}/record/x",
    "{job}/start/0/notes",
    "{job}/start/7/startInfo",
    "{job}/end/0/endInfo~",
    "{job}/container/notes",
    "{job}/container/manager/env/notes",
    "{job}/new/folder/notes",
    "20261123085225.330570_00000000-0000-0000-0000-000000000000/cmd",
]


def container_job() -> Job:
    block = {"manager": {"env": {"a": 1}}, "target": {"image": "i", "odd name/": [1]}}
    return make_job(
        state=JobState.COMPLETED,
        backend="swarm",
        container=block,
        extra={"state": {"ID": "x"}},
        started_at=THEN,
        ended_at=THEN + 1,
    )


def add_guest(root: Path, guest: str) -> Path:
    """Put a file into a tree; where a file of ours is in the way, in its place."""
    path = root / guest.format(job=next(p.name for p in root.iterdir() if p.is_dir()))
    if path.parent.is_file():
        path.parent.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    return path


@pytest.mark.parametrize("guest", GUESTS)
def test_guests_within_a_job_are_never_touched(target: Path, guest: str) -> None:
    tree22.export_tree([container_job()], target, no_output)
    add_guest(target, guest)
    before = files(target.parent)
    with pytest.raises(RequestError, match="that pman did not write") as caught:
        tree22.export_tree([], target, no_output)
    assert (caught.value.hint, caught.value.field) == (409, "dbpath")
    assert files(target.parent) == before


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("guest", ["notes.txt", *GUESTS])
def test_guest_that_comes_during_a_save_stays(
    target: Path, monkeypatch: pytest.MonkeyPatch, guest: str, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    tree22.export_tree([container_job()], target, no_output)
    came: list[Path] = []

    def read(*_: Any) -> str:
        if not came:
            came.append(add_guest(target, guest))
        return ""

    with pytest.raises(RequestError, match="left as it was") as caught:
        tree22.export_tree([finished_job("new")], target, read)
    assert (caught.value.hint, caught.value.field) == (409, "dbpath")
    assert came[0].read_text() == "precious"
    assert beside(target) == ["tree"]


def test_guest_stays_where_it_cannot_be_put_back(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree22.export_tree([finished_job("old")], target, no_output)
    real = tree22.put_in_place

    def once(new: Path, aim: Path) -> Path | None:
        monkeypatch.setattr(tree22, "put_in_place", _refuse)
        return real(new, aim)

    monkeypatch.setattr(tree22, "put_in_place", once)
    with pytest.raises(RequestError, match="former tree is in") as caught:
        tree22.export_tree(
            [finished_job("new")], target, lambda *_: str(add_guest(target, "notes.txt"))
        )
    assert caught.value.hint == 409
    (left,) = target.parent.glob("tree.new-*/notes.txt")
    assert left.read_text() == "precious"


def _refuse(*_: Any) -> None:
    raise OSError(30, "Read-only file system")


@given(job=jobs())
@settings(max_examples=60, deadline=None)
def test_every_tree_of_ours_is_known_again(job: Job) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree")
        tree22.export_tree([job], path, no_output)
        tree22.clear_tree(path)
        assert os.listdir(path) == [tree22.MARKER]


@pytest.mark.parametrize(
    "path",
    ["db", "db/new", "db/output/20261123", "db/jobs", "db/d_msg.json", "link/new", ".", "top"],
)
@pytest.mark.parametrize("is_link", [True, False])
def test_job_db_is_no_place_for_a_tree(tmp_path: Path, path: str, is_link: bool) -> None:
    top = tmp_path / "top"
    db_path = top / "db"
    (db_path / "output").mkdir(parents=True)
    (top / "link").symlink_to("db")
    shown_db = top / "link" if is_link else db_path
    target = tmp_path / path if path == "top" else top / path
    for write in (
        lambda: tree22.clear_tree(target, db_path=shown_db),
        lambda: tree22.export_tree([finished_job()], target, no_output, db_path=shown_db),
    ):
        with pytest.raises(RequestError, match="job DB") as caught:
            write()
        assert (caught.value.hint, caught.value.field) == (409, "dbpath")
    assert os.listdir(db_path) == ["output"]
    tree22.clear_tree(top / "db2", db_path=shown_db)


@pytest.mark.parametrize("path", ["relative", "/", "/tmp/../tmp/x", ""])
def test_path_must_be_absolute(path: str) -> None:
    with pytest.raises(RequestError) as caught:
        tree22.export_tree([], Path(path), no_output)
    assert (caught.value.hint, caught.value.field) == (400, "dbpath")


def test_folder_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(SnapshotError) as caught:
        tree22.export_tree([], Path("/proc/nosuch/tree"), no_output)
    assert caught.value.field == "dbpath"


def test_one_thread_at_a_time(target: Path) -> None:
    def read(*_: Any) -> str:
        with pytest.raises(RequestError) as caught:
            tree22.clear_tree(target)
        assert caught.value.hint == 409
        return ""

    tree22.export_tree([finished_job()], target, read)
    tree22.clear_tree(target)


# --- crashes ------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for the end of the process."""


def _crash(*_: Any, **__: Any) -> None:
    raise Crash


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("at", ["write", "swap", "remove"])
def test_crash_leaves_the_old_or_the_new_tree(
    target: Path,
    output: OutputFiles,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    can_exchange: bool,
) -> None:
    tree22.export_tree([finished_job("old")], target, no_output)
    if not can_exchange:
        monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    with monkeypatch.context() as broken:
        if at == "write":
            broken.setattr(os, "sync", _crash)
        elif at == "swap":
            broken.setattr(exchange, "_exchange", _crash)
        broken.setattr(tree22.shutil, "rmtree", _crash)
        with pytest.raises(Crash):
            tree22.export_tree([finished_job("new")], target, no_output)
    (job,) = tree22.import_tree(target, output)
    assert job.jid == ("new" if at == "remove" else "old")
    tree22.export_tree([finished_job("newer")], target, no_output)
    assert [job.jid for job in tree22.import_tree(target, output)] == ["newer"]


def test_failed_rename_leaves_the_old_tree(
    target: Path, output: OutputFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree22.export_tree([finished_job("old")], target, no_output)
    monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    real = os.replace

    def fail_for_new(source: Any, aim: Any, **kwargs: Any) -> None:
        if ".new-" in str(source):
            raise OSError(28, "No space left on device")
        real(source, aim, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fail_for_new)
        with pytest.raises(SnapshotError, match="No space left"):
            tree22.export_tree([finished_job("new")], target, no_output)
    assert [job.jid for job in tree22.import_tree(target, output)] == ["old"]
    assert beside(target) == ["tree"]
