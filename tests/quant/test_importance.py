"""Importance of columns, fitted to a model; experts have their own."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer import quant
from edgeinfer.errors import UsageError
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.quant.importance import encode_rows, fitted_importance
from edgeinfer_converters.gguf import convert
from support import tiny

SHAPES = {"experts": (3, 5, 4), "matrix": (5, 4), "vector": (4,)}


def rows(*shape: int) -> NDArray[np.float32]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("experts", rows(3, 4), rows(3, 4)),
        ("experts", rows(1, 12), rows(3, 4)),  # as older files have it
        ("experts", rows(1, 4), rows(1, 4)),  # one for all
        ("matrix", rows(1, 4), rows(1, 4)),
        ("vector", rows(1, 4), rows(1, 4)),
    ],
)
def test_importance_is_fitted_to_the_matrices(
    name: str, given: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    found = fitted_importance({name: given, "another": rows(1, 9)}, SHAPES)

    assert set(found) == {name}
    np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("experts", rows(2, 4)),
        ("experts", rows(4, 3)),
        ("experts", rows(1, 3)),
        ("matrix", rows(1, 12)),
        ("matrix", rows(3, 4)),
        ("matrix", rows(4, 1)),
    ],
)
def test_importance_of_other_matrices_is_refused(name: str, given: NDArray[np.float32]) -> None:
    with pytest.raises(UsageError, match=name):
        fitted_importance({name: given}, SHAPES)


def test_importance_of_none_of_the_matrices_is_refused() -> None:
    with pytest.raises(UsageError, match="another model"):
        fitted_importance({"another": rows(1, 4)}, SHAPES)
    assert fitted_importance({}, SHAPES) == {}


def test_rows_of_all_matrices_can_share_one_importance() -> None:
    x = np.random.default_rng(0).normal(size=(6, 256)).astype(np.float32)
    weights = np.linspace(0, 3, 256, dtype=np.float32)
    of, q4_k = np.arange(6) // 2, quant.get("q4_k")

    found = encode_rows(q4_k, x, weights[None], of)

    np.testing.assert_array_equal(found, quant.encode(q4_k, x, importance=weights))
    np.testing.assert_array_equal(encode_rows(q4_k, x, None, of), quant.encode(q4_k, x))


def decoded(path: Path) -> dict[str, NDArray[np.float32]]:
    with open_gguf(path) as file:
        return {
            name: quant.decode(quant.get(t.type), file.data(name), t.shape[-1])
            for name, t in file.tensors.items()
            if len(t.shape) == 3
        }


@pytest.mark.peer
@pytest.mark.parametrize("recipe", ["q2_k", "q4_0", "q4_k_m", "iq2_xxs", "iq4_xs"])
def test_experts_lose_no_more_than_those_that_llama_cpp_encodes(
    recipe: str, tmp_path: Path
) -> None:
    import llama_cpp

    sizes = {"hidden_size": 256, "head_dim": 64, "moe_intermediate_size": 256}
    source = tiny.write_gguf("qwen3moe-gqa128", tmp_path, num_hidden_layers=1, **sizes)
    exact = decoded(source)
    with open_gguf(source) as file:
        shapes = {name: t.shape for name, t in file.tensors.items() if len(t.shape) > 1}
    rng = np.random.default_rng(0)
    importance = {
        name: rng.lognormal(0, 1, (shape[0] if len(shape) > 2 else 1, shape[-1])).astype("f4")
        for name, shape in shapes.items()
    }
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"

    convert(source, ours, quant=recipe, importance=importance)

    record, params = (
        llama_cpp.llama_model_imatrix_data,
        llama_cpp.llama_model_quantize_default_params(),
    )
    params.ftype, params.nthread = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{recipe.upper()}"), 1
    entries = [
        record(name.encode(), v.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), v.size)
        for name, v in importance.items()
    ]
    params.imatrix = (record * (len(entries) + 1))(*entries)
    assert not llama_cpp.llama_model_quantize(str(source).encode(), str(theirs).encode(), params)
    mine, peer = decoded(ours), decoded(theirs)
    assert len(exact) == 3
    for name, values in exact.items():
        weights = np.repeat(importance[name], len(values) // len(importance[name]), axis=0)
        errors = [np.sum(weights * np.square(given[name] - values)) for given in (mine, peer)]
        assert errors[0] <= 1.01 * errors[1], name
