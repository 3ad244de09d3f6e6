"""Backends with adapters keep what they promise, and say the same with the same adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeinfer.backends import registry
from edgeinfer.backends.base import Adaptable, Engine, ModelFiles
from edgeinfer.device.detect import detect
from edgeinfer_converters.gguf import convert
from support import adapter_contract, contract, tiny
from support.adapter_contract import whole
from support.peft_adapter import write_peft
from support.plans import tiny_plan

BACKENDS = ["native", pytest.param("llamacpp", marks=pytest.mark.peer)]
# Attention, a short convolution, gated delta nets, and fused matrices.
MODELS = ("llama-gqa64-tied", "lfm2-gqa64", "qwen35-three-heads-a-key", "phi3-mha96")
ENCODER = "bert-mha32"


def load(name: str, path: Path, **changes: int) -> Engine:
    (candidate,) = registry.candidates(detect(), [name])
    plan = tiny_plan(name, context=contract.CONTEXT, **changes)
    return candidate.backend.load(ModelFiles(path=path, format="gguf"), plan)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Path]]:
    """Each model with two adapters."""
    made = {}
    for name in (*MODELS, ENCODER):
        root, model = tmp_path_factory.mktemp(name), tiny.BY_NAME[name]
        folder = tiny.write(model, root / "hf")
        convert(folder, root / "model.gguf", quant="f32")
        adapters = []
        for seed in (0, 1):
            adapters.append(root / f"{seed}.gguf")
            peft = write_peft(model, root / f"peft{seed}", seed=seed)
            convert(folder, adapters[-1], lora=peft, quant="f32")
        made[name] = (root / "model.gguf", *adapters)
    return made


@pytest.fixture
def engine(
    request: pytest.FixtureRequest, files: dict[str, tuple[Path, Path, Path]], model: str
) -> Iterator[Engine]:
    loaded = load(request.param, files[model][0])
    yield loaded
    loaded.shutdown()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("engine", BACKENDS, indirect=True)
@pytest.mark.parametrize("check", adapter_contract.CHECKS.values(), ids=adapter_contract.CHECKS)
def test_every_backend_with_adapters_keeps_the_contract(
    check: adapter_contract.Check,
    engine: Engine,
    model: str,
    files: dict[str, tuple[Path, Path, Path]],
) -> None:
    check(engine, *files[model][1:])


@pytest.mark.parametrize("model", [ENCODER])
@pytest.mark.parametrize("engine", BACKENDS, indirect=True)
def test_texts_read_as_a_whole_have_adapters_too(
    engine: Engine, model: str, files: dict[str, tuple[Path, Path, Path]]
) -> None:
    adapter_contract.check_hidden_states_have_them(engine, *files[model][1:])


@pytest.mark.peer
@pytest.mark.parametrize("model", MODELS)
def test_backends_say_the_same_with_an_adapter(
    model: str, files: dict[str, tuple[Path, Path, Path]]
) -> None:
    path, *adapters = files[model]
    tokens, said = tiny.BY_NAME[model].tokens[:48], {}
    for name in ("native", "llamacpp"):
        engine = load(name, path)
        assert isinstance(engine, Adaptable)
        uses = [
            (engine.add_adapter(one), scale) for one, scale in zip(adapters, (1, -0.5), strict=True)
        ]
        said[name] = whole(engine, tokens, *uses)
        engine.shutdown()

    contract.same(said["llamacpp"], said["native"])
