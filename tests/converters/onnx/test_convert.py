"""Folders for ONNX Runtime: the same values, whole or not at all, and nothing silent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeinfer.errors import CorruptFileError, EdgeInferError, UnsupportedError, UsageError
from edgeinfer.formats import onnx_folder
from edgeinfer.quant.assignment import Overrides
from edgeinfer.tokenizer import load_tokenizer
from edgeinfer_converters.gguf import convert as to_gguf
from edgeinfer_converters.onnx.convert import convert
from edgeinfer_converters.onnx.weights import Weights
from support import tiny
from support.onnx_graph import Run, with_exact_products
from support.peft_adapter import write_peft

pytestmark = pytest.mark.peer
TEXT = "the cat<|im_end|> sat on"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tiny.BY_NAME["llama-gqa64-tied"], tmp_path_factory.mktemp("hf") / "model")


def gguf(checkpoint: Path, quant: str) -> Path:
    path = checkpoint.parent / f"{quant}.gguf"
    if not path.exists():
        to_gguf(checkpoint, path, quant=quant)
    return path


@pytest.mark.parametrize(
    ("source", "quant", "types"),
    [
        ("q4_0", "int4", {"int4": 21, "int8/16": 1}),  # the output is of q6_k
        ("q8_0", "int8", {"int8": 22}),
        ("q4_0", "int8", {"int4": 21, "int8/16": 1}),  # more bits would hold no more
        ("q5_0", "int8", {"int8": 21, "int8/16": 1}),
    ],
)
def test_a_gguf_keeps_its_values(source, quant, types, checkpoint, tmp_path):
    path = gguf(checkpoint, source)
    tokens = tiny.BY_NAME["llama-gqa64-tied"].tokens
    convert(path, tmp_path / "floats", quant="f32")
    expected = Run(tmp_path / "floats").logits(tokens)

    report = convert(path, tmp_path / "out", quant=quant)

    assert report.requantised == {}
    assert types.items() <= report.types.items()
    with_exact_products(tmp_path / "out")
    got = Run(tmp_path / "out").logits(tokens)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.ptp(expected))


def test_what_is_encoded_anew_is_said(checkpoint, tmp_path):
    report = convert(gguf(checkpoint, "q4_k_m"), tmp_path / "out", quant="int4")

    assert report.requantised.pop("q6_k -> int4") > 0
    assert all(change.endswith(("-> int4", "-> int8")) for change in report.requantised)
    (note,) = report.notes
    assert "q4_k -> int4+offsets" in note and "rounds offsets" in note


@pytest.mark.parametrize("name", ["llama-gqa64-tied", "starcoder2-gqa64"])
def test_a_gguf_whose_blocks_have_offsets_nearly_keeps_its_values(name, tmp_path):
    """The embedding is one of them, and so are matrices with biases."""
    tokens = tiny.BY_NAME[name].tokens
    hf = tiny.write(tiny.BY_NAME[name], tmp_path / "hf")
    to_gguf(hf, tmp_path / "model.gguf", quant="q4_1", overrides=Overrides(pure=True))
    convert(tmp_path / "model.gguf", tmp_path / "floats", quant="f32")
    expected = Run(tmp_path / "floats").logits(tokens)

    report = convert(tmp_path / "model.gguf", tmp_path / "out", quant="int4")

    assert report.requantised == {}
    with_exact_products(tmp_path / "out")
    got = Run(tmp_path / "out").logits(tokens)
    np.testing.assert_allclose(got, expected, atol=0.02 * np.ptp(expected))


def test_importance_of_columns_changes_what_is_encoded(checkpoint, tmp_path):
    names = [f"blk.{i}.ffn_up.weight" for i in range(3)]
    width = tiny.BY_NAME["llama-gqa64-tied"].config["hidden_size"]
    importance = {name: np.linspace(0.1, 30, width, dtype=np.float32)[None] for name in names}
    convert(checkpoint, tmp_path / "plain", quant="int4")
    convert(checkpoint, tmp_path / "weighted", quant="int4", importance=importance)

    plain, weighted = (
        (tmp_path / name / "model.onnx.data").read_bytes() for name in ("plain", "weighted")
    )
    assert len(plain) == len(weighted) and plain != weighted
    wrong = {name: matrix[:, 1:] for name, matrix in importance.items()}
    with pytest.raises(UsageError, match="importance matrix"):
        convert(checkpoint, tmp_path / "out", quant="int4", importance=wrong)
    assert not (tmp_path / "out").exists()


def test_a_gguf_s_tokenizer_goes_along(checkpoint, tmp_path):
    convert(gguf(checkpoint, "q8_0"), tmp_path / "out", quant="int8")

    ours, original = load_tokenizer(tmp_path / "out"), load_tokenizer(gguf(checkpoint, "q8_0"))

    assert ours.encode(TEXT) == original.encode(TEXT)
    assert ours.decode(ours.encode(TEXT)) == TEXT
    assert (ours.bos_id, ours.eos_ids) == (original.bos_id, original.eos_ids)
    assert ours.chat_template == original.chat_template


@pytest.mark.parametrize("name", ["gemma3-gqa64", "gpt2-mha64", "phi3-mha96", "starcoder2-gqa64"])
@pytest.mark.parametrize(
    ("quant", "cache"), [("f32", None), ("int4", None), ("int4", "f16"), ("f32", "int8")]
)
def test_onnxruntime_genai_runs_the_folder_as_it_is(name, quant, cache, tmp_path):
    import onnxruntime_genai as og

    model = tiny.BY_NAME[name]
    convert(tiny.write(model, tmp_path / "hf"), tmp_path / "out", quant=quant, cache=cache)

    loaded = og.Model(str(tmp_path / "out"))
    assert og.Tokenizer(loaded).encode(TEXT).tolist() == load_tokenizer(tmp_path / "hf").encode(
        TEXT
    )
    options = og.GeneratorParams(loaded)
    options.set_search_options(max_length=tiny.TOKENS + 24)
    generator = og.Generator(loaded, options)
    generator.append_tokens(model.tokens)
    while not generator.is_done():
        generator.generate_next_token()
    said = generator.get_sequence(0).tolist()[tiny.TOKENS :]

    run, text = Run(tmp_path / "out"), list(model.tokens)
    for _ in said:
        text.append(int(run.logits(text)[-1].argmax()))
    assert said == text[tiny.TOKENS :]
    assert len(said) == 24 or said[-1] in load_tokenizer(tmp_path / "hf").eos_ids


def test_an_adapter_can_be_added_to_the_weights(checkpoint, tmp_path):
    model = tiny.BY_NAME["llama-gqa64-tied"]
    adapter = write_peft(model, tmp_path / "adapter")
    to_gguf(checkpoint, tmp_path / "merged.gguf", quant="f32", merge_lora=adapter)
    convert(tmp_path / "merged.gguf", tmp_path / "expected", quant="f32")
    expected = Run(tmp_path / "expected").logits(model.tokens)

    convert(checkpoint, tmp_path / "out", quant="f32", merge_lora=adapter)

    np.testing.assert_array_equal(Run(tmp_path / "out").logits(model.tokens), expected)
    convert(checkpoint, tmp_path / "out", quant="f32")
    assert np.abs(Run(tmp_path / "out").logits(model.tokens) - expected).max() > 0.01


def test_the_context_is_capped_and_may_be_chosen(checkpoint, tmp_path):
    convert(checkpoint, tmp_path / "out", quant="int8", context=96)

    record = json.loads((tmp_path / "out" / "genai_config.json").read_text())
    assert record["model"]["context_length"] == record["search"]["max_length"] == 96
    assert onnx_folder.read(tmp_path / "out").context == 96


# ---- whole or not at all ---------------------------------------------------------------------


def test_an_export_replaces_the_one_before(checkpoint, tmp_path):
    convert(checkpoint, tmp_path / "out", quant="f32")
    convert(checkpoint, tmp_path / "out", quant="int4")

    assert onnx_folder.read(tmp_path / "out").quant == "int4"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_old_folder_as_it_was(checkpoint, tmp_path):
    convert(checkpoint, tmp_path / "out", quant="int4")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    broken = tiny.write(tiny.BY_NAME["llama-gqa64-tied"], tmp_path / "broken")
    weights = broken / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-8:] = np.full(2, np.nan, np.float32).tobytes()
    weights.write_bytes(data)

    with pytest.raises(CorruptFileError, match="not a finite number"):
        convert(broken, tmp_path / "out", quant="int4")

    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "out"]


def test_a_disk_that_is_too_small_is_told_before_anything_is_encoded(
    checkpoint, tmp_path, monkeypatch
):
    convert(checkpoint, tmp_path / "out", quant="int4")
    before = (tmp_path / "out" / "model.onnx.data").read_bytes()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000))
    monkeypatch.setattr(Weights, "write", None)

    with pytest.raises(EdgeInferError, match="10000 bytes free on the disk"):
        convert(checkpoint, tmp_path / "out", quant="int8")

    assert (tmp_path / "out" / "model.onnx.data").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_things_in_the_way_are_not_touched(checkpoint, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")

    for name in ("notes", "file"):
        with pytest.raises(UsageError):
            convert(checkpoint, tmp_path / name, quant="int4")

    assert (tmp_path / "notes" / "todo.txt").read_text() == (tmp_path / "file").read_text()


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("olmoe-mha64", "olmoe has experts"),
        ("gptoss-gqa64-sinks", "gpt-oss has experts"),
        ("lfm2moe-gqa64", "lfm2moe has layers with a running state"),
        ("lfm2-gqa64", "lfm2 has layers with a running state"),
        ("gemma4-gqa32-experts", "gemma4 has experts"),
        ("gemma4-mqa32-shared", "gemma4 has layer_head_dim = "),
        ("gemma4-gqa32-keys-as-values", "gemma4 has layer_head_dim = "),
        ("gemma3n-mqa32-shared", "gemma3n has layer_kv = "),
        ("gemma3n-gqa64-other-numbers", "gemma3n has layer_ff_width = "),
        ("bert-mha32", "bert has no words to write"),
        ("nomic_bert-mha64", "nomic-bert has no words to write"),
        ("modernbert-mha64", "modern-bert has no words to write"),
    ],
)
def test_a_family_that_the_graph_is_not_drawn_for_is_refused(name, has, tmp_path):
    folder = tiny.write(tiny.BY_NAME[name], tmp_path / "hf")

    with pytest.raises(UnsupportedError, match=f": {has}") as caught:
        convert(folder, tmp_path / "out")

    assert "--to gguf" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_a_table_of_positions_bounds_the_context(tmp_path):
    folder = tiny.write(tiny.BY_NAME["gpt2-mha64"], tmp_path / "hf")

    with pytest.raises(UsageError, match="context is 1025, the model has 1024 positions"):
        convert(folder, tmp_path / "out", context=1025)


def test_what_cannot_be_expressed_is_refused(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="single tensors"):
        convert(checkpoint, tmp_path / "out", overrides=Overrides(pure=True))
    with pytest.raises(UsageError, match="context"):
        convert(checkpoint, tmp_path / "out", context=0)
    with pytest.raises(UsageError, match="no cache of type 'q8_0'"):
        convert(checkpoint, tmp_path / "out", cache="q8_0")
    with pytest.raises(UsageError, match="a graph of f16"):
        convert(checkpoint, tmp_path / "out", quant="f16", cache="f32")
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(UnsupportedError, match="onnx-ir") as caught:
        convert(checkpoint, tmp_path / "out")
    assert "edgeinfer[onnx]" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [{"cache": "int8"}, {"verify": lambda *given: None}])
def test_a_library_that_is_needed_at_the_end_is_asked_for_before_the_work(
    option, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(Weights, "write", None)

    with pytest.raises(UnsupportedError, match="onnxruntime") as caught:
        convert(checkpoint, tmp_path / "out", quant="int4", **option)

    assert "edgeinfer[onnx]" in str(caught.value.hint)


@pytest.mark.parametrize("harm", ["missing", "short", "record", "version", "none"])
def test_a_damaged_folder_says_what_is_wrong(harm, checkpoint, tmp_path):
    folder = tmp_path / "out"
    convert(checkpoint, folder, quant="int4")
    record, data = folder / onnx_folder.NAME, folder / "model.onnx.data"
    if harm == "missing":
        data.unlink()
    elif harm == "short":
        data.write_bytes(data.read_bytes()[:-1])
    elif harm == "record":
        record.write_text(record.read_text().replace('"layers": 3', '"layers": "3"'))
    elif harm == "version":
        record.write_text(record.read_text().replace('"version": 2', '"version": 99'))
    else:
        record.unlink()

    with pytest.raises(EdgeInferError) as caught:
        onnx_folder.read(folder)

    wanted = UnsupportedError if harm in ("version", "none") else CorruptFileError
    assert type(caught.value) is wanted
    assert str(folder) in caught.value.message


# ---- memory ----------------------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
from edgeinfer_converters.onnx.convert import convert

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

def run(source):
    convert(source, sys.argv[3], quant=sys.argv[4], cache=sys.argv[5])

run(sys.argv[1])  # imports and allocates what any will
before = peak()
run(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize(("quant", "cache"), [("f32", "f32"), ("int4", "f32"), ("int4", "int8")])
def test_the_resident_peak_does_not_grow_with_the_checkpoint(quant, cache, tmp_path):
    small = tiny.BY_NAME["llama-gqa64-tied"]
    shape = {"vocab_size": 96_000, "intermediate_size": 8_192}
    large = tiny.Tiny(name="llama-large", config={**small.config, **shape})
    folders = [tiny.write(small, tmp_path / "small"), tiny.write(large, tmp_path / "large")]

    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *folders, tmp_path / "out", quant, cache],
        check=True,
        capture_output=True,
        text=True,
    )

    # A block of 4 MiB of float32, its source and its encoding, not a tensor of 98 MB; scales of
    # a cache are measured with the weights of one layer.
    assert int(run.stdout) < 40 << 20
