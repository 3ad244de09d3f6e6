"""Every installed backend keeps the contract, and all of them say the same."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from edgeinfer.backends import fake, registry
from edgeinfer.backends.base import Backend, Embedder, Engine, ModelFiles, Slice
from edgeinfer.device.detect import detect
from edgeinfer.planner.plan import MemoryPlan
from support import contract, tiny
from support.plans import tiny_plan

OWN = ("fake", "native")
# Those that give logits; the others write by themselves and have tests of their own.
INSTALLED = [name for name in registry.installed() if name != "mlc_llm"]
# A backend that needs a library of its own runs where the peers are.
BACKENDS = [
    *OWN,
    *(pytest.param(name, marks=pytest.mark.peer) for name in INSTALLED if name not in OWN),
]

EXPORTED = {"onnx": "f32", "mlc": "q0f32"}  # formats of other runtimes, without loss


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_gguf("gemma3-gqa64", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def recurrent_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_gguf("lfm2-gqa64", tmp_path_factory.mktemp("recurrent"))


@pytest.fixture(scope="module")
def heavy_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 18 MB of weights, which are missed when they are not given back."""
    return tiny.write_gguf("gemma3-gqa64", tmp_path_factory.mktemp("heavy"), intermediate_size=4096)


def plan(context: int = contract.CONTEXT) -> MemoryPlan:
    usual = context == contract.CONTEXT
    return tiny_plan("", context=context, threads=2 if usual else 1, batch=16 if usual else 128)


def backend(name: str) -> Backend:
    return (
        fake.FakeBackend() if name == "fake" else registry.candidates(detect(), [name])[0].backend
    )


def load(name: str, path: Path, context: int = contract.CONTEXT) -> Engine:
    chosen = backend(name)
    (format_,) = chosen.formats
    if format_ in EXPORTED:
        path = exported(path, format_)
    return chosen.load(ModelFiles(path=path, format=format_), plan(context))


def exported(gguf: Path, format_: str) -> Path:
    """The same model for ONNX Runtime or MLC, beside the GGUF."""
    convert = import_module(f"edgeinfer_converters.{format_}.convert").convert
    folder = gguf.with_suffix(f".{format_}")
    if not folder.exists():
        convert(gguf, folder, quant=EXPORTED[format_])
    return folder


@pytest.fixture
def engine(request: pytest.FixtureRequest, tiny_gguf: Path) -> Iterator[Engine]:
    loaded = load(request.param, tiny_gguf)
    yield loaded
    loaded.shutdown()


@pytest.mark.parametrize("engine", BACKENDS, indirect=True)
@pytest.mark.parametrize("check", contract.CHECKS.values(), ids=contract.CHECKS)
def test_every_backend_keeps_the_contract(check: contract.Check, engine: Engine) -> None:
    check(engine)


@pytest.mark.parametrize("name", ["native", pytest.param("llamacpp", marks=pytest.mark.peer)])
@pytest.mark.parametrize("check", contract.CHECKS.values(), ids=contract.CHECKS)
def test_the_contract_holds_where_layers_have_a_running_state(
    check: contract.Check, name: str, recurrent_gguf: Path
) -> None:
    engine = load(name, recurrent_gguf)
    check(engine)
    engine.shutdown()


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("check", contract.MEMORY_CHECKS.values(), ids=contract.MEMORY_CHECKS)
def test_every_backend_gives_memory_back(check, name, heavy_gguf):
    check(lambda: load(name, heavy_gguf, contract.LONG))


# ---- across backends -------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize(
    "name",
    [
        *("llama-gqa64-tied", "qwen3-mha64-yarn", "gemma3-gqa64", "phi3-mha96", "olmo2-mha64"),
        "lfm2-gqa64",  # which ONNX Runtime does not run
    ],
)
def test_all_backends_say_the_same(name, tmp_path):
    path = tiny.write_gguf(name, tmp_path)
    said = {}
    recurrent = tiny.BY_NAME[name].arch.recurrent is not None
    for backend_name in INSTALLED:
        if recurrent and backend_name not in ("native", "llamacpp"):
            continue
        if backend_name == "mlc" and "yarn" in name:
            continue  # the format has no YaRN
        engine = load(backend_name, path, tiny.CONTEXT)
        said[backend_name] = contract.greedy(engine, tiny.BY_NAME[name].tokens, 32)
        engine.shutdown()

    assert {"native", "llamacpp"} <= said.keys()
    assert set(map(tuple, said.values())) == {tuple(said["native"])}, said


@pytest.mark.peer
def test_all_backends_give_the_same_hidden_states(tmp_path):
    path = tiny.write_gguf("llama-gqa64-tied", tmp_path)
    found = {}
    for name in INSTALLED:
        engine = load(name, path)
        if isinstance(engine, Embedder):
            batch = [
                Slice(engine.open(), contract.TEXT, wants_logits=3),
                Slice(engine.open(), contract.OTHER, wants_logits=5),
            ]
            found[name] = engine.embed(batch)
        engine.shutdown()

    assert {"native", "llamacpp"} <= found.keys()
    for rows in found.values():
        contract.same(rows, found["native"])
