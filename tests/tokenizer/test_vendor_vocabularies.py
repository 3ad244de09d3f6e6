"""The vocabularies that llama.cpp tests its own tokenizers with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import edgeinfer
from edgeinfer.tokenizer import Tokenizer

DATA = os.environ.get("EDGEINFER_TEST_DATA")
VOCABULARIES = sorted(Path(DATA, "vocab").glob("*.gguf")) if DATA else []
SEPARATOR = "\n__ggml_vocab_test__\n"

pytestmark = pytest.mark.skipif(not VOCABULARIES, reason="EDGEINFER_TEST_DATA is not set")


@pytest.fixture(scope="module", params=VOCABULARIES, ids=lambda path: path.stem)
def vocabulary(request: pytest.FixtureRequest) -> tuple[Path, Tokenizer]:
    return request.param, edgeinfer.load_tokenizer(request.param)


def expected(path: Path) -> list[tuple[str, list[int]]]:
    texts = Path(f"{path}.inp").read_bytes().decode().split(SEPARATOR)
    lines = Path(f"{path}.out").read_text().split("\n")
    assert len(texts) == len(lines)
    return [
        (text, [int(number) for number in line.split()])
        for text, line in zip(texts, lines, strict=True)
    ]


def test_ids_are_the_expected_ones(vocabulary: tuple[Path, Tokenizer]) -> None:
    path, tokenizer = vocabulary

    found = [
        (text, tokenizer.encode(text, add_special=False, parse_special=False))
        for text, _ in expected(path)
    ]

    assert found == expected(path)


def test_ids_decode_to_their_text(vocabulary: tuple[Path, Tokenizer]) -> None:
    path, tokenizer = vocabulary
    if "bert" in path.stem:
        pytest.skip("BERT lowers case and drops spaces")

    for text, ids in expected(path):
        assert tokenizer.decode(ids) == text
