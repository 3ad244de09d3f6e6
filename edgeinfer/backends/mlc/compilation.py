"""Compiles a folder for a target, and checks the outcome as far as this machine can."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.backends.base import Slice
from edgeinfer.backends.mlc import artifacts
from edgeinfer.backends.mlc.fingerprint import compiler_version
from edgeinfer.backends.mlc.library import ISAS, KV_TYPES, compile_in_process
from edgeinfer.backends.mlc.loading import open_engine
from edgeinfer.backends.mlc.runtime import INSTALL
from edgeinfer.backends.mlc.targets import Target, get_target
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import CheckFailedError, UnsupportedError, UsageError
from edgeinfer.formats.mlc import folder as folders
from edgeinfer.planner.plan import MemoryPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A compiled file.

    Attributes:
        output: where it is.
        target: what for.
        isa: instruction set, "" for graphics processors.
        seconds: it took.
        bytes: of the file.
        executed: whether it was run here.
        checked: what was found of it.
        needs: what is left to do before it runs there.
    """

    output: str
    target: str
    isa: str
    seconds: float
    bytes: int
    executed: bool
    checked: tuple[str, ...]
    needs: str


def compile_folder(
    path: Path,
    target_name: str,
    *,
    device: DeviceProfile,
    isa: str | None = None,
    kv_type: str = "f16",
    output: Path | None = None,
) -> Compiled:
    """Compiles an MLC folder.

    Args:
        path: the folder.
        target_name: one of ``targets.TARGETS``.
        device: this machine.
        isa: instruction set of a processor; None for this machine's if it is of the target,
            else one that most machines of the target have.
        kv_type: of the cache: "f16" or "f32".
        output: the file; None for one within the folder, where the backend looks for it.

    Raises:
        UsageError: no such target, instruction set or type.
        UnsupportedError: the compiler is missing, or cannot compile for the target.
        CheckFailedError: what came out is not for the target, or does not compute.
    """
    target = get_target(target_name)
    chosen = _isa(target, isa, device)
    if kv_type not in KV_TYPES:
        raise UsageError(f"no cache of {kv_type}", hint=f"use {' or '.join(KV_TYPES)}")
    if not compiler_version():
        raise UnsupportedError("compiling needs apache-tvm, which is not installed", hint=INSTALL)
    folders.read(path)  # refused before anything is begun
    output = output or path / f"edgeinfer-{target.name}{target.suffix}"
    if output.suffix not in (".tar", target.suffix):
        raise UsageError(f"{output} must end in {target.suffix} or .tar")
    if not output.parent.is_dir():
        raise UsageError(f"{output.parent}: no such folder")
    answer = compile_in_process(
        {
            "folder": str(path),
            "target": target.name,
            "isa": chosen,
            "kv_type": kv_type,
            "output": str(output.resolve()),
        }
    )
    checked = [artifacts.check(output, target.name), *answer["checked"]]
    executed = output.suffix == ".so" and chosen in device.isas
    if executed:
        checked.append(_run(path, output, kv_type))
    needs = target.needs
    if target.machine and output.suffix == ".tar":
        needs = f"a C++ compiler for {target.machine} links it"
    return Compiled(
        output=str(output),
        target=target.name,
        isa=chosen,
        seconds=round(float(answer["seconds"]), 1),
        bytes=output.stat().st_size,
        executed=executed,
        checked=tuple(checked),
        needs=needs,
    )


def _isa(target: Target, asked: str | None, device: DeviceProfile) -> str:
    if not target.machine:
        if asked is not None:
            raise UsageError(f"{target.name} has no instruction sets to choose from")
        return ""
    known = [isa for isa, machine in ISAS.items() if machine == target.machine]
    if asked is not None and asked not in known:
        raise UsageError(
            f"no kernels for {asked!r} of {target.name}", hint=f"known: {', '.join(known)}"
        )
    here = next((isa for isa in device.isas if isa in known), target.isa)
    return asked or here


def _run(path: Path, library: Path, kv_type: str) -> str:
    """Reads a token with a library."""
    plan = MemoryPlan(
        backend="mlc",
        quant="",
        context=1,
        threads=1,
        batch=1,
        kv_type_k=kv_type,
        kv_type_v=kv_type,
        weights_bytes=0,
        kv_bytes=0,
        scratch_bytes=0,
        runtime_bytes=0,
        budget_bytes=0,
    )
    engine = open_engine(path, plan, library)
    try:
        largest = float(abs(engine.step([Slice(engine.open(), [0], 1)])).max())
    finally:
        engine.shutdown()
    if not math.isfinite(largest):
        raise CheckFailedError(f"{library} computes what is no number")
    return "run here: a token read"
