"""TVM as a backend: folders load, run, use libraries that there are, and are refused rightly."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgeinfer
from edgeinfer.backends.base import ModelFiles, Slice
from edgeinfer.backends.mlc import MlcBackend, library
from edgeinfer.backends.mlc.engine import MlcEngine
from edgeinfer.backends.mlc.packing import packed
from edgeinfer.backends.mlc.parameters import contents
from edgeinfer.device.detect import detect
from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError
from edgeinfer.formats.mlc import folder as folders
from edgeinfer.planner.plan import MemoryPlan
from support import mlc_folder, tiny
from support.golden import golden
from support.plans import tiny_plan

MODEL = tiny.BY_NAME["gemma3-gqa64"]
PLAN = tiny_plan("mlc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("mlc"), "q0f32")


def export(place: Path, quant: str, model: tiny.Tiny = MODEL) -> Path:
    from edgeinfer_converters.mlc.convert import convert

    convert(tiny.write(model, place / "hf"), place / "out", quant=quant)
    return place / "out"


def load(folder: Path, plan: MemoryPlan = PLAN) -> MlcEngine:
    return MlcBackend().load(ModelFiles(path=folder, format="mlc"), plan)


def logits(engine: MlcEngine, model: tiny.Tiny = MODEL) -> np.ndarray:
    found = engine.step([Slice(engine.open(), model.tokens, tiny.TOKENS)])
    engine.shutdown()
    return found


# ---- without the library ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "quant",
    ["q0f32", "q0f16", "q0bf16", "q3f16_0", "q3f16_1", "q4f16_0", "q4f16_1", "q4f16_2", "q4bf16_1"],
)
def test_tiles_hold_the_weights_of_the_folder(quant: str, tmp_path: Path) -> None:
    model = tiny.BY_NAME["llama-mqa96-llama3"]
    out = export(tmp_path, quant, model)
    read, held = folders.read(out), contents(folders.read(out))
    plain = mlc_folder.read(out)

    for place, name in (
        ("token_embd", "model.embed_tokens.weight"),
        ("blk.1.attn_qkv", "model.layers.1.self_attn.qkv_proj.weight"),
        ("blk.0.ffn_down", "model.layers.0.mlp.down_proj.weight"),
    ):
        matrix = held.matrices[place]
        kinds = ("codes", "scales") if matrix.group else ("floats",)
        parts = packed(read, [held.parameters[f"{place}.{kind}"] for kind in kinds], 1)
        # Back from tiles: a row is a lane.
        rows = [part.transpose(0, 2, 1).reshape(-1, part.shape[1]) for part in parts]
        values = rows[0]
        if values.dtype == np.uint16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        if matrix.group:
            scales = rows[1]
            if scales.dtype == np.uint16:
                scales = (scales.astype(np.uint32) << 16).view(np.float32)
            nibbles = rows[0].view(np.uint32)[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32)
            codes = (nibbles & 15).reshape(len(values), -1).astype(np.float32) - 7
            values = codes * np.repeat(scales.astype(np.float32), matrix.group, axis=1)
        expected = plain.values(name)[: matrix.rows]
        columns = min(matrix.columns, expected.shape[1])
        np.testing.assert_array_equal(values[: matrix.rows, :columns], expected[:, :columns])


def test_without_the_library_it_says_what_to_install(folder: Path, monkeypatch) -> None:
    from edgeinfer.backends.mlc import runtime

    runtime.ffi.cache_clear()
    monkeypatch.setitem(sys.modules, "tvm_ffi", None)

    with pytest.raises(UnsupportedError) as caught:
        load(folder)
    runtime.ffi.cache_clear()

    assert caught.value.hint == "pip install 'edgeinfer[mlc]'"


def test_a_truncated_shard_is_an_error_with_its_name(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    shard = broken / "params_shard_0.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match=r"params_shard_0\.bin has \d+ bytes, expected"):
        edgeinfer.load(broken)
    shard.unlink()
    with pytest.raises(CorruptFileError, match=r"params_shard_0\.bin is missing"):
        edgeinfer.load(broken)


def changed(folder: Path, place: Path, name: str, change) -> Path:
    """A copy of a folder with another JSON file."""
    copy = shutil.copytree(folder, place / "copy")
    stated = json.loads((copy / name).read_text())
    change(stated)
    (copy / name).write_text(json.dumps(stated))
    return copy


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        (
            "mlc-chat-config.json",
            lambda stated: stated.update(model_type="rwkv5"),
            UnsupportedError,
            "family 'rwkv5'",
        ),
        (
            "mlc-chat-config.json",
            lambda stated: stated.update(quantization="q8f16_ft"),
            UnsupportedError,
            "stored as 'q8f16_ft'",
        ),
        (
            "mlc-chat-config.json",
            lambda stated: stated["model_config"]["text_config"].pop("hidden_size"),
            CorruptFileError,
            "hidden_size",
        ),
        (
            "mlc-chat-config.json",
            lambda stated: stated["model_config"]["text_config"].update(num_hidden_layers=5),
            UnsupportedError,
            r"has no tensor '.*layers\.5",
        ),
        (
            "mlc-chat-config.json",
            lambda stated: stated["model_config"]["text_config"].update(num_hidden_layers=7),
            CorruptFileError,
            r"layers\.6\.input_layernorm\.weight' is missing",
        ),
        (
            "mlc-chat-config.json",
            lambda stated: stated["model_config"]["text_config"].update(intermediate_size=64),
            CorruptFileError,
            "has the shape",
        ),
        (
            "tensor-cache.json",
            lambda stated: stated.update(records=5),
            CorruptFileError,
            r"tensor-cache\.json is damaged",
        ),
        (
            "tensor-cache.json",
            lambda stated: stated["records"][0]["records"][0].update(byteOffset=1 << 40),
            CorruptFileError,
            "does not lie within",
        ),
        (
            "tensor-cache.json",
            lambda stated: stated["records"][0].update(dataPath="../../etc/passwd"),
            CorruptFileError,
            "is no shard",
        ),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(
    name, change, error, message, folder: Path, tmp_path: Path
) -> None:
    broken = changed(folder, tmp_path, name, change)

    with pytest.raises(error, match=message):
        contents(folders.read(broken))


# ---- with it ---------------------------------------------------------------------------------


@pytest.mark.peer
def test_the_rest_of_the_program_runs_a_folder(folder: Path) -> None:
    with edgeinfer.load(folder, context=96, kv_type_k="f32", kv_type_v="f32") as model:
        assert model.plan.backend == "mlc"
        wanted = model.logits(MODEL.tokens)
        said = model.generate("the cat", max_tokens=8, temperature=0)

    assert golden(MODEL).distance(wanted) < 1e-4
    assert len(said.tokens) == 8 or said.finish_reason == "stop"


@pytest.mark.peer
def test_a_cache_of_half_floats_is_near(folder: Path) -> None:
    engine = load(folder, replace(PLAN, kv_type_k="f16", kv_type_v="f16"))

    assert 1e-7 < golden(MODEL).distance(logits(engine)) < 2e-3


@pytest.mark.peer
@pytest.mark.parametrize("quant", ["q4f16_1", "q4f32_1", "q4bf16_1", "q3f16_1", "q4f16_0"])
def test_codes_are_multiplied_as_the_decoded_weights_are(quant: str, tmp_path: Path) -> None:
    """Against the same values as floats; what differs is the rounding of activations."""
    coded = export(tmp_path, quant, tiny.BY_NAME["llama-gqa64-tied"])
    plain = mlc_folder.decoded(coded, tmp_path / "plain")
    model = tiny.BY_NAME["llama-gqa64-tied"]

    expected, got = (logits(load(path), model) for path in (plain, coded))

    assert np.abs(got - expected).max() < 0.05 * np.ptp(expected)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.01 * np.ptp(expected)


@pytest.mark.peer
def test_a_library_is_made_once(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path))
    expected = logits(load(folder))
    (made,) = (tmp_path / "libraries").iterdir()

    def never(job: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(library, "compile_in_process", never)
    np.testing.assert_array_equal(logits(load(folder)), expected)
    assert "tvm0.27" in made.name


@pytest.mark.peer
def test_a_library_that_is_given_needs_no_compiler(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path))
    expected = logits(load(folder))
    (made,) = (tmp_path / "libraries").iterdir()
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(library, "compiler_version", lambda: "")

    with pytest.raises(UnsupportedError, match="no apache-tvm to make one"):
        load(folder)
    monkeypatch.setenv(library.GIVEN, str(made))
    np.testing.assert_array_equal(logits(load(folder)), expected)
    monkeypatch.setenv(library.GIVEN, str(tmp_path / "none.so"))
    with pytest.raises(NotFoundError, match=r"none\.so: no such file"):
        load(folder)

    beside = shutil.copytree(folder, tmp_path / "beside")
    shutil.copy(made, library.beside(beside, detect()))
    monkeypatch.delenv(library.GIVEN)
    np.testing.assert_array_equal(logits(load(beside)), expected)


@pytest.mark.peer
def test_a_library_for_something_else_is_refused(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "home"))
    load(folder).shutdown()
    (made,) = (tmp_path / "home" / "libraries").iterdir()
    monkeypatch.setenv(library.GIVEN, str(made))

    other = export(tmp_path, "q0f32", tiny.BY_NAME["qwen3-gqa128-tied"])
    with pytest.raises(UnsupportedError, match="compiled for another model"):
        load(other)
    with pytest.raises(UnsupportedError, match="has a cache of f32, not of f16"):
        load(folder, replace(PLAN, kv_type_k="f16", kv_type_v="f16"))
    monkeypatch.setattr(library, "VERSION", 2)
    with pytest.raises(UnsupportedError, match="is of version 1, this program loads 2"):
        load(folder)
    short = tmp_path / "short.so"
    short.write_bytes(made.read_bytes()[:5000])
    monkeypatch.setenv(library.GIVEN, str(short))
    with pytest.raises(CorruptFileError, match=r"short\.so is cut short"):
        load(folder)
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\x7fELF" + bytes(100))
    monkeypatch.setenv(library.GIVEN, str(broken))
    with pytest.raises(UnsupportedError, match="is no library for this runtime"):
        load(folder)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_type_k": "q8_0"}, "caches of f32 or f16"),
        ({"gpu_layers": -1}, "processor only"),
        ({"context": 1 << 20}, "tokens, not 1048576"),
    ],
)
def test_a_plan_it_cannot_keep_is_refused(change, message, folder: Path) -> None:
    with pytest.raises(UnsupportedError, match=message):
        load(folder, replace(PLAN, **change))


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx512", "avxvnni", "avx2"])
def test_every_instruction_set_computes_the_same(isa: str, tmp_path: Path, monkeypatch) -> None:
    if isa not in detect().isas:
        pytest.skip(f"this processor has no {isa}")
    model = tiny.BY_NAME["llama-gqa64-tied"]
    out = export(tmp_path, "q4f16_1", model)
    expected = logits(load(out), model)
    monkeypatch.setattr(library.Wanted, "isa", property(lambda wanted: isa))

    got = logits(load(out), model)

    # Activations at the edge between two codes fall to either side.
    np.testing.assert_allclose(got, expected, atol=0.02 * np.ptp(expected))


@pytest.mark.peer
def test_shutting_an_engine_leaves_others_alone(folder: Path) -> None:
    first, second = load(folder), load(folder, replace(PLAN, threads=1))
    number = second.open()
    expected = second.step([Slice(number, MODEL.tokens, tiny.TOKENS)])

    first.step([Slice(first.open(), MODEL.tokens)])
    first.shutdown()
    second.trim(number, 0)

    np.testing.assert_array_equal(second.step([Slice(number, MODEL.tokens, tiny.TOKENS)]), expected)
    second.shutdown()
