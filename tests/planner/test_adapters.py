"""Adapters in plans: their bytes, their time, and the models that they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeinfer import quant
from edgeinfer.arch.tensors import split_name
from edgeinfer.device.ceilings import Ceilings, CeilingsByThreads
from edgeinfer.device.detect import detect
from edgeinfer.errors import CorruptFileError, DoesNotFitError, UnsupportedError
from edgeinfer.formats.adapter import AdapterHeader, read_header
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.planner import llamacpp, plan_model
from edgeinfer.planner.footprint import Setting
from edgeinfer.planner.onnxruntime import footprint
from edgeinfer.planner.outline import Outline
from edgeinfer_converters.gguf import convert
from support import tiny
from support.peft_adapter import RANK, write_peft

PAGE = 4096


@pytest.fixture(scope="module", params=["llama-gqa64-tied", "phi3-mha96"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Outline, AdapterHeader]:
    return made(request.param, tmp_path_factory.mktemp("case"))


def made(name: str, root: Path) -> tuple[Outline, AdapterHeader]:
    model = tiny.BY_NAME[name]
    folder = tiny.write(model, root / "hf")
    convert(folder, root / "model.gguf", quant="f32")
    convert(folder, root / "adapter.gguf", lora=write_peft(model, root / "peft"))
    with open_gguf(root / "model.gguf") as file:
        return Outline.of_gguf(file), read_header(root / "adapter.gguf")


def test_every_matrix_is_packed_in_pages_of_its_own(case: tuple[Outline, AdapterHeader]) -> None:
    model, adapter = case
    options = {"device": detect(), "context": 64, "batch": 32}
    plain, adapted = plan_model(model, **options), plan_model(model, adapters=[adapter], **options)

    pack = quant.get("f32").packed_nbytes
    expected = 0
    for name, change in adapter.shapes.items():
        kind = split_name(name)[1]
        rows, columns = change.shape
        # Queries, keys and values are as wide here, so are gate and up.
        parts = model.arch.fused.get(kind, (kind,))
        for height, width in ((RANK, columns), (rows // len(parts), RANK)):
            size = pack((-(-height // 16) * 16, width))  # whole groups of rows
            expected += len(parts) * -(-size // PAGE) * PAGE
    assert adapted.adapter_bytes == expected
    assert adapted.weights_bytes == plain.weights_bytes + expected
    assert adapted.scratch_bytes == plain.scratch_bytes + 4 * 4 * 32 * RANK
    assert adapted.to_json()["adapter_bytes"] == expected
    assert "of adapters" in adapted.explain()
    assert "of adapters" not in plain.explain()


def test_llama_cpp_has_them_as_they_are_in_the_file(case: tuple[Outline, AdapterHeader]) -> None:
    model, adapter = case
    setting = Setting(context=64, batch=32, threads=1, kv_type_k="f16", kv_type_v="f16")
    plain = llamacpp.footprint(model, setting)
    adapted = llamacpp.footprint(model, replace(setting, adapters=(adapter, adapter)))

    assert adapted.adapter_bytes == 2 * adapter.nbytes > 0
    assert adapted.weights_bytes == plain.weights_bytes + 2 * adapter.nbytes


def test_what_fits_only_without_them_is_refused(case: tuple[Outline, AdapterHeader]) -> None:
    model, adapter = case
    memory = plan_model(model, device=detect(), context=64).total_bytes

    assert plan_model(model, device=detect(), context=64, memory=memory).fits
    with pytest.raises(DoesNotFitError) as caught:
        plan_model(model, device=detect(), context=64, memory=memory, adapters=[adapter])
    assert "--merge-lora" in (caught.value.suggest or "")


def test_they_are_read_for_every_token(case: tuple[Outline, AdapterHeader]) -> None:
    model, adapter = case
    point = Ceilings(threads=1, stream_bytes_per_second=1e6, int8_macs_per_second=1e15)
    device = replace(detect(), ceilings=CeilingsByThreads(points=(point,), source="a test"))
    plans = [plan_model(model, device=device, context=64, adapters=a) for a in ((), [adapter])]

    plain, adapted = (plan.decode_tokens_per_second for plan in plans)
    assert plain is not None
    assert adapted is not None
    # All there is takes as long as it takes to read.
    assert adapted / plain == pytest.approx(
        plans[0].weights_bytes / plans[1].weights_bytes, rel=0.05
    )


def test_another_family_or_shape_is_refused_before_anything_is_loaded(
    case: tuple[Outline, AdapterHeader], tmp_path: Path
) -> None:
    model, _ = case
    other, _ = made("qwen3-gqa128-tied", tmp_path / "other")
    _, larger = made("llama-mha64-biases", tmp_path / "larger")
    with pytest.raises(UnsupportedError, match="the model is qwen3"):
        plan_model(other, device=detect(), adapters=[larger])
    if model.arch.name == "llama":
        with pytest.raises(CorruptFileError, match="has shape"):
            plan_model(model, device=detect(), adapters=[larger])


def test_a_backend_without_adapters_says_what_to_do(case: tuple[Outline, AdapterHeader]) -> None:
    model, adapter = case
    setting = Setting(context=64, batch=32, threads=1, kv_type_k="f16", kv_type_v="f16")
    with pytest.raises(UnsupportedError, match="no adapters") as caught:
        footprint(model, replace(setting, adapters=(adapter,)))
    assert "--merge-lora" in (caught.value.hint or "")
