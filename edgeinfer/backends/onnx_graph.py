"""Whether a session's graph is the one that its folder tells of, by its inputs and outputs.

Steps hand it bare pointers, so what another graph would make of them is not left to chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeinfer.errors import CorruptFileError
from edgeinfer.formats import onnx_folder
from edgeinfer.formats.onnx_folder import OnnxFolder

_TYPES = {"f32": "tensor(float)", "f16": "tensor(float16)", "int8": "tensor(int8)"}
_NUMBERS = "tensor(int64)"
_Shape = tuple[int | None, ...]  # None: any size


def check_graph(session: Any, folder: OnnxFolder) -> None:
    """Compares names, types and shapes.

    Raises:
        CorruptFileError: the graph has others.
    """
    inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
    found = {value.name: value for value in (*inputs, *session.get_outputs())}
    problem = None
    for name, kind, shape in _expected(folder):
        value = found.pop(name, None)
        if value is None:
            problem = f"it has no {name!r}"
        elif value.type != kind or not _fits(value.shape, shape):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            problem = f"{name!r} is a {value.type} of {value.shape}, not a {kind} of ({wanted})"
        if problem:
            break
    else:
        more = [value.name for value in inputs if value.name in found]
        problem = f"it wants {more[0]!r} as well" if more else None
    if problem:
        raise CorruptFileError(
            f"{folder.path / onnx_folder.GRAPH} is not the graph of {onnx_folder.NAME}: {problem}",
            hint="export the model again",
        )


def _expected(folder: OnnxFolder) -> Iterator[tuple[str, str, _Shape]]:
    """Names, types and shapes."""
    config, floats = folder.config, _TYPES[folder.floats]
    yield "input_ids", _NUMBERS, (None, None)
    yield "attention_mask", _NUMBERS, (None, None)
    yield "num_logits", _NUMBERS, (1,)
    for layer in range(config.layers):
        for kind in ("past_key_values", "present"):
            for part in ("key", "value"):
                shape = (None, config.kv_heads, None, config.head_dim)
                yield f"{kind}.{layer}.{part}", _TYPES[folder.cache], shape
    yield "logits", floats, (None, None, config.vocab_size)
    yield "hidden_states", floats, (None, None, config.width)


def _fits(shape: list[int | str], wanted: _Shape) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or found == size for found, size in zip(shape, wanted, strict=True)
    )
