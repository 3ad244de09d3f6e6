"""``convert``: finds the converter for a target format by its entry point."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from edgeinfer.errors import NotFoundError

GROUP = "edgeinfer.converters"


def convert(
    source: str | os.PathLike[str],
    to: str = "gguf",
    *,
    quant: str | None = None,
    output: str | os.PathLike[str],
    **options: Any,
) -> Any:
    """Converts a checkpoint or a GGUF file.

    Args:
        source: a Hugging Face folder (safetensors) or a GGUF file.
        to: the target format, "gguf".
        quant: a quant type or recipe, such as "q4_k_m"; None leaves it to the converter.
        output: the file to write; nothing half-written is left behind.
        options: of the converter; see ``edgeinfer convert --help``.

    Returns:
        The converter's ConvertReport.

    Raises:
        NotFoundError: no converter makes this format, or the source does not exist.
        UnsupportedError: the architecture or a tensor is not known.
        CorruptFileError: the source is damaged.
    """
    known = {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}
    if to not in known:
        raise NotFoundError(
            f"no converter makes {to!r}", hint=f"installed: {', '.join(sorted(known)) or 'none'}"
        )
    if quant is not None:
        options["quant"] = quant
    return known[to].load()(Path(source), output=Path(output), **options)
