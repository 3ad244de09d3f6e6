"""What is converted, as a GGUF that the engine can load."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.runtime.conversion import convert


@contextmanager
def as_gguf(source: Path, *, exact: bool) -> Iterator[Path]:
    """Lends a GGUF of a source: itself, or a conversion that goes when it is done with.

    Args:
        source: a Hugging Face folder or a GGUF.
        exact: its matrices must be floats with room for small changes (f16, or f32 where f16
            is too narrow); without, any GGUF is lent as it is.
    """
    if source.is_file():
        with open_gguf(source) as file:
            types = {info.type for info in file.tensors.values() if len(info.shape) > 1}
        if types <= {"f16", "f32"} or not exact:
            yield source
            return
    with tempfile.TemporaryDirectory(prefix="edgeinfer-") as temporary:
        path = Path(temporary) / f"{source.resolve().name.removesuffix('.gguf')}-f16.gguf"
        try:
            convert(source, quant="f16", output=path)
        except UnsupportedError:  # a weight that f16 has no room for
            convert(source, quant="f32", output=path)
        yield path
