"""Reads MLC folders back, in the plainest way: the rules again, written without our writer."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# bits, group, float type, transposed
FORMATS: dict[str, tuple[int, int, str, bool]] = {
    "q3f16_0": (3, 40, "float16", True),
    "q3f16_1": (3, 40, "float16", False),
    "q4f16_0": (4, 32, "float16", True),
    "q4f16_1": (4, 32, "float16", False),
    "q4f16_2": (4, 32, "float16", False),
    "q4bf16_1": (4, 32, "bfloat16", False),
    "q4f32_1": (4, 32, "float32", False),
}


def to_bfloat16(value: np.ndarray) -> np.ndarray:
    """Rounds float32 to bfloat16 with torch's rule: to the nearest, ties to even."""
    import ml_dtypes

    return value.astype(ml_dtypes.bfloat16).astype(np.float32)


ROUND: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float16": lambda v: v.astype(np.float16).astype(np.float32),
    "bfloat16": to_bfloat16,
    "float32": lambda v: v.astype(np.float32),
}


def mlc_group(weights: np.ndarray, bits: int, dtype: str) -> tuple[list[int], np.float32]:
    """One group, weight by weight, as MLC LLM's converter computes it: its codes and scale."""
    offset = np.float32(2 ** (bits - 1) - 1)
    # float16 arithmetic rounds after each operation, the other two compute in float32.
    step = ROUND["float16"] if dtype == "float16" else ROUND["float32"]
    weights = ROUND[dtype](weights)
    scale = ROUND[dtype](np.float32(np.abs(weights).max()) / offset)
    codes = []
    for weight in weights:
        if scale == 0:
            codes.append(int(offset))
            continue
        code = np.rint(step(step(weight / scale) + offset))
        codes.append(int(min(max(code, 0), 2 * offset)))
    return codes, np.float32(scale)


def mlc_pack(codes: list[int], bits: int) -> list[int]:
    """Codes in words of 32 bits, the first in the lowest bits."""
    each = 32 // bits
    words = []
    for start in range(0, len(codes), each):
        word = 0
        for lane, code in enumerate(codes[start : start + each]):
            word |= code << (lane * bits)
        words.append(word)
    return words


def mlc_matrix(weights: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A matrix's words and scales, before any transposing."""
    bits, group, dtype, _ = FORMATS[name]
    all_words, all_scales = [], []
    for row in weights:
        words: list[int] = []
        scales = []
        for start in range(0, len(row), group):
            codes, scale = mlc_group(row[start : start + group], bits, dtype)
            words += mlc_pack(codes + [0] * (group - len(codes)), bits)
            scales.append(scale)
        all_words.append(words)
        all_scales.append(scales)
    return np.array(all_words, np.uint32), np.array(all_scales, np.float32)


def values_of(words: np.ndarray, scales: np.ndarray, name: str, columns: int) -> np.ndarray:
    """What a runtime makes of words and scales, (rows, columns) in float32."""
    bits, group, _, _ = FORMATS[name]
    each, offset = 32 // bits, 2 ** (bits - 1) - 1
    columns_of_codes = [
        (words >> np.uint32(lane * bits)) & np.uint32(2**bits - 1) for lane in range(each)
    ]
    codes = np.stack(columns_of_codes, axis=-1).reshape(len(words), -1)[:, :columns]
    spread = np.repeat(scales, group, axis=1)[:, :columns]
    return (codes.astype(np.float32) - offset) * spread


@dataclass(frozen=True, slots=True)
class MlcFolder:
    """An MLC folder, read whole."""

    config: dict[str, Any]
    index: dict[str, Any]
    records: dict[str, dict[str, Any]]
    arrays: dict[str, np.ndarray]

    def values(self, name: str) -> np.ndarray:
        """A tensor by its name without quantisation, decoded."""
        if name in self.arrays:
            return self.arrays[name].astype(np.float32)
        stem = name.removesuffix("weight")
        words, scales = self.arrays[stem + "q_weight"], self.arrays[stem + "q_scale"]
        quant = self.config["quantization"]
        if FORMATS[quant][3] and "emb" not in name:
            words, scales = words.T, scales.T
        return values_of(words, scales.astype(np.float32), quant, scales.shape[1] * 1 << 20)

    def names(self) -> set[str]:
        """The tensors' names without quantisation."""
        return {n.replace("q_weight", "weight").replace("q_scale", "weight") for n in self.records}


def read(folder: Path) -> MlcFolder:
    """Reads a folder; sizes and checksums must agree."""
    config = json.loads((folder / "mlc-chat-config.json").read_text())
    index = json.loads((folder / "tensor-cache.json").read_text())
    records, arrays = {}, {}
    for shard in index["records"]:
        octets = (folder / shard["dataPath"]).read_bytes()
        assert len(octets) == shard["nbytes"]
        assert hashlib.md5(octets).hexdigest() == shard["md5sum"]
        for record in shard["records"]:
            piece = octets[record["byteOffset"] :][: record["nbytes"]]
            halved = record["dtype"] == "float32" and record["format"] == "f32-to-bf16"
            if halved or record["dtype"] == "bfloat16":
                array = (np.frombuffer(piece, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                array = np.frombuffer(piece, record["dtype"])
            records[record["name"]] = record
            arrays[record["name"]] = array.reshape(record["shape"])
    return MlcFolder(config, index, records, arrays)


def decoded(folder: Path, output: Path) -> Path:
    """Writes a folder with the same values as float32."""
    from edgeinfer_converters.mlc.shards import AS_IT_IS, Record, ShardWriter

    held = read(folder)
    shutil.copytree(folder, output, ignore=shutil.ignore_patterns("params_*", "*-cache.json"))
    config = json.loads((output / "mlc-chat-config.json").read_text())
    config["quantization"] = "q0f32"
    (output / "mlc-chat-config.json").write_text(json.dumps(config))
    width, ff = (config["model_config"][key] for key in ("hidden_size", "intermediate_size"))
    values = {}
    for name in sorted(held.names()):
        found = held.values(name)
        columns = ff if "down_proj" in name else width
        values[name] = found if found.ndim == 1 else found[:, :columns]
    records = [
        Record(name=name, shape=value.shape, dtype="float32", format=AS_IT_IS)
        for name, value in values.items()
    ]
    writer = ShardWriter(output, records)
    for name, value in values.items():
        writer.write(name, np.ascontiguousarray(value, np.float32))
    writer.finish(1)
    return output
