"""A model on disk, opened for what comes before its weights: the plan, the tokenizer, the defaults.

What a format's files say of themselves is known here and nowhere above; ``FORMATS`` has an entry
for each format that a backend may run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeinfer.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from edgeinfer.formats.gguf import GGUFFile
    from edgeinfer.planner.outline import Outline
    from edgeinfer.store.model import StoredModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open model.

    Attributes:
        header: what plans are made of.
        metadata: the keys that a GGUF of it has.
        tokenizer: what ``load_tokenizer`` takes.
        gguf: the file, if it is one.
        kv_type: of its cache, where the files fix it.
    """

    header: GGUFFile | Outline
    metadata: Mapping[str, Any]
    tokenizer: GGUFFile | Path
    gguf: GGUFFile | None = None
    kv_type: str | None = None

    @property
    def causal(self) -> bool:
        """Whether it writes; what only reads texts as a whole is a GGUF."""
        from edgeinfer.arch import gguf_architecture

        return self.gguf is None or gguf_architecture(self.gguf.metadata).causal

    def kv_types(self, asked_k: str, asked_v: str) -> tuple[str, str]:
        """The types of cached keys and values, of those asked for or by default.

        Raises:
            UsageError: the files fix another.
        """
        if self.kv_type is None:
            return asked_k, asked_v
        for asked in (asked_k, asked_v):
            if asked not in ("f16", self.kv_type):  # f16 is what nobody asked for
                raise UsageError(
                    f"the model has a cache of {self.kv_type}, not of {asked}",
                    hint="leave -ctk and -ctv out",
                )
        return self.kv_type, self.kv_type


def opened(stored: StoredModel) -> AbstractContextManager[Opened]:
    """Opens a model.

    Raises:
        UnsupportedError: no backend can run the format, or something in it is not known.
        CorruptFileError: a file is damaged.
    """
    if stored.format not in FORMATS:
        raise UnsupportedError(
            f"{stored.path} is a {stored.format!r} model, which no backend here runs",
            hint=f"convert it: edgeinfer convert {stored.path} --to gguf -q q4_k_m -o MODEL.gguf",
        )
    return FORMATS[stored.format](Path(stored.path))


@contextmanager
def _gguf(path: Path) -> Iterator[Opened]:
    from edgeinfer.formats.gguf import open_gguf
    from edgeinfer.formats.guard import Guard

    with Guard([path]), open_gguf(path) as file:
        yield Opened(header=file, metadata=file.metadata, tokenizer=file, gguf=file)


@contextmanager
def _onnx(path: Path) -> Iterator[Opened]:
    from edgeinfer.formats import onnx_folder
    from edgeinfer.planner.onnxruntime import outline

    folder = onnx_folder.read(path)
    yield Opened(
        header=outline(folder), metadata=folder.metadata, tokenizer=path, kv_type=folder.cache
    )


@contextmanager
def _mlc(path: Path) -> Iterator[Opened]:
    from edgeinfer.formats.mlc import folder as folders
    from edgeinfer.planner.mlc import outline

    folder = folders.read(path)
    yield Opened(header=outline(folder), metadata=folder.metadata, tokenizer=path)


FORMATS: Mapping[str, Callable[[Path], AbstractContextManager[Opened]]] = {
    "gguf": _gguf,
    "onnx": _onnx,
    "mlc": _mlc,
}
