"""Which GGUF of a listing is meant."""

from __future__ import annotations

import pytest

from edgeinfer.store.choose import choose, is_model_file, is_plain, parts_of, quant_of, quants

LISTING = [
    "README.md",
    "Model-F16.gguf",
    "Model-Q4_0.gguf",
    "Model-Q4_K_M.gguf",
    "Model-Q8_0.gguf",
    "mmproj-Model-F16.gguf",
    "BF16/Model-BF16-00001-of-00002.gguf",
    "BF16/Model-BF16-00002-of-00002.gguf",
]


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("Llama-3.2-1B-Instruct-IQ4_XS.gguf", "IQ4_XS"),
        ("Llama-3.2-1B-Instruct.IQ2_XXS.gguf", "IQ2_XXS"),
        ("bitnet-b1.58-2B-TQ2_0.gguf", "TQ2_0"),
        ("gemma-3-UD-Q4_K_XL.gguf", "Q4_K_XL"),
        ("model-fp16.gguf", "F16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Q8_0/Model-Q4_0.gguf", "Q4_0"),
        ("ggml-model.gguf", ""),
    ],
)
def test_the_quant_type_in_a_name(name, quant):
    assert quant_of(name) == quant


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, "Model-Q4_K_M.gguf"),
        ("q8_0", "Model-Q8_0.gguf"),
        ("F16", "Model-F16.gguf"),
        ("BF16", "BF16/Model-BF16-00001-of-00002.gguf"),
        ("Model-Q4_0.gguf", "Model-Q4_0.gguf"),
        ("Q5_K_M", None),
        ("Q4_K", None),
    ],
)
def test_a_file_is_chosen_by_its_quant_type_or_name(asked, found):
    assert choose(LISTING, asked) == found


def test_without_the_usual_type_the_next_best_is_taken():
    assert choose(["m-F32.gguf", "m-Q8_0.gguf", "m-Q2_K.gguf"]) == "m-Q8_0.gguf"
    assert choose(["m-F16.gguf", "strange.gguf"]) == "m-F16.gguf"
    assert choose(["strange.gguf"]) == "strange.gguf"
    assert choose(["README.md"]) is None


def test_what_there_is_to_choose_from():
    assert quants(LISTING) == ["BF16", "F16", "Q4_0", "Q4_K_M", "Q8_0"]


def test_parts_belong_to_the_first():
    first = "BF16/Model-BF16-00001-of-00002.gguf"

    assert parts_of(first) == LISTING[-2:]
    assert is_model_file(first)
    assert not is_model_file(LISTING[-1])


@pytest.mark.parametrize("name", ["a.gguf", "a/b.gguf", "a..b.gguf"])
def test_plain_names(name):
    assert is_plain(name)


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/../../b", "..\\a", "C:a", "~/a", "a\0b", "a/.."]
)
def test_names_that_lead_elsewhere(name):
    assert not is_plain(name)
