"""Adapters on the command line: what each verb does with --lora, and what it says of bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters.conftest import ADAPTED, Adapted

from edgeinfer.cli._program import run
from edgeinfer.errors import DoesNotFitError, UsageError
from edgeinfer.formats.adapter import read_header
from edgeinfer_converters.gguf import convert

Make = Callable[..., Adapted]
TEXT = "the quick brown fox jumps over the lazy dog, and back again: " * 12


@pytest.fixture
def case(adapted: Make) -> Adapted:
    return adapted(ADAPTED[0])


def records(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a verb prints as JSON, line by line."""
    capsys.readouterr()
    assert run([*arguments, "--json", "--offline"]) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("backend", ["native", pytest.param("llamacpp", marks=pytest.mark.peer)])
def test_a_model_with_an_adapter_is_the_merged_model(
    backend: str, case: Adapted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = tmp_path / "merged.gguf"
    convert(case.folder, merged, quant="f32", merge_lora=case.peft)
    (tmp_path / "text.txt").write_text(TEXT)
    options = ["-f", str(tmp_path / "text.txt"), "-c", "64", "--backend", backend]
    options += ["-ctk", "f32", "-ctv", "f32"]
    lora = f"{case.adapter}=1.0"

    (plain,) = records(capsys, "eval", str(case.gguf), "--reference", str(merged), *options)
    (found,) = records(
        capsys, "eval", str(case.gguf), "--lora", lora, "--reference", str(merged), *options
    )

    assert found["kl_mean"] < 1e-6 < 1e-2 < plain["kl_mean"]
    assert found["lora"] == [[str(case.adapter), 1.0]]
    assert plain["lora"] == []


def test_bench_times_a_model_with_an_adapter(
    case: Adapted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeinfer.backends.native import NativeEngine

    used: list[Any] = []
    plain = NativeEngine.set_adapters

    def spy(engine: NativeEngine, sequence: int, adapters: Any) -> None:
        used.extend(adapters)
        plain(engine, sequence, adapters)

    monkeypatch.setattr(NativeEngine, "set_adapters", spy)
    short = ["-p", "8", "-n", "2", "-r", "1", "--backend", "native"]
    capsys.readouterr()
    assert run(["bench", str(case.gguf), "--lora", f"{case.adapter}=0.5", *short, "--json"]) == 0

    (record,) = json.loads(capsys.readouterr().out)
    assert record["lora"] == [[str(case.adapter), 0.5]]
    assert [scale for _, scale in used] == [0.5]


def test_plan_counts_it(case: Adapted, capsys: pytest.CaptureFixture[str]) -> None:
    (plain,) = records(capsys, "plan", str(case.gguf), "--backend", "native")
    (adapted,) = records(
        capsys, "plan", str(case.gguf), "--backend", "native", "--lora", str(case.adapter)
    )

    assert adapted["total_bytes"] - plain["total_bytes"] >= adapted["adapter_bytes"] > 0


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ("{adapter}=nan", 2, "scale is nan"),
        ("{adapter}=1e39", 2, "scale is 1e+39"),
        ("{adapter}=x", 2, "not FILE or FILE=SCALE"),
        ("=0.5", 2, "names no file"),
        ("{peft}/nothing.gguf", 3, "no such file"),
        ("{peft}", 6, "a folder"),
        ("{gguf}", 6, "not an adapter"),
    ],
)
def test_what_is_no_adapter_is_said(
    given: str, code: int, words: str, case: Adapted, capsys: pytest.CaptureFixture[str]
) -> None:
    text = given.format(adapter=case.adapter, peft=case.peft, gguf=case.gguf)

    assert run(["bench", str(case.gguf), "-p", "4", "-n", "0", "--lora", text]) == code
    assert words in capsys.readouterr().err


def test_a_name_may_have_the_sign_of_a_scale(
    case: Adapted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "rank=4.gguf"
    odd.write_bytes(case.adapter.read_bytes())
    for text, scale in ((str(odd), 1.0), (f"{odd}=0.5", 0.5)):
        short = ["-p", "4", "-n", "0", "-r", "1", "--backend", "native"]
        capsys.readouterr()
        assert run(["bench", str(case.gguf), "--lora", text, *short, "--json"]) == 0
        (record,) = json.loads(capsys.readouterr().out)
        assert record["lora"] == [[str(odd), scale]]


def test_a_scale_that_is_no_number_is_refused_in_python_too(case: Adapted) -> None:
    import edgeinfer

    with pytest.raises(UsageError, match="scale is nan"):
        edgeinfer.load(case.gguf, context=64, lora=[(case.adapter, float("nan"))], offline=True)
    with edgeinfer.load(case.gguf, context=64, offline=True) as model:
        number = model.add_adapter(case.adapter)
        with pytest.raises(UsageError, match="scale is inf"):
            model.generate([1, 2], max_tokens=1, adapters=[(number, float("inf"))])


def test_an_adapter_that_comes_later_has_to_fit_the_memory(case: Adapted) -> None:
    import edgeinfer

    with edgeinfer.load(case.gguf, context=64, offline=True, backend="native") as model:
        needed = model.plan.needed_bytes
    bytes_ = read_header(case.adapter).float_bytes
    for spare, many in ((bytes_ - 1, 0), (bytes_, 1)):
        options = {"context": 64, "memory": needed + spare, "backend": "native", "offline": True}
        with edgeinfer.load(case.gguf, **options) as model:
            numbers = [model.add_adapter(case.adapter) for _ in range(many)]
            with pytest.raises(DoesNotFitError, match="needed with"):
                model.add_adapter(case.adapter)
            for number in numbers:
                model.remove_adapter(number)
                assert model.add_adapter(case.adapter)
