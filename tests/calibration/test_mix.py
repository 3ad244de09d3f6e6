"""A mix keeps to its target, is measured once, and leaves alone what it is told to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeinfer.calibration import mix as mixing
from edgeinfer.calibration import sensitivity
from edgeinfer.calibration.mix import Mix, find_mix
from edgeinfer.calibration.sensitivity import Importance
from edgeinfer.calibration.target import Target, planned_bytes
from edgeinfer.calibration.text import calibration_text
from edgeinfer.errors import UsageError
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.quant import get
from edgeinfer.quant.assignment import Overrides
from edgeinfer_converters.gguf import convert
from support import tiny

TYPES = [get(name) for name in ("q2_k", "q4_0", "q5_k", "q8_0")]


@pytest.fixture(scope="module", params=["llama-gqa64-tied", "llama-mha128-untied", "mixtral-gqa64"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mix")
    path = folder / "model.gguf"
    convert(tiny.write(tiny.BY_NAME[request.param], folder / "m"), path, quant="f16")
    return path


def mix(model: Path, target: Target, importance: Importance | None = None, **options: Any) -> Mix:
    return find_mix(
        model,
        target,
        calibration_text()[:20000],
        importance or {},
        types=TYPES,
        state=model.with_suffix(".json"),
        read=1,
        threads=1,
        **options,
    )


def written(model: Path, found: Mix) -> Path:
    path = model.with_name("out.gguf")
    convert(model, path, quant=found.recipe, overrides=found.overrides())
    return path


@pytest.mark.parametrize("share", [0.4, 0.5])
def test_a_file_is_no_larger_than_asked_for_and_hardly_smaller(model: Path, share: float) -> None:
    size = int(model.stat().st_size * share)

    path = written(model, mix(model, Target(size=size)))

    assert 0.9 * size < path.stat().st_size <= size
    with open_gguf(path) as file:
        types = {name: info.type for name, info in file.tensors.items()}
    assert len({types[name] for name in types if name.startswith("blk")} - {"f32"}) > 1


def test_bits_a_weight_are_those_of_all_tensors(model: Path) -> None:
    report = convert(
        model,
        model.with_name("bits.gguf"),
        quant=(found := mix(model, Target(bits=6.0))).recipe,
        overrides=found.overrides(),
    )

    assert 5.5 < report.bits_per_weight <= 6.0


def test_a_memory_budget_is_kept_by_the_planners_sums(model: Path) -> None:
    with open_gguf(model) as file:
        whole = planned_bytes(file, {}, 256)
        weights = sum(info.nbytes for info in file.tensors.values())
    budget = whole - weights // 2

    found = mix(model, Target(memory=budget, context=256))

    with open_gguf(written(model, found)) as file:
        assert planned_bytes(file, {}, 256) <= budget
    with open_gguf(model) as file:
        types = {name: option.type for name, option in found.chosen.items()}
        assert planned_bytes(file, types, 256) > budget - weights // 10


def test_nothing_is_measured_twice(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = mix(model, Target(bits=6.0))

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(sensitivity, "Effect", refuse)
    monkeypatch.setattr(sensitivity, "sample_inputs", refuse)

    assert mix(model, Target(bits=6.0)) == first
    assert mix(model, Target(bits=4.9)).divergence > first.divergence


def test_more_room_never_costs(model: Path) -> None:
    frontier = mix(model, Target(bits=6.0)).frontier

    sizes, losses = zip(*frontier, strict=True)
    assert list(sizes) == sorted(sizes)
    assert list(losses) == sorted(losses, reverse=True)


ASKED = Overrides(tensors=(("attn_v", "Q8_0"), ("attn_output", "f16"), ("ffn", "q4_0")))


def test_types_that_are_asked_for_stay(model: Path) -> None:
    found = mix(model, Target(bits=9.0), fixed=ASKED)

    assert {o.type for n, o in found.chosen.items() if "attn_v" in n} == {"q8_0"}
    kept = {o.type for n, o in found.chosen.items() if "ffn" in n and "gate_inp" not in n}
    assert kept == {"q4_0"}
    assert {o.type for n, o in found.chosen.items() if "attn_output" in n} == {"f16"}


def test_the_output_and_the_embedding_are_the_same_ones_as_of_convert(model: Path) -> None:
    asked = Overrides(output="q8_0", embedding=None)

    found = mix(model, Target(bits=9.0), fixed=asked)

    convert(model, plain := model.with_name("plain.gguf"), quant="q4_0", overrides=asked)
    with open_gguf(plain) as file:
        output = "output.weight" if "output.weight" in file.tensors else "token_embd.weight"
        assert file.tensors[output].type == found.chosen[output].type == "q8_0"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"fixed": Overrides(tensors=(("*attn", "q8_0"),))}, "no pattern"),
        ({"fixed": Overrides(tensors=(("nothing", "q8_0"),))}, "matches 'nothing'"),
        ({"fixed": Overrides(tensors=(("attn_v", "q9_9"),))}, "'q9_9'"),
        ({"fixed": Overrides(tensors=(("attn_v", "iq1_s"),))}, "nothing is known"),
        ({"importance": {"blk.0.attn_v.weight": np.ones((1, 7), np.float32)}}, "7 columns"),
        ({"importance": {"of.another.model": np.ones((1, 7), np.float32)}}, "another model"),
        ({"target": Target(bits=2.0)}, "are the least"),
        ({"target": Target(size=100)}, "100 bytes are given"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    model: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], complaint: str
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(mixing, "measure", measured)

    with pytest.raises(UsageError, match=re.escape(complaint)):
        mix(model, **{"target": Target(bits=9.0), **options})
