"""Matrices kept on disk in the order that ONNX Runtime's kernels read them.

Else it copies them into that order at each load, into memory of its own that nobody can take
back. A file of them is mapped: half the memory stays free for the system to use, at the price of
a file of more than the model's size. It is for one processor and one version of the library.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeinfer.formats import onnx_folder
from edgeinfer.formats.atomic_folder import AtomicFolder
from edgeinfer.formats.onnx_folder import OnnxFolder
from edgeinfer.store.home import home

_DATA = "model.onnx.data"
_GROWTH = 2.5  # of the data: 2.4 was measured in int4
_SMALLEST = 1024  # bytes of a tensor that goes into the data file

MakeSession = Callable[[Path, Any], object]


def prepacked(library: Any, folder: OnnxFolder, processor: str, make: MakeSession) -> Path:
    """Returns the graph of a folder with its matrices in order, made now if it is not there.

    Args:
        library: the module of onnxruntime.
        folder: the exported model.
        processor: what the order is for.
        make: makes a session of a graph, with options.

    Raises:
        EdgeInferError: the disk has no room for it.
        Exception: what the library raises where it cannot load the graph.
    """
    place = home() / "prepacked"
    path = str(folder.path.resolve())
    data = (folder.path / _DATA).stat()
    state = f"{library.__version__} {processor} {data.st_size} {data.st_mtime_ns}"
    model, version = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in (path, state))
    found = place / f"{model}-{version}"
    if not found.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        for outdated in place.glob(f"{model}-*"):
            shutil.rmtree(outdated, ignore_errors=True)
        with AtomicFolder(found, mark=onnx_folder.GRAPH) as made:
            made.reserve(int(_GROWTH * data.st_size))  # the library's own error tells little
            options = library.SessionOptions()
            # Higher levels write what holds for this processor into the graph itself.
            options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(made.part / onnx_folder.GRAPH)
            for key, value in (
                ("optimized_model_external_initializers_file_name", _DATA),
                ("optimized_model_external_initializers_min_size_in_bytes", str(_SMALLEST)),
                ("save_external_prepacked_constant_initializers", "1"),
            ):
                options.add_session_config_entry(f"session.{key}", value)
            make(folder.path / onnx_folder.GRAPH, options)
    return found / onnx_folder.GRAPH
