"""Conversions that are killed, run out of disk, or lose their source meanwhile."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeinfer.errors import EdgeInferError
from edgeinfer_converters import gguf
from edgeinfer_converters.gguf import convert
from support import tiny

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills and limits as on Linux")
OLD = b"what was there before"

# Converts again and again, so that a kill falls anywhere in it; says when it begins.
AGAIN = """
import os, sys
if sys.argv[3] == "hidden":
    del os.O_TMPFILE
from edgeinfer_converters.gguf import convert
print("ready", flush=True)
while True:
    convert(sys.argv[1], sys.argv[2], quant="q4_k_m", threads=1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tiny.BY_NAME["llama-gqa64-tied"], tmp_path_factory.mktemp("robust") / "model")


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a conversion makes that nothing disturbs."""
    path = tmp_path_factory.mktemp("whole") / "out.gguf"
    convert(folder, path, quant="q4_k_m")
    return path.read_bytes()


def kill(folder: Path, output: Path, way: str, seconds: float) -> None:
    """Converts again and again and kills that with SIGKILL after a while."""
    process = subprocess.Popen(
        [sys.executable, "-c", AGAIN, str(folder), str(output), way], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize("way", ["unnamed", "hidden"])
@pytest.mark.parametrize(
    "kills", [6, pytest.param(100, marks=pytest.mark.slow)], ids=["a few", "a hundred"]
)
def test_killed_at_any_moment_the_output_is_the_old_file_or_the_whole_new_one(
    kills: int, way: str, folder: Path, whole: bytes, tmp_path: Path
) -> None:
    draw = random.Random(kills)
    output = tmp_path / "out.gguf"
    outcomes = set()
    for _ in range(kills):
        output.write_bytes(OLD)
        kill(folder, output, way, draw.uniform(0, 0.5))
        found = output.read_bytes()
        assert found in (OLD, whole)
        outcomes.add(found)
        # Those of the last few seconds may stay until the next time.
        assert len(list(tmp_path.iterdir())) < 40
    for part in tmp_path.glob(".*.part"):
        os.utime(part, (0, 0))

    convert(folder, output, quant="q4_k_m")

    assert output.read_bytes() == whole  # a rerun is the same to the byte
    assert list(tmp_path.iterdir()) == [output]
    assert kills < 50 or len(outcomes) == 2  # the moments were spread


@pytest.mark.parametrize("threads", [1, 3])
def test_a_rerun_is_the_same_to_the_byte_for_any_number_of_threads(
    threads: int, folder: Path, whole: bytes, tmp_path: Path
) -> None:
    convert(folder, tmp_path / "out.gguf", quant="q4_k_m", threads=threads)

    assert (tmp_path / "out.gguf").read_bytes() == whole


@pytest.mark.parametrize("hidden", [False, True], ids=["unnamed", "hidden"])
@pytest.mark.parametrize("room", [0, 5_000, 100_000, 300_000])
def test_a_disk_that_fills_up_is_an_error_and_leaves_the_old_file(
    room: int, hidden: bool, folder: Path, whole: bytes, tmp_path: Path, monkeypatch
) -> None:
    if hidden:
        monkeypatch.delattr(os, "O_TMPFILE")
    output = tmp_path / "out.gguf"
    output.write_bytes(OLD)
    assert room < len(whole)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(EdgeInferError, match=r"out\.gguf: cannot be written"):
            convert(folder, output, quant="q4_k_m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert output.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [output]


def test_a_real_disk_that_is_too_small_is_refused_before_any_work(
    folder: Path, tmp_path: Path
) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        with pytest.raises(EdgeInferError, match="bytes free on the disk"):
            convert(folder, tmp_path / "out.gguf", quant="q4_k_m")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("source", ["folder", "gguf"])
def test_a_source_that_shrinks_meanwhile_is_an_error(
    source: str, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    if source == "folder":
        path = tiny.write(tiny.BY_NAME["llama-gqa64-tied"], tmp_path / "model")
        weights = path / "model.safetensors"
    else:
        path = weights = tmp_path / "model.gguf"
        convert(folder, path, quant="f32")
    write = gguf.write_job

    def shrink(*arguments, **options):
        os.truncate(weights, weights.stat().st_size // 2)
        return write(*arguments, **options)

    monkeypatch.setattr(gguf, "write_job", shrink)
    (tmp_path / "to").mkdir()

    with pytest.raises(EdgeInferError, match="ended while it was read"):
        convert(path, tmp_path / "to" / "out.gguf", quant="q4_k_m")

    assert list((tmp_path / "to").iterdir()) == []


def test_a_disk_that_cannot_be_read_is_an_error(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """What a failing disk says to a read."""
    whole = os.fstat

    def fail(fd: int) -> os.stat_result:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".safetensors"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(fd)

    monkeypatch.setattr("edgeinfer.formats.mapped.os.fstat", fail)

    with pytest.raises(EdgeInferError, match=r"safetensors: cannot be read: Input/output error"):
        convert(folder, tmp_path / "out.gguf", quant="q4_k_m")

    assert list(tmp_path.iterdir()) == []
