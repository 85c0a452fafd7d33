"""Idempotency keys: the index, and what the store does with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobdb_builders import MemoryJournal, finished_job, make_job, running_writer

from pman.errors import KeyReused, SnapshotError
from pman.job.record import Job
from pman.jobdb.keys import KeyIndex
from pman.jobdb.store import JobStore

TIMEOUT_S = 20.0


def asked(idempotency: str, **fields: object) -> Job:
    return make_job(idempotency=idempotency, **fields)


def test_the_first_of_a_key_counts() -> None:
    index = KeyIndex()
    index.add("k:r", "first")
    index.add("k:r", "second")
    assert index.find("k:r") == "first"
    index.discard("k:r", "second")
    assert index.find("k:r") == "first"
    index.discard("k:r", "first")
    assert index.find("k:r") is None


def test_no_key_is_no_key() -> None:
    index = KeyIndex()
    index.add("", "job")
    assert index.find("") is None
    index.discard("", "job")


def test_a_key_with_another_request_is_refused() -> None:
    index = KeyIndex()
    index.add("k:r", "first")
    with pytest.raises(KeyReused, match="first") as caught:
        index.find("k:other")
    assert (caught.value.hint, caught.value.field) == (422, "Idempotency-Key")


def test_the_store_answers_with_the_first_job(tmp_path: Path) -> None:
    with running_writer(tmp_path) as writer:
        store = JobStore(writer)
        first, is_new = store.submit(asked("k:r"), timeout_s=TIMEOUT_S)
        assert is_new
        assert store.submit(asked("k:r"), timeout_s=TIMEOUT_S) == (first, False)
        assert store.first_asked_for("k:r") is first
        assert store.first_asked_for("") is None
        with pytest.raises(KeyReused):
            store.submit(asked("k:other"), timeout_s=TIMEOUT_S)
        assert store.count == 1
        store.remove([first.name])
        assert store.submit(asked("k:other"), timeout_s=TIMEOUT_S)[1]


def test_a_key_outlives_the_daemon() -> None:
    store = JobStore(MemoryJournal())
    job = finished_job(idempotency="k:r")
    store.load([job])
    assert store.first_asked_for("k:r") is job


def test_a_job_that_is_on_its_way_to_the_disk_counts() -> None:
    store = JobStore(MemoryJournal())
    job = asked("k:r")
    with pytest.raises(SnapshotError):  # the journal writes nothing by itself
        store.submit(job, timeout_s=0)
    assert store.first_asked_for("k:r") is job


def test_a_key_whose_job_was_never_written_is_free_again() -> None:
    journal = MemoryJournal()
    store = JobStore(journal)
    with pytest.raises(SnapshotError):
        store.submit(asked("k:r"), timeout_s=0)
    journal.settle()
    assert store.first_asked_for("k:r") is None
