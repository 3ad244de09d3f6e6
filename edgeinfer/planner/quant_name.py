"""What a file's mix of quant types is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

from edgeinfer.planner.costs import Tensor

# general.file_type -> name; llama.cpp's enum llama_ftype.
_FILE_TYPES = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    7: "q8_0",
    8: "q5_0",
    9: "q5_1",
    10: "q2_k",
    11: "q3_k_s",
    12: "q3_k_m",
    13: "q3_k_l",
    14: "q4_k_s",
    15: "q4_k_m",
    16: "q5_k_s",
    17: "q5_k_m",
    18: "q6_k",
    25: "iq4_nl",
    30: "iq4_xs",
    32: "bf16",
    38: "mxfp4",
}


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
    said = _FILE_TYPES.get(metadata.get("general.file_type", -1), "")
    if any(said.startswith(name) for name in types):
        return said
    return next(iter(types), "f32")
