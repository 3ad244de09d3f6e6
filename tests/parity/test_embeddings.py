"""Embeddings of a tiny Qwen3-Embedding beside transformers and llama.cpp.

As published, such a checkpoint has no output matrix, no "model." before its names, and a
tokenizer that ends a text with another token than answers end with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support import tiny

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXTS = ["the cat sat on the mat", "a rat", "Wo ist die Katze?"]
POOLINGS = {"mean_tokens": "mean", "cls_token": "first", "lasttoken": "last"}


@pytest.fixture(scope="module", params=POOLINGS)
def pooling(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(pooling: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.numpy import load_file, save_file

    # Its config.json says that it has an output matrix, as that of the 8B does.
    changes = {"tie_word_embeddings": False, "model_type": "qwen3"}
    config = {**tiny.BY_NAME["qwen3-gqa128-tied"].config, **changes}
    model = tiny.Tiny(name="qwen3-embedding", config=config)
    folder = tiny.write(model, tmp_path_factory.mktemp("embedding") / "model")
    weights = folder / "model.safetensors"
    tensors = {n.removeprefix("model."): t for n, t in load_file(weights).items()}
    del tensors["lm_head.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    end = {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    last = {"SpecialToken": {"id": end["id"], "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text, last],
        "pair": [text, last, {"Sequence": {"id": "B", "type_id": 1}}, last],
        "special_tokens": {end["id"]: end},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    parts = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{parts}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{parts}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{parts}.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == pooling for name in POOLINGS}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return folder


@pytest.fixture(scope="module")
def gguf(checkpoint: Path) -> Path:
    from edgeinfer_converters.gguf import convert

    convert(checkpoint, checkpoint.parent / "f32.gguf", quant="f32")
    return checkpoint.parent / "f32.gguf"


@pytest.fixture(scope="module")
def expected(checkpoint: Path, pooling: str) -> NDArray[np.float32]:
    """The vectors that transformers' hidden states give."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModel.from_pretrained(checkpoint, dtype=torch.float32)
    vectors = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids[-1] == 0  # <|endoftext|>
        with torch.no_grad():
            states = model(torch.tensor([ids])).last_hidden_state[0].numpy()
        vector = {"mean": states.mean(axis=0), "first": states[0], "last": states[-1]}
        vectors.append(vector[POOLINGS[pooling]])
    return np.array([vector / np.linalg.norm(vector) for vector in vectors])


def ours(path: Path, backend: str, texts: Sequence[str]) -> NDArray[np.float32]:
    import edgeinfer

    with edgeinfer.load(
        path, backend=backend, context=128, threads=1, kv_type_k="f32", kv_type_v="f32"
    ) as model:
        return model.embed(texts)


@pytest.mark.parametrize("backend", ["native", "llamacpp"])
def test_vectors_are_those_of_transformers(
    gguf: Path, expected: NDArray[np.float32], backend: str
) -> None:
    np.testing.assert_allclose(ours(gguf, backend, TEXTS), expected, atol=1e-5)


def test_llama_cpp_pools_by_our_metadata(gguf: Path, expected: NDArray[np.float32]) -> None:
    import llama_cpp

    model = llama_cpp.Llama(
        str(gguf), n_ctx=128, n_threads=1, type_k=0, type_v=0, embedding=True, verbose=False
    )

    np.testing.assert_allclose(model.embed(TEXTS, normalize=True), expected, atol=1e-5)
