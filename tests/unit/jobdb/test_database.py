"""`pman.db`: order, damage, and a disk that does not take it."""

from __future__ import annotations

import json
import resource
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from jobdb_builders import finished_job, make_job

from pman.errors import SnapshotError
from pman.job.record import Job
from pman.jobdb.database import Database, DatabaseDamaged
from pman.jobdb.record_json import decode_record, encode_record, is_job_name

INSTANCE = str(uuid.uuid4())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pman.db"


def rows(*jobs: Job) -> list[tuple[str, bytes]]:
    return [(job.name, encode_record(job)) for job in jobs]


def test_jobs_come_back_in_order_of_acceptance(path: Path) -> None:
    jobs = [finished_job("b"), make_job("a"), finished_job("c", (1, -9))]
    database = Database.create(path, jobs[:1], INSTANCE)
    database.apply(rows(jobs[2]), [])
    database.apply(rows(jobs[1]), [])
    changed = finished_job("b2", name=jobs[0].name)
    database.apply(rows(changed), [])
    database.close()
    again = Database.open(path)
    assert again.read_all() == [changed, jobs[2], jobs[1]]
    assert again.instance() == INSTANCE
    again.apply(rows(jobs[0]), [jobs[0].name])  # removed and written: goes behind the others
    assert again.read_all() == [jobs[2], jobs[1], jobs[0]]
    again.close()
    again.close()


def test_file_is_private(path: Path) -> None:
    database = Database.create(path, [make_job()], INSTANCE)
    database.apply(rows(make_job()), [])
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    database.close()


def test_settings_that_durability_needs(path: Path) -> None:
    Database.create(path, [], INSTANCE).close()
    database = Database.open(path)
    connection = database._connect()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    database.close()


@pytest.mark.parametrize("raw", [b"", b"noise" * 5000, b"\0" * 4096])
def test_what_is_no_data_base_is_damaged(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    with pytest.raises(DatabaseDamaged):
        Database.open(path)


@pytest.mark.parametrize("part", [1, 2, 3])
def test_truncated_file_is_damaged(path: Path, part: int) -> None:
    Database.create(path, [finished_job(f"j{n}") for n in range(200)], INSTANCE).close()
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * part // 4])
    with pytest.raises(DatabaseDamaged):
        Database.open(path)


def test_noise_in_the_middle_is_damaged(path: Path) -> None:
    Database.create(path, [finished_job(f"j{n}") for n in range(200)], INSTANCE).close()
    raw = bytearray(path.read_bytes())
    raw[4096 : 4096 * 4] = b"\xa5" * (4096 * 3)
    path.write_bytes(raw)
    with pytest.raises(DatabaseDamaged):
        Database.open(path)


def test_later_schema_is_left_alone(path: Path) -> None:
    Database.create(path, [], INSTANCE).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SnapshotError, match="schema 99, expected 2") as caught:
        Database.open(path)
    assert not isinstance(caught.value, DatabaseDamaged)


def test_record_that_cannot_be_read_is_left_out(path: Path) -> None:
    job = make_job()
    database = Database.create(path, [job], INSTANCE)
    database.apply([("other", b"{}")], [])
    assert database.read_all() == [job]
    database.close()


def test_file_that_is_gone_does_not_come_back_empty(path: Path) -> None:
    Database.create(path, [], INSTANCE).close()
    database = Database(path)
    path.unlink()
    with pytest.raises(SnapshotError, match="unable to open"):
        database.apply(rows(make_job()), [])
    assert not path.exists()


def test_text_that_is_not_unicode_is_kept_as_far_as_possible() -> None:
    job = make_job(cmd="echo \ud800", meta="{}")
    assert decode_record(encode_record(job)).cmd == "echo ?"


def test_job_names() -> None:
    assert is_job_name(make_job().name)
    for text in ("", "..", "20261123084157.670218_", make_job().name + "\n", "x" * 58):
        assert not is_job_name(text)


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from jobdb_builders import finished_job
from pman.errors import SnapshotError
from pman.jobdb.database import Database
from pman.jobdb.record_json import encode_record

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

database = Database.create(Path(sys.argv[1]), [], "instance")
limit(200_000)
written, error = [], ""
while not error and len(written) < 10_000:
    job = finished_job(f"j{len(written)}")
    try:
        database.apply([(job.name, encode_record(job))], [])
        written.append(job.name)
    except SnapshotError as exc:
        error = exc.message
limit(resource.RLIM_INFINITY)
job = finished_job("last")
database.apply([(job.name, encode_record(job))], [])
written.append(job.name)
database.close()
print(json.dumps({"error": error, "written": written}))
"""


def test_full_disk_is_reported_and_got_over(path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("file sizes are limited here already")
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert str(path) in result["error"]
    assert 2 < len(result["written"]) < 10_000
    database = Database.open(path)
    assert [job.name for job in database.read_all()] == result["written"]
    database.close()
