"""What a file's mix of quant types is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from edgeinfer.formats.ggml_types import FILE_TYPES

if TYPE_CHECKING:
    from edgeinfer.planner.outline import Tensor

_NAMES = {number: name for name, number in FILE_TYPES.items()}


def weight_types(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Maps the types of the matrices to their numbers of weights, the commonest first."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        if len(tensor.shape) > 1:
            counts[tensor.type] += prod(tensor.shape)
    return dict(counts.most_common())


def quant_name(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Returns what the file calls its mix, if that is one of its types; else the commonest."""
    types = weight_types(tensors)
    number = metadata.get("general.file_type")
    said = _NAMES.get(number, "") if isinstance(number, int) else ""
    if any(said.startswith(name) for name in types):
        return said
    return next(iter(types), "f32")
