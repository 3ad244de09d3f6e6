"""A folder is there whole or not at all, and takes the place of its own kind only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeinfer.errors import EdgeInferError, NotFoundError, UsageError
from edgeinfer.formats.atomic_folder import AtomicFolder

MARK = "made.json"


def fill(folder: Path, text: str) -> None:
    (folder / MARK).write_text(text)
    (folder / "data").write_text(text)


def test_it_appears_when_it_is_complete(tmp_path):
    with AtomicFolder(tmp_path / "out", mark=MARK) as folder:
        fill(folder.part, "new")
        assert not (tmp_path / "out").exists()

    assert (tmp_path / "out" / "data").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_it_takes_the_place_of_its_own_kind(tmp_path):
    for text in ("old", "new"):
        with AtomicFolder(tmp_path / "out", mark=MARK) as folder:
            fill(folder.part, text)

    assert (tmp_path / "out" / "data").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(error, tmp_path):
    with AtomicFolder(tmp_path / "out", mark=MARK) as folder:
        fill(folder.part, "old")

    with pytest.raises(error), AtomicFolder(tmp_path / "out", mark=MARK) as folder:
        fill(folder.part, "new")
        raise error

    assert (tmp_path / "out" / "data").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_told_with_the_name(tmp_path):
    with (
        pytest.raises(EdgeInferError, match="out: cannot be written: No space"),
        AtomicFolder(tmp_path / "out", mark=MARK),
    ):
        raise OSError(28, "No space left on device")


def test_a_disk_that_is_too_small_is_told_beforehand(tmp_path):
    with (
        pytest.raises(EdgeInferError, match=r"out: \d+ bytes to write, \d+ bytes free"),
        AtomicFolder(tmp_path / "out", mark=MARK) as folder,
    ):
        folder.reserve(1 << 62)

    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_swapped_in_leaves_the_old_one(tmp_path, monkeypatch):
    with AtomicFolder(tmp_path / "out", mark=MARK) as folder:
        fill(folder.part, "old")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(EdgeInferError, match="Input/output error"),
        AtomicFolder(tmp_path / "out", mark=MARK) as folder,
    ):
        fill(folder.part, "new")

    assert (tmp_path / "out" / "data").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_things_are_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    (tmp_path / "empty").mkdir()

    for name in ("file", "folder"):
        with pytest.raises(UsageError):
            AtomicFolder(tmp_path / name, mark=MARK)
    with pytest.raises(NotFoundError):
        AtomicFolder(tmp_path / "no" / "such", mark=MARK)
    with AtomicFolder(tmp_path / "empty", mark=MARK) as folder:
        fill(folder.part, "new")
    assert (tmp_path / "empty" / "data").read_text() == "new"


WRITER = """
import sys
from pathlib import Path
from edgeinfer.formats.atomic_folder import AtomicFolder

folder = AtomicFolder(sys.argv[1], mark="made.json")
(folder.part / "made.json").write_text("half")
if sys.argv[2] == "between":
    rename = Path.rename
    def stop(self, target):
        if self.suffix == ".part":
            print("ready", flush=True)
            sys.stdin.read()
        return rename(self, target)
    Path.rename = stop
    folder.commit()
print("ready", flush=True)
sys.stdin.read()
"""


def writer(path: Path, when: str) -> subprocess.Popen[bytes]:
    """A process that is in the middle of writing."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), when],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    for left in path.parent.glob(".*"):
        os.utime(left, (0, 0))
    return process


@pytest.mark.skipif(os.name != "posix", reason="needs a file system with locks")
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "f[1]"  # a name that is a pattern, too
    with writer(path, "writing") as dead, writer(path, "writing") as living:
        dead.kill()
        dead.wait()
        with AtomicFolder(path, mark=MARK) as folder:
            fill(folder.part, "whole")
        (left,) = set(tmp_path.iterdir()) - {path}
        assert (left / MARK).read_text() == "half"
        living.kill()
    with AtomicFolder(path, mark=MARK) as folder:
        fill(folder.part, "whole")

    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="needs a file system with locks")
def test_a_process_killed_between_the_folders_leaves_the_old_one(tmp_path):
    path = tmp_path / "out"
    with AtomicFolder(path, mark=MARK) as folder:
        fill(folder.part, "old")
    with writer(path, "between") as process:
        assert not path.exists()
        with pytest.raises(EdgeInferError), AtomicFolder(path, mark=MARK):
            # The other lives: its folders are its own.
            assert not path.exists()
            raise EdgeInferError("not now")
        process.kill()

    with pytest.raises(EdgeInferError), AtomicFolder(path, mark=MARK):
        assert (path / "data").read_text() == "old"
        raise EdgeInferError("not now")

    assert list(tmp_path.iterdir()) == [path]
