"""Conversion to GGUF: what is in the file, read by the ``gguf`` package."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeinfer.arch import config_from_hf
from edgeinfer.arch.tensors import checkpoint_names, repeated, split_name
from edgeinfer.calibration.inputs import matrices
from edgeinfer.errors import UsageError
from edgeinfer.formats.ggml_types import FILE_TYPES
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.quant.assignment import assign
from edgeinfer.quant.recipes import RECIPES, get_recipe
from edgeinfer_converters.checkpoint import HuggingFaceSource
from edgeinfer_converters.gguf import convert
from edgeinfer_converters.pipeline import Progress
from edgeinfer_converters.tensors import CheckpointTensor
from support import tiny

WIDE = tiny.Tiny(
    name="llama-wide",
    config={
        **tiny.BY_NAME["llama-gqa64-tied"].config,
        "hidden_size": 256,
        "intermediate_size": 512,  # whole blocks of every type
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(WIDE, tmp_path_factory.mktemp("checkpoint") / "Wide-1")


def value(reader: gguf.GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def decoded(path: Path) -> dict[str, np.ndarray]:
    reader = gguf.GGUFReader(path)
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}


@pytest.mark.parametrize("quant", [name for name in RECIPES if name != "mxfp4"])
def test_every_recipe_makes_a_file_that_is_near_the_source(
    quant: str, folder: Path, tmp_path: Path
) -> None:
    exact = tmp_path / "f32.gguf"
    convert(folder, exact, quant="f32")

    weighted = get_recipe(quant).needs_importance
    importance = {name: np.ones((1, w.shape[-1]), np.float32) for name, w in decoded(exact).items()}
    report = convert(
        folder, tmp_path / "out.gguf", quant=quant, importance=importance if weighted else None
    )

    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    config = config_from_hf(WIDE.config)
    shapes = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in reader.tensors}
    wanted = assign(get_recipe(quant), shapes, config, weighted=weighted)
    assert {t.name: t.tensor_type.name.lower() for t in reader.tensors} == {
        name: choice.type.name for name, choice in wanted.items()
    }
    assert value(reader, "general.file_type") == FILE_TYPES[quant]
    assert report.types == {
        name: sum(t.tensor_type.name.lower() == name for t in reader.tensors)
        for name in report.types
    }
    # The error of n bits over +-3 standard deviations; generous, the types have their own tests.
    bound = 6 * 2.0**-report.bits_per_weight
    found = decoded(tmp_path / "out.gguf")
    for name, source in decoded(exact).items():
        error = found[name] - source
        assert np.sqrt(np.mean(error**2)) <= bound * np.sqrt(np.mean(source**2))


@pytest.mark.parametrize("quant", ["iq3_xxs", "iq2_m", "iq1_s", "q2_k_s"])
def test_so_few_bits_are_refused_without_importance(
    quant: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="without an importance matrix") as caught:
        convert(folder, tmp_path / "out.gguf", quant=quant)

    assert "--calibrate" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", tiny.ALL, ids=str)
def test_f32_holds_the_checkpoints_weights(model: tiny.Tiny, tmp_path: Path) -> None:
    source = tiny.write(model, tmp_path / "model")
    report = convert(source, tmp_path / "out.gguf", quant="f32")
    tensors = dict(model.tensors())
    before = model.arch.first_position  # rows that are no token's
    tensors |= {
        n: v[before:] for n, v in tensors.items() if n.endswith("position_embeddings.weight")
    }
    checkpoint = {n: np.abs(v).sum(dtype=np.float64) for n, v in tensors.items()}

    found = decoded(tmp_path / "out.gguf")

    # Rows may change places, so sums are compared; some norms get one added.
    undo = {"add_one": lambda v: v - 1, "minus_exp": lambda v: np.log(-v)}
    undo["tiled_minus_exp"] = undo["minus_exp"]
    names = checkpoint_names(model.arch, config_from_hf(model.config), model.config)
    sums: Counter[str] = Counter()  # a checkpoint's tensor may become several
    for name, theirs in names.items():
        transform = model.arch.transforms.get(split_name(name)[1], "")
        stored = undo.get(transform, np.asarray)(found[name])
        if name in model.arch.padded:
            stored = stored[: len(tensors[theirs])]
        for i, part in enumerate(stored if "{}" in theirs else [stored]):  # experts are stacked
            sums[theirs.format(i)] += np.abs(part).sum(dtype=np.float64)
    names |= repeated(model.arch, config_from_hf(model.config))
    assert {n for n in found if not n.startswith("rope_")} == set(names)
    assert sums.keys() == checkpoint.keys()
    for name, total in checkpoint.items():
        np.testing.assert_allclose(sums[name], total, rtol=1e-5)
    assert report.tensors == len(found)


def test_file_types_are_the_vendors() -> None:
    vendor = {
        e.name.removeprefix("MOSTLY_").removeprefix("ALL_").lower(): e for e in gguf.LlamaFileType
    }
    names = {"mxfp4": "mxfp4_moe"}

    assert set(RECIPES) <= set(FILE_TYPES)
    for name, number in FILE_TYPES.items():
        if names.get(name, name) in vendor:
            assert number == vendor[names.get(name, name)]


def test_metadata_says_what_the_checkpoint_says(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "Model-7"
    source.symlink_to(folder)  # a folder by another name
    convert(source, tmp_path / "out.gguf", quant="q8_0")

    reader = gguf.GGUFReader(tmp_path / "out.gguf")

    assert value(reader, "general.architecture") == "llama"
    assert value(reader, "general.type") == "model"
    assert value(reader, "general.size_label") == "1.9M"
    assert value(reader, "general.quantization_version") == gguf.GGML_QUANT_VERSION
    assert value(reader, "llama.block_count") == 3
    assert value(reader, "llama.vocab_size") == 331
    assert value(reader, "llama.attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert len(value(reader, "tokenizer.ggml.tokens")) == 331
    assert "<|im_start|>" in value(reader, "tokenizer.chat_template")
    for key, field in reader.fields.items():
        if key.startswith("llama."):
            assert field.types[0] in (
                gguf.GGUFValueType.UINT32,
                gguf.GGUFValueType.FLOAT32,
                gguf.GGUFValueType.STRING,
            )


def test_shards_and_one_file_make_the_same(folder: Path, tmp_path: Path) -> None:
    sharded = tiny.write(WIDE, tmp_path / folder.name, shards=3)

    convert(folder, tmp_path / "one.gguf", quant="q4_k_m")
    report = convert(sharded, tmp_path / "three.gguf", quant="q4_k_m")

    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "three.gguf").read_bytes()
    assert report.bytes_in == sum(f.stat().st_size for f in sharded.glob("*.safetensors"))


def test_the_number_of_threads_and_the_size_of_blocks_change_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(folder, tmp_path / "one.gguf", quant="q4_k_m", threads=1)
    monkeypatch.setattr("edgeinfer_converters.quantize.BLOCK_VALUES", 10 * 256)

    convert(folder, tmp_path / "two.gguf", quant="q4_k_m", threads=3)

    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_checkpoints_of_other_floats_make_the_same(
    dtype: str, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / folder.name
    tiny.write(WIDE, other)
    write_as(dtype, other / "model.safetensors")

    convert(folder, tmp_path / "f32.gguf", quant="f32")
    convert(other, tmp_path / "other.gguf", quant="f32")

    if dtype == "float16":  # which loses the smallest weights
        one, two = decoded(tmp_path / "f32.gguf"), decoded(tmp_path / "other.gguf")
        assert all(np.allclose(one[name], two[name], atol=1e-6) for name in one)
    else:
        assert (tmp_path / "f32.gguf").read_bytes() == (tmp_path / "other.gguf").read_bytes()


def write_as(dtype: str, path: Path) -> None:
    """Writes a tiny model's tensors in another type; BF16 by hand, numpy has none."""
    if dtype != "bfloat16":
        from safetensors.numpy import save_file

        save_file({name: v.astype(dtype) for name, v in WIDE.tensors()}, path)
        return
    entries, chunks, at = {}, [], 0
    for name, values in WIDE.tensors():
        octets = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        entries[name] = {
            "dtype": "BF16",
            "shape": values.shape,
            "data_offsets": [at, at + len(octets)],
        }
        chunks.append(octets)
        at += len(octets)
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"".join(chunks))


def test_progress_tells_tensors_bytes_and_time(folder: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []

    report = convert(folder, tmp_path / "out.gguf", quant="q8_0", progress=seen.append)

    assert [p.number for p in seen] == sorted(p.number for p in seen)
    assert seen[-1].number == seen[-1].tensors == report.tensors
    assert seen[-1].bytes_out == seen[-1].bytes_total
    assert all(a.bytes_out < b.bytes_out and a.seconds <= b.seconds for a, b in pairwise(seen))


@pytest.mark.parametrize(
    ("name", "cls", "before", "instead", "others"),
    [
        (
            "gemma3-gqa64",
            "Gemma3ForConditionalGeneration",
            "",
            "language_model.",
            ("vision_tower.vision_model.embeddings", "multi_modal_projector.mm_soft_emb_norm"),
        ),
        (
            "gemma3n-mqa32-shared",
            "Gemma3nForConditionalGeneration",
            "model.",
            "model.language_model.",
            ("model.vision_tower.stem.conv", "model.audio_tower.conformer.0", "model.embed_audio"),
        ),
    ],
)
def test_a_multimodal_checkpoint_gives_its_text_model(
    name: str, cls: str, before: str, instead: str, others: tuple[str, ...], tmp_path: Path
) -> None:
    model = tiny.BY_NAME[name]
    plain = tiny.write(model, tmp_path / "a" / "model")
    nested = tiny.write(model, tmp_path / "b" / "model")
    config = {
        "architectures": [cls],
        "text_config": dict(model.config),
    }
    config |= {key: model.config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (nested / "config.json").write_text(json.dumps(config))
    from safetensors.numpy import save_file

    tensors = {instead + name.removeprefix(before): values for name, values in model.tensors()}
    tensors |= {f"{other}.weight": np.zeros((3, 3), np.float32) for other in others}
    save_file(tensors, nested / "model.safetensors")

    convert(plain, tmp_path / "plain.gguf", quant="f16")
    convert(nested, tmp_path / "nested.gguf", quant="f16")

    assert (tmp_path / "plain.gguf").read_bytes() == (tmp_path / "nested.gguf").read_bytes()


@pytest.mark.parametrize("step", [1, 7, 64, 331])
def test_rows_that_a_checkpoint_does_not_have_are_its_first(step: int, tmp_path: Path) -> None:
    model = tiny.BY_NAME["gemma3n-mqa32-shared"]
    source = HuggingFaceSource(tiny.write(model, tmp_path / "hf"))
    tensor = next(t for t in source.tensors if t.name == "per_layer_token_embd.weight")
    there = dict(model.tensors())["model.embed_tokens_per_layer.weight"]
    assert (len(there), tensor.shape[0]) == (300, 331)

    blocks = [tensor.read(first, min(first + step, 331)) for first in range(0, 331, step)]

    np.testing.assert_array_equal(np.concatenate(blocks), there[[*range(300), *(0,) * 31]])


def test_what_no_layer_reads_needs_no_importance(tmp_path: Path) -> None:
    """Keys and values of layers that have none, without which llama.cpp opens no such file."""
    model = tiny.BY_NAME["gemma3n-mqa32-shared"]
    shape = {"hidden_size": 256, "intermediate_size": 512, "hidden_size_per_layer_input": 256}
    folder = tiny.write(replace(model, config={**model.config, **shape, "head_dim": 64}), tmp_path)
    convert(folder, tmp_path / "f32.gguf", quant="f32")
    with open_gguf(tmp_path / "f32.gguf") as file:
        known = {m.name: np.ones((1, m.shape[1]), np.float32) for m in matrices(file) if m.field}
    assert "blk.2.attn_k.weight" in known and "blk.5.attn_k.weight" not in known

    convert(folder, tmp_path / "out.gguf", quant="iq2_xs", importance=known)

    with open_gguf(tmp_path / "out.gguf") as file:
        assert file.tensors["blk.5.attn_k.weight"].type == "iq2_xs"
    with pytest.raises(UsageError, match=r"blk\.2\.attn_k"):
        del known["blk.2.attn_k.weight"]
        convert(folder, tmp_path / "out.gguf", quant="iq2_xs", importance=known)


def test_reordered_rows_are_the_same_in_blocks(folder: Path) -> None:
    source = HuggingFaceSource(folder)
    tensor = next(t for t in source.tensors if t.name == "blk.0.attn_q.weight")
    assert isinstance(tensor, CheckpointTensor)

    blocks = [tensor.read(first, first + 8) for first in range(0, 256, 8)]

    np.testing.assert_array_equal(np.concatenate(blocks), tensor.read(0, 256))
    stored = source._checkpoint.read_float32("model.layers.0.self_attn.q_proj.weight")
    # ggml's order: per head, lane i of the first half before lane i of the second.
    wanted = stored.reshape(4, 2, 32, 256).swapaxes(1, 2).reshape(256, 256)
    np.testing.assert_array_equal(tensor.read(0, 256), wanted)
