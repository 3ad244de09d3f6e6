"""An MLC folder as a source: what was put into it comes out again, bit by bit where it can."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgeinfer
from edgeinfer.cli._program import run
from edgeinfer.formats.gguf import GGUFFile, open_gguf
from edgeinfer.quant import decode, get
from edgeinfer_converters.gguf import convert as to_gguf
from edgeinfer_converters.mlc.convert import convert as to_mlc
from support import mlc_folder, tiny

LLAMA = "llama-gqa64-tied"
MODELS = (
    LLAMA,
    "llama-mqa96-llama3",
    "mistral-gqa128",
    "mistral-gqa64-window",
    "qwen2-gqa64-tied",
    "qwen3-gqa128-tied",
    "gemma2-gqa64",
    "gemma3-gqa64",
    "phi3-mha96",
    "phi3-gqa128-longrope-tied",
    "olmo2-mha64",
)
# Keys that a folder for MLC LLM has no place for: it is named after itself, its context may end
# early, and its padding is always token 0.
NOT_KEPT = ("general.name", ".context_length", ".padding_token_id", "general.size_label")


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    with open_gguf(path) as file:
        return {
            name: (tensor.type, file.read(name, 0, tensor.nbytes).tobytes())
            for name, tensor in file.tensors.items()
        }


def values(file: GGUFFile, name: str) -> np.ndarray:
    tensor = file.tensors[name]
    return decode(get(tensor.type), file.read(name, 0, tensor.nbytes), tensor.shape[-1])


def cli(*arguments: object) -> None:
    assert run(["convert", *map(str, arguments)]) == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_family_comes_back(name: str, tmp_path: Path) -> None:
    folder = tiny.write(tiny.BY_NAME[name], tmp_path / "model")
    to_gguf(folder, tmp_path / "before.gguf", quant="f32")

    to_mlc(folder, tmp_path / "mlc", quant="q0f32")
    to_gguf(tmp_path / "mlc", tmp_path / "after.gguf", quant="f32")

    before, after = contents(tmp_path / "before.gguf"), contents(tmp_path / "after.gguf")
    if name == "mistral-gqa128":
        assert after.keys() == before.keys()
    copied = after.keys() - before.keys()
    assert copied <= {"output.weight"}  # MLC LLM's Mistral has one, tied or not
    assert {key: after[key] for key in before} == before
    with open_gguf(tmp_path / "before.gguf") as one, open_gguf(tmp_path / "after.gguf") as other:
        kept = [key for key in one.metadata if not key.endswith(NOT_KEPT)]
        for key in kept:
            assert str(other.metadata.get(key)) == str(one.metadata[key]), key


@pytest.mark.parametrize("quant", ["q4f16_1", "q4f16_0"])
@pytest.mark.parametrize("name", [LLAMA, "phi3-mha96", "qwen2-gqa64-tied", "gemma2-gqa64"])
def test_q4_0_goes_there_and_back_without_a_bit_lost(name: str, quant: str, tmp_path: Path) -> None:
    folder = tiny.write(tiny.BY_NAME[name], tmp_path / "model")

    cli(folder, "-q", "q4_0", "--pure", "-o", tmp_path / "a.gguf")
    cli(tmp_path / "a.gguf", "--to", "mlc", "-q", quant, "-o", tmp_path / "b")
    cli(tmp_path / "b", "-q", "q4_0", "--pure", "-o", tmp_path / "c.gguf")
    cli(tmp_path / "c.gguf", "--to", "mlc", "-q", quant, "-o", tmp_path / "d")
    cli(tmp_path / "b", "--to", "mlc", "-q", quant, "-o", tmp_path / "e")

    before, after = contents(tmp_path / "a.gguf"), contents(tmp_path / "c.gguf")
    matrices = {key for key, (type_, _) in before.items() if type_ == "q4_0"}
    assert len(matrices) >= 13
    assert {key: after[key] for key in matrices} == {key: before[key] for key in matrices}
    folders = [mlc_folder.read(tmp_path / letter).arrays for letter in "bde"]
    for other in folders[1:]:
        assert other.keys() == folders[0].keys()
        for key, array in folders[0].items():
            np.testing.assert_array_equal(other[key], array, err_msg=key)


@pytest.mark.parametrize("mode", ["mlc", "mse"])
@pytest.mark.parametrize("quant", mlc_folder.FORMATS)
def test_all_forms_are_decoded(quant: str, mode: str, tmp_path: Path) -> None:
    folder = tiny.write(tiny.BY_NAME["qwen2-gqa64-tied"], tmp_path / "model")
    to_mlc(folder, tmp_path / "mlc", quant=quant, mode=mode)

    to_gguf(tmp_path / "mlc", tmp_path / "out.gguf", quant="f32")

    expected = mlc_folder.read(tmp_path / "mlc")
    with open_gguf(tmp_path / "out.gguf") as file:
        for ours, theirs in (
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"),
        ):
            found = values(file, ours)
            wanted = expected.values(theirs)[:, : found.shape[1]]
            np.testing.assert_array_equal(found, wanted, err_msg=ours)


def test_what_is_encoded_anew_is_reported(tmp_path: Path) -> None:
    folder = tiny.write(tiny.BY_NAME[LLAMA], tmp_path / "model")
    to_mlc(folder, tmp_path / "mlc", quant="q4f16_1")

    kept = to_gguf(tmp_path / "mlc", tmp_path / "kept.gguf", quant="q4_0")
    anew = to_gguf(tmp_path / "mlc", tmp_path / "anew.gguf", quant="q8_0")

    assert kept.requantised == {"q4_0 -> q6_k": 1}  # the recipe's embedding, which is the output
    assert anew.requantised == {"q4_0 -> q8_0": 22}


def test_the_tokenizer_and_the_template_go_along(tmp_path: Path) -> None:
    folder = tiny.write(tiny.BY_NAME[LLAMA], tmp_path / "model")
    to_gguf(folder, tmp_path / "a.gguf", quant="f16")
    to_mlc(tmp_path / "a.gguf", tmp_path / "mlc", quant="q4f16_1")
    to_gguf(tmp_path / "mlc", tmp_path / "b.gguf", quant="f16")

    given, found = (edgeinfer.load_tokenizer(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    in_folder = edgeinfer.load_tokenizer(tmp_path / "mlc")
    for text in ("the cat sat", " déjà  vu\n", "<|im_start|>the<|im_end|>"):
        assert found.encode(text) == given.encode(text) == in_folder.encode(text)
    for tokenizer in (found, in_folder):
        assert tokenizer.chat_template == given.chat_template is not None
        assert (tokenizer.bos_id, tokenizer.eos_ids) == (given.bos_id, given.eos_ids)


def test_a_folder_of_mlc_llm_names_the_end_in_its_settings_alone(tmp_path: Path) -> None:
    folder = tiny.write(tiny.BY_NAME[LLAMA], tmp_path / "model")
    to_mlc(folder, tmp_path / "mlc", quant="q4f16_1")
    (tmp_path / "mlc" / "tokenizer_config.json").unlink()

    tokenizer = edgeinfer.load_tokenizer(tmp_path / "mlc")

    stated = json.loads((tmp_path / "mlc" / "mlc-chat-config.json").read_text())
    assert stated["eos_token_id"] == [0, 2] and stated["pad_token_id"] == 0
    assert tokenizer.eos_ids == {0, 2}
    assert tokenizer.bos_id == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    to_mlc(tiny.write(tiny.BY_NAME[LLAMA], folder / "model"), folder / "mlc", quant="q4f16_1")
    return folder / "mlc"


def _settings(folder: Path, **changes: object) -> None:
    path = folder / "mlc-chat-config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _index(folder: Path, change) -> None:
    path = folder / "tensor-cache.json"
    index = json.loads(path.read_text())
    change(index["records"][0]["records"])
    path.write_text(json.dumps(index))


DAMAGE = {
    "a shard is missing": (lambda f: (f / "params_shard_0.bin").unlink(), 6, "is missing"),
    "a shard is cut short": (
        lambda f: (f / "params_shard_0.bin").write_bytes(b"\0" * 1000),
        6,
        "1000 bytes, expected",
    ),
    "the index is missing": (
        lambda f: [(f / name).unlink() for name in ("tensor-cache.json", "ndarray-cache.json")],
        6,
        "tensor-cache.json is missing",
    ),
    "the index is no JSON": (lambda f: (f / "tensor-cache.json").write_text("{"), 6, "damaged"),
    "the settings are no JSON": (
        lambda f: (f / "mlc-chat-config.json").write_text("[1"),
        6,
        "mlc-chat-config.json",
    ),
    "a number is missing": (lambda f: _settings(f, model_config={}), 6, "num_hidden_layers"),
    "an unknown family": (lambda f: _settings(f, model_type="rwkv"), 5, "'rwkv'"),
    "an unknown form": (lambda f: _settings(f, quantization="q4f16_ft"), 5, "'q4f16_ft'"),
    "a tensor is missing": (lambda f: _index(f, lambda r: r.pop(5)), 6, "is missing"),
    "a tensor has another shape": (
        lambda f: _index(f, lambda r: r[4].update(shape=r[4]["shape"][::-1])),
        6,
        "another shape",
    ),
    "a tensor leaves its file": (
        lambda f: _index(f, lambda r: r[-1].update(byteOffset=10**12)),
        6,
        "does not lie within",
    ),
    "a tensor nobody knows": (
        lambda f: _index(f, lambda r: r.append({**r[-1], "name": "vision.weight"})),
        5,
        "vision.weight",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_the_old_output_stays(
    damage: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm, code, complaint = DAMAGE[damage]
    shutil.copytree(whole, tmp_path / "mlc")
    (tmp_path / "old.gguf").write_bytes(b"what was there before")
    harm(tmp_path / "mlc")

    found = run(["convert", str(tmp_path / "mlc"), "-q", "q4_0", "-o", str(tmp_path / "old.gguf")])

    assert found == code
    assert complaint in capsys.readouterr().err
    assert (tmp_path / "old.gguf").read_bytes() == b"what was there before"
    assert {path.name for path in tmp_path.iterdir()} == {"mlc", "old.gguf"}
