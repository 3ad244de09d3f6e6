"""TVM's runtime: loads libraries and calls their functions. The compiler is not needed.

The runtime is a library of 3 MB within apache-tvm, opened here by itself: importing the package
would load the compiler's 260 MB too.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.mlc.artifacts import whole
from edgeinfer.errors import CorruptFileError, UnsupportedError

INSTALL = "pip install 'edgeinfer[mlc]'"
METADATA = "edgeinfer_metadata"
_CPU, _POOLED = 1, 2
_BIG_CORES = 1  # of TVM's ways to count threads, the one that heeds a number
T = TypeVar("T")


@cache
def ffi() -> Any:
    """Returns the module tvm_ffi, the runtime opened.

    Raises:
        UnsupportedError: it is not installed, or not of a version that works.
    """
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    # The most there can be; TVM would take half of the processors, and reads this at each call.
    os.environ.setdefault("TVM_NUM_THREADS", str(max(os.cpu_count() or 1, 2)))
    try:
        with without_torch():
            module = import_module("tvm_ffi")
        place = _runtime_file()
        ctypes.CDLL(str(place), ctypes.RTLD_GLOBAL)
        module.get_global_func("runtime.config_threadpool")
    except (ImportError, OSError, AttributeError, ValueError) as error:
        raise UnsupportedError(
            f"the backend 'mlc' needs apache-tvm, and apache-tvm-ffi of its version: {error}",
            hint=INSTALL,
        ) from error
    return module


@contextmanager
def without_torch() -> Iterator[None]:
    """Hides torch, which tvm_ffi would import for tensors that nobody here has: 3 s, 200 MB."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


def _runtime_file() -> Path:
    found = importlib.util.find_spec("tvm")
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    if not folders:
        raise ImportError("apache-tvm is not installed")
    name = {"win32": "tvm_runtime.dll", "darwin": "libtvm_runtime.dylib"}.get(
        sys.platform, "libtvm_runtime.so"
    )
    return Path(folders[0]) / "lib" / name


class Library:
    """A compiled model, loaded.

    Args:
        path: of the library.

    Raises:
        UnsupportedError: no runtime is installed, or the library is not for this one.
        CorruptFileError: it is cut short, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._ffi = ffi()
        if not whole(path):
            raise CorruptFileError(f"{path} is cut short", hint="delete it, and compile it again")
        try:
            executable = self._ffi.load_module(str(path))
            machine = executable["vm_load_executable"]()
            machine["vm_initialization"](_CPU, 0, _POOLED, _CPU, 0, _POOLED)
            text = str(machine[METADATA]())
        except Exception as error:  # its errors have no class in common
            raise UnsupportedError(
                f"{path} is no library for this runtime: {error}",
                hint="compile it again: edgeinfer compile MODEL",
            ) from error
        try:
            self.metadata: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise CorruptFileError(f"{path}: damaged: {error}") from error
        self._machine: Any = machine

    def function(self, name: str) -> Callable[..., Any]:
        """Returns a function of the library."""
        found: Callable[..., Any] = self._machine[name]
        return found

    def tensor(self, array: NDArray[Any]) -> Any:
        """Returns an array as the library takes it, in the same memory."""
        return self._ffi.from_dlpack(array)

    def tuple(self, arrays: Sequence[NDArray[Any]]) -> Any:
        """Returns arrays together, as the library takes its parameters."""
        return self._ffi.convert([self.tensor(array) for array in arrays])

    def release(self) -> None:
        """Gives memory that the runtime keeps for later steps back."""
        self._machine = None
        clear = self._ffi.get_global_func("vm.builtin.memory_manager.clear", allow_missing=True)
        if clear is not None:
            clear()


class Caller:
    """The one thread that calls libraries.

    TVM keeps a pool of threads for each thread that ever called it, until the process ends.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlc")
        self._threads = 0

    def compute(self, threads: int, work: Callable[..., T], *given: Any) -> T:
        """Returns what ``work`` computes with so many threads."""
        return self._thread.submit(self._compute, threads, work, *given).result()

    def _compute(self, threads: int, work: Callable[..., T], *given: Any) -> T:
        if threads != self._threads:
            ffi().get_global_func("runtime.config_threadpool")(_BIG_CORES, threads)
            self._threads = threads
        return work(*given)


@cache
def caller() -> Caller:
    """Returns the thread, made when it is first asked for."""
    return Caller()


def array(tensor: Any) -> NDArray[np.float32]:
    """Returns a tensor's values, in the same memory."""
    return np.asarray(np.from_dlpack(tensor), np.float32)
