"""``edgeinfer compile``: a file for each target, checked as far as this machine can."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.backends.mlc import artifacts
from edgeinfer.backends.mlc.targets import TARGETS, get_target
from edgeinfer.cli._program import run
from edgeinfer.errors import CheckFailedError, EdgeInferError, UnsupportedError, UsageError
from support import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgeinfer_converters.mlc.convert import convert

    place = tmp_path_factory.mktemp("mlc")
    convert(tiny.write(tiny.BY_NAME["gemma3-gqa64"], place / "hf"), place / "out", quant="q4f16_1")
    return place / "out"


@pytest.fixture
def compiled(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Runs the command; returns its exit code and its record, or its error's message."""

    def call(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = run(["compile", str(folder), "--json", *arguments])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if code == 0 else captured.out + captured.err

    return call


def test_vulkan_is_refused_with_the_reason() -> None:
    with pytest.raises(UnsupportedError, match="no code for Vulkan: packages of apache-tvm"):
        get_target("vulkan")


def test_every_target_says_what_its_objects_are() -> None:
    assert artifacts.EXPECTED.keys() == TARGETS.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "toaster"), "no target 'toaster'"),
        (("--target", "aarch64", "--isa", "avx2"), "no kernels for 'avx2' of aarch64"),
        (("--target", "webgpu", "--isa", "avx2"), "no instruction sets"),
        (("-ctk", "q8_0"), "no cache of q8_0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, compiled) -> None:
    code, told = compiled(*arguments)

    assert code == UsageError.exit_code
    assert message in told


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"\x7fELF" + bytes(14) + b"\xb7\x00", ("ELF", "aarch64")),
        (b"\x7fELF" + bytes(14) + b"\x3e\x00", ("ELF", "x86_64")),
        (b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01" + bytes(12), ("Mach-O", "aarch64")),
        (b"\x00asm" + bytes(16), ("WebAssembly", "wasm32")),
    ],
)
def test_objects_are_known_by_their_headers(header, found, tmp_path: Path) -> None:
    (tmp_path / "made.so").write_bytes(header)

    assert artifacts.described(tmp_path / "made.so") == [found]


def test_another_file_than_wanted_fails_the_check(tmp_path: Path) -> None:
    made = tmp_path / "made.so"
    made.write_bytes(b"\x00asm" + bytes(16))
    with pytest.raises(CheckFailedError, match="expected objects"):
        artifacts.check(made, "aarch64")
    made.write_bytes(b"MZ" + bytes(18))
    with pytest.raises(CheckFailedError, match="no object"):
        artifacts.check(made, "x86_64")


# ---- with the compiler -----------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_each_target_gets_its_file(target: str, compiled, tmp_path: Path) -> None:
    if target == "aarch64" and shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("needs aarch64-linux-gnu-g++")
    output = tmp_path / f"made{TARGETS[target].suffix}"

    code, told = compiled("--target", target, "-o", str(output))

    assert code == 0, told
    assert told["target"] == target
    assert set(artifacts.described(output)) == {artifacts.EXPECTED[target]}
    assert told["executed"] == ("run here: a token read" in told["checked"])
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    if not TARGETS[target].machine:
        assert not told["executed"] and told["needs"]
        assert any("kernels in" in found for found in told["checked"])
    if target in ("android", "adreno") and (shutil.which("clang") or shutil.which("clang-14")):
        assert "clang parses them" in told["checked"]
    if target == "webgpu" and graphics():
        assert "wgpu compiles them" in told["checked"]


def graphics() -> bool:
    """Whether there is anything to compile shaders with."""
    wgpu = pytest.importorskip("wgpu")
    return bool(wgpu.gpu.enumerate_adapters_sync())


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "quant"),
    [
        ("webgpu", "q4f32_1"),
        ("webgpu", "q3f16_0"),
        ("webgpu", "q4bf16_1"),
        ("android", "q4f16_0"),
        ("android", "q4bf16_1"),
    ],
)
def test_devices_get_kernels_for_every_form(
    target: str, quant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeinfer_converters.mlc.convert import convert

    convert(tiny.write(tiny.BY_NAME["olmo2-mha64"], tmp_path / "hf"), tmp_path / "o", quant=quant)
    capsys.readouterr()
    arguments = ["compile", str(tmp_path / "o"), "--target", target, "--json"]
    code = run([*arguments, "-o", str(tmp_path / "made.tar")])
    told = capsys.readouterr()

    if (target, quant) == ("webgpu", "q4bf16_1"):
        assert code == UnsupportedError.exit_code
        assert "no 16-bit numbers but float16" in told.out + told.err
        return
    assert code == 0, told.err
    checked = json.loads(told.out)["checked"]
    if target == "webgpu" and graphics():
        assert "wgpu compiles them" in checked


@pytest.mark.peer
def test_a_shader_that_is_wrong_fails_the_check() -> None:
    from edgeinfer.backends.mlc.compiler import sources

    if not graphics():
        pytest.skip("wgpu finds no graphics processor here")
    heading = "// Function: one\n//----\n"
    right = "@compute @workgroup_size(1)\nfn one() {}\n"

    assert sources._by_wgpu(heading + heading + right) == "wgpu compiles them"
    with pytest.raises(CheckFailedError, match=r"(?s)wgpu refuses one: .*u16"):
        sources._by_wgpu(heading + "var<private> x : array<u16, 2>;\n" + right)


@pytest.mark.peer
def test_a_failure_leaves_what_was_there(compiled, tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / "made.so"
    output.write_text("old")
    monkeypatch.setenv("PATH", "/nowhere")  # no linker

    code, told = compiled("--target", "aarch64", "-o", str(output))

    assert code == UnsupportedError.exit_code
    assert "no C++ compiler here links for aarch64" in told
    assert output.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["made.so"]


@pytest.mark.peer
def test_a_linker_that_fails_is_told_in_a_line(compiled, tmp_path: Path, monkeypatch) -> None:
    linker = tmp_path / "bin" / "aarch64-linux-gnu-g++"
    linker.parent.mkdir()
    linker.write_text("#!/bin/sh\necho 'ld: error: no space left on device' >&2\nexit 1\n")
    linker.chmod(0o755)
    monkeypatch.setenv("PATH", str(linker.parent), prepend=os.pathsep)

    code, told = compiled("--target", "aarch64", "-o", str(tmp_path / "made.so"))

    assert code == EdgeInferError.exit_code
    assert "made.so could not be linked: ld: error: no space left on device" in told
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]
