"""Mapped files that are cut short: told as an error, and only for files under guard.

Each case runs in a process of its own, because without a guard it ends there.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import edgeinfer
from support.whole_model import write_whole_model

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="maps are guarded on Linux"
)
PAGES = 8
HEAD = f"""
import mmap, os, sys, threading
from pathlib import Path
from edgeinfer.errors import CorruptFileError
from edgeinfer.formats.guard import Guard

path = Path(sys.argv[1])
PAGE = mmap.PAGESIZE

def mapped(path):
    path.write_bytes(b"x" * (PAGE * {PAGES}))
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

def told(guard):
    try:
        guard.check()
    except CorruptFileError as error:
        return "cut short" in error.message
    return False
"""


def run(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HEAD + source, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def succeeds(source: str, *arguments: object) -> None:
    done = run(source, *arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_missing_reads_as_zeros_and_is_told(tmp_path):
    succeeds(
        """
path.touch()
with Guard([path]) as guard:
    data = mapped(path)
    assert data[-1] == ord("x") and not told(guard)
    os.truncate(path, 3 * PAGE)
    assert data[3 * PAGE - 1] == ord("x") and not told(guard)
    assert data[5 * PAGE] == 0 and told(guard)
    assert data[7 * PAGE :] == bytes(PAGE)
    assert data[: 3 * PAGE] == b"x" * 3 * PAGE  # what is there stays
    os.truncate(path, 8 * PAGE)
    assert not told(Guard([path]))  # a later guard does not see earlier losses
    guard.close()  # it has been told
""",
        tmp_path / "file",
    )


def test_leaving_tells_also_what_an_error_was_really_about(tmp_path):
    succeeds(
        """
path.touch()
try:
    with Guard([path]):
        data = mapped(path)
        os.truncate(path, 0)
        raise ValueError(f"no magic: {data[0]}")
except CorruptFileError as error:
    assert isinstance(error.__context__, ValueError)
else:
    raise AssertionError
""",
        tmp_path / "file",
    )


def test_many_threads_may_find_it_at_once(tmp_path):
    succeeds(
        """
path.touch()
guard = Guard([path])
data = mapped(path)
os.truncate(path, PAGE)
found = []
threads = [
    threading.Thread(target=lambda n=n: found.append(data[(1 + n % 7) * PAGE])) for n in range(32)
]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert found == [0] * 32 and told(guard)
""",
        tmp_path / "file",
    )


@pytest.mark.parametrize(
    "guarded",
    ["", "Guard([path]).close()", "Guard([other])"],
    ids=["none", "taken off", "another file"],
)
def test_without_guard_all_is_as_ever(tmp_path, guarded):
    done = run(
        f"""
other = Path(sys.argv[2])
path.touch()
guard = {guarded or None}
data = mapped(path)
os.truncate(path, 0)
print(data[PAGE])
""",
        tmp_path / "file",
        write_whole_model(tmp_path / "other.gguf"),
    )
    assert done.returncode == -signal.SIGBUS


def test_a_handler_that_was_there_before_gets_what_is_not_ours(tmp_path):
    done = run(
        """
import faulthandler
faulthandler.enable()
path.touch()
with Guard([path]):
    other = mapped(path.with_name("other"))
    os.truncate(path.with_name("other"), 0)
    print(other[0])
""",
        tmp_path / "file",
    )
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr


# ---- models ----------------------------------------------------------------------------------

CUT_WHILE_LOADING = """
import edgeinfer
from edgeinfer.formats import gguf
parse = gguf.parse_header

def cut(data, **options):
    os.truncate(path, mmap.PAGESIZE)
    return parse(data, **options)

gguf.parse_header = cut
try:
    edgeinfer.load(path, backend=sys.argv[2], context=32)
except CorruptFileError as error:
    assert "cut short" in error.message, error
else:
    raise AssertionError("it was loaded")
"""
CUT_AFTER_PARSING = """
import edgeinfer
from edgeinfer.runtime.choice import Choice
open_ = Choice.open

def cut(self):
    os.truncate(path, path.stat().st_size // 2)
    return open_(self)

Choice.open = cut
try:
    model = edgeinfer.load(path, backend=sys.argv[2], context=32)
    model.generate("abc", max_tokens=3)
except edgeinfer.EdgeInferError as error:
    print(type(error).__name__)
else:
    raise AssertionError("half of it was enough")
"""
CUT_WHILE_GENERATING = """
import edgeinfer
model = edgeinfer.load(path, backend="llamacpp", context=64)
model.generate("abc", max_tokens=3)
os.truncate(path, mmap.PAGESIZE)
try:
    model.generate("xyz", max_tokens=3)
except CorruptFileError as error:
    assert "cut short" in error.message, error
else:
    raise AssertionError("it did not notice")
model.close()
"""
BACKENDS = ["native", pytest.param("llamacpp", marks=pytest.mark.peer)]


@pytest.fixture
def model(tmp_path):
    return write_whole_model(tmp_path / "model.gguf")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_cut_while_its_header_is_read(model, backend):
    succeeds(CUT_WHILE_LOADING, model, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_cut_while_its_weights_are_read(model, backend):
    done = run(CUT_AFTER_PARSING, model, backend)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("CorruptFileError", "UnsupportedError")


def test_the_native_engine_needs_no_file_once_it_is_loaded(model):
    with edgeinfer.load(model, backend="native", context=64) as loaded:
        before = loaded.generate("abc", max_tokens=8, temperature=0).tokens
        model.write_bytes(b"")

        assert loaded.generate("abc", max_tokens=8, temperature=0).tokens == before


@pytest.mark.peer
def test_llamacpp_tells_that_the_file_it_maps_was_cut(model):
    succeeds(CUT_WHILE_GENERATING, model)
