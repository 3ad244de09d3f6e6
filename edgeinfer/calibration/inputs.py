"""Which tensors of a file are multiplied with which inputs of the engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import config_from_gguf, engine_tensors, gguf_architecture
from edgeinfer.arch.config import ModelConfig
from edgeinfer.arch.tensors import FLOATS, LOOKED_UP, split_name
from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.gguf import GGUFFile

# The matrices of a block, and the name that Calibratable.record gives to their input.
_FIELDS: Mapping[str, str] = {
    "attn_q.weight": "qkv",
    "attn_k.weight": "qkv",
    "attn_v.weight": "qkv",
    "attn_output.weight": "o",
    "shortconv.in_proj.weight": "qkv",
    "shortconv.out_proj.weight": "o",
    "ssm_qkv.weight": "qkv",
    "ssm_gate.weight": "qkv",
    "ssm_ba.weight": "qkv",
    "ssm_beta.weight": "qkv",
    "ssm_alpha.weight": "qkv",
    "ssm_out.weight": "o",
    "ffn_gate_inp.weight": "ffn",
    "ffn_gate.weight": "ffn",
    "ffn_up.weight": "ffn",
    "ffn_down.weight": "down",
    "ffn_gate_shexp.weight": "ffn",
    "ffn_up_shexp.weight": "ffn",
    "ffn_down_shexp.weight": "down/shared",
}
# Of layers that have inputs of their own, and of blocks beside experts.
_FIELDS_OF_INPUTS = {"inp_gate.weight": "input_gate", "proj.weight": "input_proj"}
_FIELDS_BESIDE = {
    "ffn_gate.weight": "dense",
    "ffn_up.weight": "dense",
    "ffn_down.weight": "dense_down",
    "ffn_gate_inp.weight": "",  # it stays float32
}
_EXPERT = re.compile(r"\.\d+\.weight$")  # "ffn_gate.3.weight", the gate of expert 3
# Of what stays float32, or is looked up, nothing is recorded.
_NOT_RECORDED = LOOKED_UP | {
    "per_layer_model_proj.weight",
    *("altup_proj.weight", "altup_unembd_proj.weight", "altup_router.weight"),
    *("laurel_l.weight", "laurel_r.weight"),
}
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows [start, start + count) of a file's tensor, under their name in the graph."""

    name: str
    start: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixSource:
    """A matrix of the file.

    Attributes:
        name: in the file.
        shape: (rows, columns); the rows of all experts count.
        experts: how many matrices it holds one after the other, each for tokens of its own.
        field: of what ``record`` returns, or "" for an embedding that is only looked up.
        layer: its block, or -1 outside of all.
        parts: what it is in the graph; several where it is fused.
    """

    name: str
    shape: tuple[int, int]
    experts: int
    field: str
    layer: int
    parts: tuple[Rows, ...]

    def of_rows(self) -> NDArray[np.int64]:
        """The expert of each row, (rows,); 0 where there is one matrix."""
        return np.arange(self.shape[0]) * self.experts // self.shape[0]


def matrices(file: GGUFFile, config: ModelConfig | None = None) -> list[MatrixSource]:
    """Lists a model's matrices in file order; vectors and convolutions are not among them.

    Raises:
        UnsupportedError: a block has a matrix whose input the engine does not record.
    """
    config = config or config_from_gguf(file)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    parts: dict[str, list[Rows]] = {}
    for part in engine_tensors(gguf_architecture(file.metadata), config, shapes):
        if len(shapes[part.source]) > 1 and split_name(part.name)[1] not in FLOATS:
            rows = Rows(part.name, part.row_start, part.row_count)
            parts.setdefault(part.source, []).append(rows)
    found = []
    for name in file.tensors:
        if name not in parts:
            continue
        stacked = len(shapes[name]) > 2
        block, kind = split_name(_EXPERT.sub(".weight", parts[name][0].name))
        if kind == _EMBEDDING:
            field = "output" if config.tied_output else ""
        elif kind in _NOT_RECORDED:
            field = ""
        elif config.has_beside and not stacked and kind in _FIELDS_BESIDE:
            field = _FIELDS_BESIDE[kind]
        elif kind in _FIELDS_OF_INPUTS:
            field = _FIELDS_OF_INPUTS[kind]
        elif kind == _OUTPUT:
            field = "output"
        elif config.dense_layers and not stacked and kind == "ffn_down.weight":
            field = "dense_down"  # in layers without experts
        elif kind in _FIELDS:
            field = _FIELDS[kind]
        else:
            raise UnsupportedError(f"calibration cannot see what {name!r} is multiplied with")
        found.append(
            MatrixSource(
                name=name,
                shape=(prod(shapes[name][:-1]), shapes[name][-1]),
                experts=shapes[name][0] if stacked else 1,
                field=field,
                layer=int(block.split(".")[1]) if block else -1,
                parts=tuple(parts[name]),
            )
        )
    return found
