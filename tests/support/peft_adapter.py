"""Random PEFT adapters of the tiny models, written without PEFT."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeinfer.arch import config_from_hf
from edgeinfer.arch.lora import ADAPTABLE
from edgeinfer.arch.tensors import checkpoint_names, file_shape, split_name
from edgeinfer.arch.transforms import transform_of
from support.tiny import Tiny

RANK, ALPHA = 4, 6


def write_peft(model: Tiny, folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """Writes an adapter of every projection that can be adapted; strong, so that it shows.

    Args:
        model: whose numbers are read.
        folder: to write.
        seed: of the values.
        config: of PEFT; "r" is the rank.
    """
    from safetensors.numpy import save_file

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    ranks: Mapping[str, int] = config.get("rank_pattern", {})
    numbers = config_from_hf(model.config)
    tensors, modules = {}, {}
    for ours, theirs in checkpoint_names(model.arch, numbers, {}).items():
        kind = split_name(ours)[1]
        if kind in ADAPTABLE:
            transform = transform_of(model.arch, kind)
            shape = transform.stored(numbers, file_shape(model.arch, numbers, ours))
            modules[theirs.removesuffix(".weight")] = shape[::-1] if transform.transposed else shape
    for module, (rows, columns) in modules.items():
        last = module.rpartition(".")[2]
        rank = next(
            (r for pattern, r in ranks.items() if re.fullmatch(pattern, last)),
            config.get("r", RANK),
        )
        a, b = rng.standard_normal((rank, columns)), rng.standard_normal((rows, rank))
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = (a / np.sqrt(columns)).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = (b / np.sqrt(rank) / 2).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": sorted(modules),
        "bias": "none",
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder
