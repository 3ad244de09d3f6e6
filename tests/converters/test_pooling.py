"""What sentence-transformers' files say of embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.arch.config import Pooling
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer_converters.pooling import read_pooling

PARTS = "sentence_transformers.models"
MODEL = {"idx": 0, "name": "0", "path": "", "type": f"{PARTS}.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{PARTS}.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{PARTS}.Normalize"}


def write(
    folder: Path, settings: dict[str, Any], modules: Any = (MODEL, POOLING, NORMALIZE)
) -> Path:
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder


def switches(**on: bool) -> dict[str, Any]:
    off = ("cls_token", "mean_tokens", "max_tokens", "lasttoken", "weightedmean_tokens")
    modes = {f"pooling_mode_{name}": on.get(name, False) for name in off}
    return {"word_embedding_dimension": 128, **modes, "include_prompt": True}


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        (switches(lasttoken=True), Pooling.LAST),
        (switches(mean_tokens=True), Pooling.MEAN),
        (switches(cls_token=True), Pooling.FIRST),
        ({"pooling_mode": "lasttoken"}, Pooling.LAST),
    ],
)
def test_the_kinds(settings: dict[str, Any], pooling: Pooling, tmp_path: Path) -> None:
    assert read_pooling(write(tmp_path, settings)) is pooling


def test_a_model_for_text_says_nothing(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) is None


@pytest.mark.parametrize(
    "settings",
    [
        switches(max_tokens=True),
        switches(mean_tokens=True, cls_token=True),
        switches(),
        {"pooling_mode": "max"},
    ],
)
def test_other_kinds_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="1_Pooling"):
        read_pooling(write(tmp_path, settings))


def test_further_layers_are_refused(tmp_path: Path) -> None:
    dense = {**NORMALIZE, "type": f"{PARTS}.Dense"}

    with pytest.raises(UnsupportedError, match="Dense"):
        read_pooling(write(tmp_path, switches(lasttoken=True), [MODEL, POOLING, dense]))


@pytest.mark.parametrize("modules", [{"a": 1}, ["Pooling"], 3])
def test_nonsense_is_a_corrupt_file(modules: Any, tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="modules"):
        read_pooling(write(tmp_path, switches(lasttoken=True), modules))
