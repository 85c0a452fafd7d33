"""Which folders a shepherd works in, and which it refuses."""

from __future__ import annotations

import contextlib
import os
import socket as socket_module
from collections.abc import Iterator
from pathlib import Path

import pytest

from pman.errors import BackendUnavailable
from pman.shepherd.place import MAX_SOCKET_PATH_BYTES, Place, private_folder


@contextlib.contextmanager
def listening(path: Path, mode: int) -> Iterator[None]:
    """Have a socket at `path`, for as long as it is needed."""
    with socket_module.socket(socket_module.AF_UNIX) as made:
        made.bind(os.fspath(path))
        path.chmod(mode)
        yield
    path.unlink()


def test_folders_are_made_for_us_alone(tmp_path: Path) -> None:
    place = Place(tmp_path / "a" / "b")
    place.prepare()
    place.prepare()
    assert place.jobs_path.stat().st_mode & 0o777 == 0o700


def test_readable_folders_are_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_folders_that_others_write_to_are_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(BackendUnavailable, match=f"mode {mode:o}, expected 700"):
        private_folder(folder)


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(BackendUnavailable, match="links are not followed"):
        private_folder(tmp_path / "link")


def test_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendUnavailable, match="cannot be made"):
        private_folder(tmp_path / "file")


def test_folders_of_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(BackendUnavailable, match="belongs to user"):
        private_folder(tmp_path)


def test_one_shepherd_holds_the_lock(tmp_path: Path) -> None:
    place = Place(tmp_path)
    held = place.lock()
    assert held is not None
    assert place.lock() is None
    os.close(held)
    again = place.lock()
    assert again is not None
    os.close(again)


def test_the_socket_is_where_the_note_says(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.read_socket() is None
    path = place.choose_socket()
    assert place.read_socket() is None  # nobody listens yet
    with listening(path, 0o700):
        assert place.read_socket() == path


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_sockets_that_others_could_talk_to_are_refused(tmp_path: Path, mode: int) -> None:
    place = Place(tmp_path)
    with (
        listening(place.choose_socket(), mode),
        pytest.raises(BackendUnavailable, match=f"mode {mode:o}, expected 700"),
    ):
        place.read_socket()


def test_sockets_in_a_folder_of_all_are_refused(tmp_path: Path) -> None:
    place = Place(tmp_path)
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    place.note_path.write_text(str(open_folder / "s"))
    with (
        listening(open_folder / "s", 0o700),
        pytest.raises(BackendUnavailable, match="others may write to it"),
    ):
        place.read_socket()


def test_what_is_no_socket_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.choose_socket().write_text("x")
    with pytest.raises(BackendUnavailable, match="is not a socket"):
        place.read_socket()


def test_places_below_are_found(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert [p.state_path for p in place.and_successors()] == [tmp_path, tmp_path / "2"]
    Place(tmp_path / "2").prepare()
    names = [p.state_path.name for p in place.and_successors()]
    assert names == [tmp_path.name, "2", "3"]


def test_a_place_is_in_use_by_a_shepherd_or_by_jobs(tmp_path: Path) -> None:
    place = Place(tmp_path / "x")
    assert not place.is_in_use()
    place.prepare()
    assert not place.is_in_use()
    lock = place.lock()
    assert lock is not None
    assert place.is_in_use()
    os.close(lock)
    assert not place.is_in_use()
    (place.jobs_path / "job.jsonl").touch()
    assert place.is_in_use()


@pytest.mark.parametrize("name", ["long" * 40, "latin\udce9"])
def test_paths_that_no_socket_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    runtime = Path("/tmp") / f"r{os.getpid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    place = Place(tmp_path / name)
    place.prepare()
    socket = place.choose_socket()
    with listening(socket, 0o700):
        assert socket == place.read_socket()
    assert socket.parent.parent == runtime
    assert len(os.fsencode(socket)) <= MAX_SOCKET_PATH_BYTES
    assert socket == Place(tmp_path / name).choose_socket()
    socket.parent.rmdir()
    runtime.rmdir()
