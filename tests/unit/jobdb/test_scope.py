"""`ScopedStore`: for one user, jobs of others do not exist."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from jobdb_builders import DEADLINE_S, MemoryJournal, finished_job, make_job, no_output

from pman.errors import Forbidden, UnknownJob
from pman.job.observation import Observation
from pman.job.record import Job
from pman.job.state import JobState
from pman.jobdb import store as store_module
from pman.jobdb import view
from pman.jobdb.scope import ScopedStore
from pman.jobdb.store import JobStore

#: What `JobStore` has and a scope has not, and who needs it.
NOT_SCOPED = {
    "load": "the start of the daemon",
    "on_settled": "the backends",
    "on_exchanged": "the keeper of what is in memory",
    "jobs_of": "the scope itself",
    "few_of": "the scope itself",
    "count_of": "the scope itself",
}


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def store(journal: MemoryJournal) -> JobStore:
    return JobStore(journal)


@pytest.fixture
def jobs(store: JobStore) -> list[Job]:
    """Jobs of two users and of nobody, some with the same jid."""
    made = [
        make_job("shared", auid="bob", cmd="other"),
        make_job("shared", auid="alice"),
        make_job("hers", auid="alice"),
        make_job("his", auid="bob", cmd="other"),
        finished_job("shared", auid="alice"),
        make_job("nobody's", auid=""),
    ]
    store.load(made)
    return made


@pytest.fixture
def scope(store: JobStore) -> ScopedStore:
    return ScopedStore(store, "alice")


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_each_method_of_the_store_is_restricted_or_withheld() -> None:
    """A method that is new to the store has to be thought about here."""
    assert public(JobStore) - public(ScopedStore) == set(NOT_SCOPED)
    assert public(ScopedStore) <= public(JobStore)


# --- reading --------------------------------------------------------------------------------


def test_lists_hold_the_own_jobs_in_order(scope: ScopedStore, jobs: list[Job]) -> None:
    mine = [jobs[1], jobs[2], jobs[4]]
    assert scope.jobs() == mine
    assert scope.names() == [job.name for job in mine]
    assert scope.count == 3
    assert scope.unfinished() == mine[:2]
    assert [scope.at(n) for n in (0, 2, -1, -3)] == [mine[0], mine[2], mine[2], mine[0]]
    assert scope.at(3) is scope.at(-4) is None


def test_a_user_without_jobs_sees_none(store: JobStore, jobs: list[Job]) -> None:
    scope = ScopedStore(store, "carol")
    assert (scope.jobs(), scope.names(), scope.unfinished(), scope.count) == ([], [], [], 0)
    assert scope.at(0) is scope.at(-1) is None


def test_names_of_others_are_unknown(scope: ScopedStore, jobs: list[Job]) -> None:
    assert scope.get(jobs[1].name) is jobs[1]
    for name in (jobs[0].name, jobs[5].name, "never"):
        assert scope.get(name) is None


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("jid", "shared", [1, 4]),
        ("jid", "hers", [2]),
        ("jid", "his", []),
        ("jid", "never", []),
        ("jid", "", []),
        ("jid", 5, []),
        ("auid", "alice", [1, 2, 4]),
        ("auid", "bob", []),
        ("auid", "", []),
        ("auid", 5, []),
        ("cmd", "true", [1, 2]),
        ("cmd", "other", []),
    ],
)
def test_only_own_jobs_are_found(
    scope: ScopedStore, jobs: list[Job], key: str, value: Any, found: list[int]
) -> None:
    assert scope.find(key, value) == [jobs[n] for n in found]
    if key == "jid" and isinstance(value, str):
        assert scope.few_with_jid(value, 16) == [jobs[n] for n in found]


def test_finding_by_jid_looks_through_the_smaller_index(store: JobStore) -> None:
    many_own = [make_job(f"j{n}", auid="alice") for n in range(50)]
    store.load([*many_own, *(make_job("common", auid="bob") for _ in range(50))])
    store.load([make_job("common", auid="alice")])
    scope = ScopedStore(store, "alice")
    assert [job.jid for job in scope.find("jid", "common")] == ["common"]
    assert scope.find("jid", "j7") == [many_own[7]]


def test_few_is_not_told_where_it_takes_long(
    store: JobStore, scope: ScopedStore, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scope.few_with_jid("shared", 1) is None
    monkeypatch.setattr(store_module, "FEW_TO_LOOK_AT", 1)
    assert scope.few_with_jid("shared", 16) is None
    assert scope.few_with_jid("his", 16) == []


def test_look_ups_count_own_jobs_only(scope: ScopedStore, jobs: list[Job]) -> None:
    assert list(view.lookup(scope, [], no_output)) == scope.names()
    assert list(view.lookup(scope, ["_0"], no_output)) == [jobs[1].name]
    assert view.lookup(scope, ["_3"], no_output) is False
    with pytest.raises(UnknownJob):
        view.lookup(scope, [jobs[0].name], no_output)


def test_the_end_of_another_job_is_waited_for_in_vain(
    store: JobStore, scope: ScopedStore, jobs: list[Job]
) -> None:
    messages = []
    for name in (jobs[0].name, "0" * len(jobs[0].name)):
        with pytest.raises(UnknownJob) as caught:
            scope.when_final(name, lambda _: None)
        messages.append(str(caught.value).replace(name, "NAME"))
    assert messages[0] == messages[1]
    ended: list[Job] = []
    scope.when_final(jobs[1].name, ended.append)
    store.observe(Observation(name=jobs[1].name, state=JobState.CANCELED))
    assert [job.name for job in ended] == [jobs[1].name]


# --- changes --------------------------------------------------------------------------------


def submitted(scope: ScopedStore | JobStore, journal: MemoryJournal, job: Job) -> tuple[Job, bool]:
    """Submit with `idempotent`, from another thread while the journal is settled here."""
    results: list[tuple[Job, bool]] = []
    thread = threading.Thread(
        target=lambda: results.append(scope.submit(job, idempotent=True, timeout_s=DEADLINE_S))
    )
    thread.start()
    ticker = threading.Event()
    while thread.is_alive():
        journal.settle()
        ticker.wait(0.005)
    return results[0]


def test_idempotent_answers_with_own_jobs_only(
    scope: ScopedStore, journal: MemoryJournal, jobs: list[Job]
) -> None:
    fresh = make_job("his", auid="alice")
    assert submitted(scope, journal, fresh) == (fresh, True)
    assert submitted(scope, journal, make_job("his", auid="alice")) == (fresh, False)
    assert submitted(scope, journal, make_job("shared", auid="alice")) == (jobs[1], False)


def test_idempotent_does_not_wait_for_a_job_of_others(
    store: JobStore, scope: ScopedStore, journal: MemoryJournal
) -> None:
    theirs = make_job("new", auid="bob")
    store._hand_over(theirs)  # on its way to the disk
    mine = make_job("new", auid="alice")
    assert submitted(scope, journal, mine) == (mine, True)


def test_idempotent_waits_for_an_own_job_on_its_way(
    store: JobStore, scope: ScopedStore, journal: MemoryJournal
) -> None:
    first = make_job("new", auid="alice")
    store._hand_over(first)
    assert submitted(scope, journal, make_job("new", auid="alice")) == (first, False)


def test_a_job_of_others_is_neither_made_nor_changed_nor_removed(
    store: JobStore, scope: ScopedStore, jobs: list[Job]
) -> None:
    with pytest.raises(Forbidden) as caught:
        scope.submit(make_job("x", auid="bob"), timeout_s=DEADLINE_S)
    assert caught.value.field == "auid"
    assert scope.observe(Observation(name=jobs[0].name, state=JobState.CANCELED)) is None
    scope.remove([jobs[0].name, jobs[2].name])
    assert store.jobs() == [jobs[0], jobs[1], *jobs[3:]]
    assert store.get(jobs[0].name) is jobs[0]


def test_the_whole_is_out_of_reach(store: JobStore, scope: ScopedStore, jobs: list[Job]) -> None:
    for change in (scope.clear, lambda: scope.clear([]), lambda: scope.replace_finished([])):
        with pytest.raises(Forbidden):
            change()
    assert store.jobs() == jobs
