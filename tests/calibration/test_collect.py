"""Collecting importance: the same sums as hooks on transformers' own matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeinfer.calibration.collect import collect
from edgeinfer.calibration.opened import open_model
from edgeinfer.calibration.text import calibration_text
from edgeinfer.evaluation.chunks import chunked
from edgeinfer.formats.imatrix import read_imatrix
from edgeinfer.runtime.evaluation import text_chunks
from edgeinfer_converters.gguf import convert
from support import tiny

CHUNKS = chunked(np.random.default_rng(0).integers(5, 60, 100), context=32)


def written(name: str, folder: Path, quant: str = "f32") -> Path:
    path = folder / f"{name}-{quant}.gguf"
    convert(tiny.write(tiny.BY_NAME[name], folder / name), path, quant=quant)
    return path


@pytest.mark.peer
@pytest.mark.parametrize("name", ["llama-gqa64-tied", "phi3-gqa96-shortrope"])
def test_sums_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    import torch
    import transformers

    torch.set_num_threads(1)  # faster for models so small

    path = written(name, tmp_path)
    architecture = getattr(transformers, tiny.BY_NAME[name].config["architectures"][0])
    model = architecture.from_pretrained(
        tmp_path / name, dtype=torch.float32, attn_implementation="eager"
    )
    sums: dict[str, np.ndarray] = {}

    def watch(key: str) -> None:
        def hook(_module: object, args: tuple[torch.Tensor, ...]) -> None:
            squares = args[0].double().square().sum(dim=(0, 1)).numpy()
            sums[key] = sums.get(key, 0) + squares

        module = dict(model.named_modules())[key]
        module.register_forward_pre_hook(hook)

    names = {
        "attn_output": "self_attn.o_proj",
        "ffn_down": "mlp.down_proj",
        "attn_qkv" if "phi3" in name else "attn_k": "self_attn."
        + ("qkv_proj" if "phi3" in name else "k_proj"),
        "ffn_up": "mlp.gate_up_proj" if "phi3" in name else "mlp.up_proj",
    }
    ours = {f"blk.1.{part}.weight": f"model.layers.1.{theirs}" for part, theirs in names.items()}
    for key in [*ours.values(), "lm_head"]:
        watch(key)
    with torch.no_grad():
        for chunk in CHUNKS.tokens:
            model(torch.tensor(chunk[None].astype(np.int64)))

    with open_model(path, context=32, threads=1) as opened:
        matrix = collect(opened.engine, opened.matrices, CHUNKS, output=True)

    output = "output.weight" if "output.weight" in matrix.tensors else "token_embd.weight"
    for tensor, key in {**ours, output: "lm_head"}.items():
        found = matrix.tensors[tensor]
        assert found.counts.tolist() == [96]
        np.testing.assert_allclose(found.squares[0], sums[key], rtol=1e-3)


def test_the_output_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    with open_model(written("qwen3-gqa128-tied", tmp_path), context=32, threads=1) as opened:
        plain = collect(opened.engine, opened.matrices, CHUNKS)
        with_output = collect(opened.engine, opened.matrices, CHUNKS, output=True)

    assert set(with_output.tensors) - set(plain.tensors) == {"token_embd.weight"}
    assert (plain.chunks, plain.chunk_size) == (3, 32)


def test_quantised_models_are_seen_alike(tmp_path: Path) -> None:
    sums = []
    for quant in ("f32", "q8_0"):
        path = written("qwen3-gqa128-tied", tmp_path, quant)
        with open_model(path, context=32, threads=1) as opened:
            sums.append(collect(opened.engine, opened.matrices, CHUNKS).tensors)

    for name, exact in sums[0].items():
        found = sums[1][name].squares
        assert np.abs(found - exact.squares).sum() < 0.05 * exact.squares.sum(), name


def test_each_expert_is_summed_over_its_own_tokens(tmp_path: Path) -> None:
    with open_model(written("mixtral-gqa64", tmp_path), context=32, threads=1) as opened:
        config = opened.engine.config
        tensors = collect(opened.engine, opened.matrices, CHUNKS).tensors

    up, down = tensors["blk.0.ffn_up_exps.weight"], tensors["blk.0.ffn_down_exps.weight"]
    router = tensors["blk.0.ffn_gate_inp.weight"]
    assert up.squares.shape == (config.experts, config.width)
    assert down.squares.shape == (config.experts, config.ff_width)
    assert up.counts.sum() == down.counts.sum() == 96 * config.experts_used
    # Each token counts once for every expert it chose.
    np.testing.assert_allclose(
        up.squares.sum(axis=0), router.squares[0] * config.experts_used, rtol=1e-3
    )


def test_experts_are_seen_as_llama_imatrix_sees_them(tmp_path: Path) -> None:
    """The file is ``llama-imatrix -m tiny.gguf -f TEXT -c 64 -b 64 --output-format gguf``'s."""
    theirs = read_imatrix(Path(__file__).parents[1] / "golden" / "imatrix" / "moe.gguf")
    fewer = {"num_hidden_layers": 1, "num_experts": 10, "num_experts_per_tok": 1}
    path = tiny.write_gguf("qwen3moe-gqa128", tmp_path, **fewer)

    with open_model(path, context=64, threads=1) as opened:
        chunks = text_chunks(opened.tokenizer, "ab " * 44, context=64)
        ours = collect(opened.engine, opened.matrices, chunks)

    assert (ours.chunks, ours.chunk_size) == (theirs.chunks, theirs.chunk_size)
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, expected in theirs.tensors.items():
        found = ours.tensors[name]
        assert found.counts.tolist() == expected.counts.tolist()
        error = np.abs(found.squares - expected.squares).max()
        assert error < 1e-3 * expected.squares.max(), name


@pytest.mark.parametrize(
    "name",
    [
        *("lfm2-gqa64", "lfm2moe-gqa64", "qwen35-gqa64", "qwen35moe-gqa64"),
        *("gemma4-mqa32-shared", "gemma4-gqa32-keys-as-values", "gemma4-gqa32-experts"),
        *("gemma3n-mqa32-shared", "gemma3n-gqa64-other-numbers"),
    ],
)
def test_every_matrix_of_layers_that_differ_is_seen(name: str, tmp_path: Path) -> None:
    with open_model(written(name, tmp_path), context=32, threads=1) as opened:
        tensors = collect(opened.engine, opened.matrices, CHUNKS).tensors

    for matrix in opened.matrices:
        if matrix.field not in ("", "output"):
            squares = tensors[matrix.name].squares
            assert squares.shape[1] == matrix.shape[1]
            assert (squares.sum(axis=1)[tensors[matrix.name].counts > 0] > 0).all(), matrix.name


def test_the_text_that_comes_along_is_long_and_always_the_same() -> None:
    text = calibration_text()

    assert 100_000 < len(text) < 200_000
    assert text == calibration_text.__wrapped__()
    assert "<|im_start|>user" in text and "def " in text and "的时候" in text and "été" in text
