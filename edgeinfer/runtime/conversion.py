"""``convert``: finds the converter for a target format by its entry point."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeinfer.errors import NotFoundError, UnsupportedError, known_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUP = "edgeinfer.converters"
ONE_PASS = "edgeinfer.one_pass"


def convert(
    source: str | os.PathLike[str],
    to: str = "gguf",
    *,
    quant: str | None = None,
    output: str | os.PathLike[str],
    verify: bool = False,
    **options: Any,
) -> Any:
    """Converts a checkpoint or a GGUF file.

    Args:
        source: a Hugging Face folder (safetensors) or a GGUF file.
        to: the target format, such as "gguf" or "onnx".
        quant: a quant type or recipe, such as "q4_k_m"; None leaves it to the converter.
        output: the file to write; nothing half-written is left behind.
        verify: compare the output with the source, tensor by tensor and by its logits, before it
            takes the place of what was there.
        options: of the converter; see ``edgeinfer convert --help``.

    Returns:
        The converter's ConvertReport.

    Raises:
        NotFoundError: no converter makes this format, or the source does not exist.
        UnsupportedError: the architecture or a tensor is not known, or the converter lacks an
            option.
        CorruptFileError: the source is damaged.
        CheckFailedError: the output was verified and is not what the source is.
        DoesNotFitError: the source's weights do not fit the memory, which ``verify`` needs.
    """
    known = {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}
    if to not in known:
        raise NotFoundError(
            f"no converter makes {to!r}", hint=known_names(to, sorted(known), "installed")
        )
    if quant is not None:
        options["quant"] = quant
    converter = known[to].load()
    if verify:
        options["verify"] = native_logits
    for name in options:
        if name not in signature(converter).parameters:
            raise UnsupportedError(
                f"a conversion to {to!r} has no option {name!r}", hint="leave it out"
            )
    return converter(Path(source), output=Path(output), **options)


def convert_all(
    source: str | os.PathLike[str],
    targets: Sequence[tuple[str, str | None, Path]],
    **options: Any,
) -> list[Any]:
    """Converts a source to several formats in one pass: all outputs appear, or none.

    Args:
        source: a Hugging Face folder (safetensors), a GGUF file or an MLC folder.
        targets: format, quant type (None leaves it to the converter) and output of each.
        options: of the converters; see ``edgeinfer convert --help``. ``exact`` is called, when
            all outputs are there, with a GGUF of the source's weights as they are, which is gone
            afterwards.

    Returns:
        The converters' reports.

    Raises:
        NotFoundError: no converter makes a format, or the source does not exist.
        EdgeInferError: as ``convert``, of any of the outputs; none of them appears.
    """
    (driver,) = entry_points(group=ONE_PASS)
    reports: list[Any] = driver.load()(Path(source), targets, **options)
    return reports


def native_logits(path: Path, tokens: Sequence[int]) -> NDArray[np.float32]:
    """Runs tokens through a GGUF file: logits after each of them, float32 (tokens, vocabulary).

    Raises:
        DoesNotFitError: the weights do not fit the memory.
    """
    from edgeinfer.backends.base import ModelFiles, Slice
    from edgeinfer.backends.native import NativeBackend
    from edgeinfer.device.detect import detect
    from edgeinfer.formats.gguf import open_gguf
    from edgeinfer.planner import plan_model

    with open_gguf(path) as file:
        plan = plan_model(file, device=detect(), context=len(tokens), batch=len(tokens))
        engine = NativeBackend().load(ModelFiles(path=path, format="gguf", gguf=file), plan)
    try:
        return engine.step([Slice(engine.open(), tokens, wants_logits=len(tokens))])
    finally:
        engine.shutdown()
