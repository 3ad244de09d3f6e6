"""Plans of MLC folders: from what lies in them, without TVM."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeinfer.formats.mlc import folder as folders
from edgeinfer.planner import mlc
from edgeinfer.planner.footprint import Setting
from support import tiny


@pytest.mark.parametrize("quant", ["q0f32", "q4f16_1", "q4f16_2", "q3f16_1"])
def test_weights_take_what_the_folder_holds(quant: str, tmp_path: Path) -> None:
    from edgeinfer_converters.mlc.convert import convert

    convert(
        tiny.write(tiny.BY_NAME["llama-gqa64-tied"], tmp_path / "hf"), tmp_path / "out", quant=quant
    )
    folder = folders.read(tmp_path / "out")
    model = mlc.outline(folder)
    config = folder.config

    takes = {
        kind: mlc.footprint(
            model, Setting(context=64, batch=16, threads=1, kv_type_k=kind, kv_type_v=kind)
        )
        for kind in ("f32", "f16")
    }

    held = sum(file.stat().st_size for file in (tmp_path / "out").glob("params_shard_*.bin"))
    # Codes of three bits are loaded as four.
    assert (takes["f16"].weights_bytes > held) == (quant == "q3f16_1")
    assert held <= takes["f16"].weights_bytes < 1.25 * held
    cached = 64 * config.layers * config.kv_heads * config.head_dim * 2
    assert (takes["f16"].kv_bytes, takes["f32"].kv_bytes) == (2 * cached, 4 * cached)
    assert model.quant == quant
    assert model.longest_context == config.context
