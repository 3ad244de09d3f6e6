"""A model in the native engine with what calibration needs to know of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.backends.base import ModelFiles
from edgeinfer.backends.native import NativeBackend, NativeEngine
from edgeinfer.calibration.inputs import MatrixSource, matrices
from edgeinfer.device.detect import detect
from edgeinfer.formats.gguf import GGUFFile, open_gguf
from edgeinfer.planner import plan_model
from edgeinfer.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A loaded model, its file and its vocabulary."""

    file: GGUFFile
    engine: NativeEngine
    tokenizer: Tokenizer
    matrices: list[MatrixSource]


@contextmanager
def open_model(path: Path, *, context: int, threads: int | None = None) -> Iterator[Opened]:
    """Loads a GGUF file for reading texts of ``context`` tokens; the cache keeps 32-bit floats.

    Raises:
        DoesNotFitError: it takes more memory than there is.
        NotFoundError, CorruptFileError, UnsupportedError: as ``edgeinfer.load``.
    """
    with open_gguf(path) as file:
        plan = plan_model(
            file,
            device=detect(),
            context=context,
            threads=threads,
            batch=context,
            kv_type_k="f32",
            kv_type_v="f32",
        )
        tokenizer = load_tokenizer(file)
        engine = NativeBackend().load(ModelFiles(path=path, format="gguf", gguf=file), plan)
        try:
            yield Opened(
                file=file,
                engine=engine,
                tokenizer=tokenizer,
                matrices=matrices(file, engine.config),
            )
        finally:
            engine.shutdown()
