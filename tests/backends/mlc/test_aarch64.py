"""A library for ARM, run under emulation with TVM's runtime for ARM, says what this machine says.

EDGEINFER_TVM_AARCH64 names a folder that ``.ci/tvm_aarch64`` filled; ``make test-all`` does so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.backends.base import ModelFiles, Slice
from edgeinfer.backends.mlc import MlcBackend
from edgeinfer.backends.mlc.compilation import compile_folder
from edgeinfer.backends.mlc.packing import packed
from edgeinfer.backends.mlc.pages import PAGE
from edgeinfer.backends.mlc.parameters import contents
from edgeinfer.device.detect import detect
from edgeinfer.formats.mlc import folder as folders
from support import tiny
from support.plans import tiny_plan

CXX, QEMU = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
RUNTIME = Path(os.environ.get("EDGEINFER_TVM_AARCH64", "/nonexistent"))
MODEL = tiny.BY_NAME["gemma3-gqa64"]
PLAN = tiny_plan("mlc")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.slow,
    pytest.mark.skipif(
        not RUNTIME.is_dir() or not shutil.which(CXX) or not shutil.which(QEMU),
        reason=f"needs {CXX}, {QEMU} and EDGEINFER_TVM_AARCH64",
    ),
]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs a library."""
    program = tmp_path_factory.mktemp("runner") / "mlc_runner"
    source = Path(__file__).parents[2] / "support" / "mlc_runner.cc"
    lib, ffi = RUNTIME / "tvm" / "lib", RUNTIME / "tvm_ffi"
    include = [f"-I{path}" for path in ffi.rglob("include") if path.is_dir()]
    libraries = [str(lib / "libtvm_runtime.so"), str(ffi / "lib" / "libtvm_ffi.so")]
    rpath = f"-Wl,-rpath,{lib}:{ffi / 'lib'},--no-as-needed"
    subprocess.run(
        [CXX, "-std=c++17", "-O1", *include, str(source), "-o", str(program), rpath, *libraries],
        check=True,
    )
    return [QEMU, "-L", "/usr/aarch64-linux-gnu", str(program)]


@pytest.mark.parametrize("quant", ["q0f32", "q4f16_1"])
@pytest.mark.parametrize("isa", ["neon_dotprod", "neon"])
def test_the_library_says_what_this_machine_says(
    isa: str, quant: str, runner: list[str], tmp_path: Path
) -> None:
    from edgeinfer_converters.mlc.convert import convert

    convert(tiny.write(MODEL, tmp_path / "hf"), tmp_path / "out", quant=quant)
    made = compile_folder(
        tmp_path / "out",
        "aarch64",
        device=detect(),
        isa=isa,
        kv_type="f32",
        output=tmp_path / "made.so",
    )
    assert not made.executed
    engine = MlcBackend().load(ModelFiles(path=tmp_path / "out", format="mlc"), PLAN)
    expected = engine.step([Slice(engine.open(), MODEL.tokens)])[0]
    order = engine.order
    engine.shutdown()

    listing = write_tensors(tmp_path, order)
    subprocess.run([*runner, made.output, str(listing), str(tmp_path / "logits")], check=True)

    got = np.fromfile(tmp_path / "logits", np.float32)[: len(expected)]
    # Activations at the edge between two codes fall to either side.
    most, mean = (1e-5, 1e-6) if quant == "q0f32" else (0.02, 0.005)
    away = np.abs(got - expected) / np.ptp(expected)
    assert away.max() < most
    assert np.sqrt(np.mean(away**2)) < mean


def write_tensors(place: Path, order: tuple[str, ...]) -> Path:
    """The inputs of a step of one sequence, and the parameters, as files; returns their list."""
    folder = folders.read(place / "out")
    config, count = folder.config, len(MODEL.tokens)
    pages = -(-count // PAGE)
    shape = (pages, config.layers, 2, config.kv_heads, PAGE * config.head_dim)
    held = contents(folder).parameters
    tensors = [
        np.array(MODEL.tokens, np.int32),
        np.arange(count, dtype=np.int32),
        np.arange(count, dtype=np.int32),
        np.zeros(count, np.int32),
        np.arange(pages, dtype=np.int32)[None],
        np.zeros(shape, np.float32),
        *packed(folder, [held[name] for name in order], 1),
    ]
    lines = []
    for number, tensor in enumerate(tensors):
        tensor.tofile(place / f"{number}.bin")
        dims = " ".join(map(str, tensor.shape))
        lines.append(f"{tensor.dtype.name} {tensor.ndim} {dims} {place / f'{number}.bin'}")
    (place / "listing").write_text("\n".join(lines) + "\n")
    return place / "listing"
