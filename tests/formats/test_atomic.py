"""A file appears whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgeinfer.errors import EdgeInferError, NotFoundError
from edgeinfer.formats.atomic import AtomicFile, check_writable


@pytest.fixture(params=["unnamed", "hidden"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to write: with O_TMPFILE and, where there is none, under a hidden name."""
    if request.param == "hidden":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no O_TMPFILE")
    return str(request.param)


@pytest.mark.usefixtures("file_system")
def test_the_file_is_there_when_it_is_complete_and_not_before(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "f") as file:
        file.write(b"ab")
        file.write(bytearray(b"cd"))
        assert not (tmp_path / "f").exists()

    assert (tmp_path / "f").read_bytes() == b"abcd"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.usefixtures("file_system")
def test_an_old_file_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    with pytest.raises(KeyboardInterrupt), AtomicFile(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"

    with AtomicFile(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("file_system")
def test_the_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "f"):
        pass
    (tmp_path / "g").touch()

    assert (tmp_path / "f").stat().st_mode == (tmp_path / "g").stat().st_mode


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)

    with pytest.raises(EdgeInferError, match="No space left"), AtomicFile(tmp_path / "f") as file:
        file.write(b"new")

    assert (tmp_path / "f").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.usefixtures("file_system")
def test_the_data_is_durable_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace, fsync = os.replace, os.fsync

    def noted_fsync(fd: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "data")
        fsync(fd)

    def noted_replace(source: Path, target: Path) -> None:
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    with AtomicFile(tmp_path / "f") as file:
        file.write(b"x")

    assert done == ["data", "name", "folder"]


def test_a_killed_process_leaves_nothing_behind(tmp_path: Path) -> None:
    if not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no O_TMPFILE")
    (tmp_path / "f").write_bytes(b"old")
    code = (
        "import os, signal, sys\n"
        "from edgeinfer.formats.atomic import AtomicFile\n"
        "file = AtomicFile(sys.argv[1])\n"
        "file.write(bytes(1 << 20))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    killed = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "f"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )

    assert killed.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_disk_that_is_too_small_is_told_beforehand(tmp_path: Path) -> None:
    with (
        pytest.raises(EdgeInferError, match="free on the disk"),
        AtomicFile(tmp_path / "f") as file,
    ):
        file.reserve(1 << 62)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="none"):
        AtomicFile(tmp_path / "none" / "f")


@pytest.mark.usefixtures("file_system")
def test_what_can_be_written_is_known_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")

    check_writable(tmp_path / "old")
    check_writable(tmp_path / "new")
    with pytest.raises(EdgeInferError, match="directory"):
        check_writable(tmp_path)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


KILLED = """
import os, sys
del os.O_TMPFILE
from edgeinfer.formats.atomic import AtomicFile
file = AtomicFile(sys.argv[1])
file.write(b"half")
file.readable()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs a file system with locks")
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f[1]"  # a name that is a pattern, too
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
    parts = sorted(tmp_path.iterdir())
    assert len(parts) == 2
    for part in parts:
        os.utime(part, (0, 0))

    with writers[0] as dead, writers[1] as living:
        dead.kill()
        dead.wait()
        with AtomicFile(path) as file:
            file.write(b"whole")
        (left,) = set(tmp_path.iterdir()) - {path}
        assert left in parts and left.read_bytes() == b"half"
        living.kill()
    with AtomicFile(path) as file:
        file.write(b"whole")

    assert list(tmp_path.iterdir()) == [path]
