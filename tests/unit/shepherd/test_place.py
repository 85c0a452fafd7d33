"""Which folders a shepherd works in, and which it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pman.errors import BackendUnavailable
from pman.shepherd.place import MAX_SOCKET_PATH_BYTES, Place, private_folder


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
    assert place.choose_socket() == place.read_socket()


@pytest.mark.parametrize("name", ["long" * 40, "latin\udce9"])
def test_paths_that_no_socket_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    runtime = Path("/tmp") / f"r{os.getpid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    place = Place(tmp_path / name)
    place.prepare()
    socket = place.choose_socket()
    assert socket == place.read_socket()
    assert socket.parent.parent == runtime
    assert len(os.fsencode(socket)) <= MAX_SOCKET_PATH_BYTES
    assert socket == Place(tmp_path / name).choose_socket()
    socket.parent.rmdir()
    runtime.rmdir()
