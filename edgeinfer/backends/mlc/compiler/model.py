"""Compiles the model of a folder for a target."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm import relax
from tvm.support import tar

from edgeinfer.backends.mlc.compiler.build import lowered, with_metadata
from edgeinfer.backends.mlc.compiler.cpu import CpuKernels
from edgeinfer.backends.mlc.compiler.decoder import Decoder, specification
from edgeinfer.backends.mlc.compiler.devices import (
    SYSTEM_PREFIX,
    cpu_target,
    gpu_schedules,
    gpu_target,
)
from edgeinfer.backends.mlc.compiler.gpu import GpuKernels
from edgeinfer.backends.mlc.compiler.isa import ISAS
from edgeinfer.backends.mlc.compiler.kernel_set import KernelSet
from edgeinfer.backends.mlc.compiler.sources import parsed
from edgeinfer.backends.mlc.fingerprint import compiler_version, fingerprint
from edgeinfer.backends.mlc.library import VERSION
from edgeinfer.backends.mlc.parameters import Contents, contents
from edgeinfer.backends.mlc.targets import Target, get_target
from edgeinfer.errors import EdgeInferError, UnsupportedError
from edgeinfer.formats.atomic import AtomicFile
from edgeinfer.formats.mlc.folder import MlcFolder


def compile_model(
    folder: MlcFolder, target_name: str, isa_name: str, kv_type: str, output: Path
) -> list[str]:
    """Writes a library; the file appears when it is complete.

    Returns:
        what was found of kernels in a language of their own.

    Raises:
        UnsupportedError: there is nothing to link it with, or the folder's weights lie in a way
            that the target has no kernels for.
        CheckFailedError: kernels do not parse.
        EdgeInferError: it cannot be linked or written; what was there before still is.
    """
    target = get_target(target_name)
    held = contents(folder)
    options = _export_options(target, output)
    about: dict[str, Any] = {"kv_type": kv_type}
    kernels: KernelSet
    schedules: tuple[Any, ...] = ()
    if target.machine:
        isa = ISAS[isa_name]
        device = cpu_target(isa)
        kernels = CpuKernels(folder.config, isa, kv_type)
        about["isa"] = isa.name
    else:
        if target.name == "webgpu" and folder.quant.dtype == "bfloat16":
            raise UnsupportedError(
                f"weights stored as {folder.quant.name}: WebGPU has no 16-bit numbers but float16",
                hint="export the model as q4f16_1 or q4f32_1",
            )
        device = gpu_target(target.name)
        about["quant"] = folder.quant.name
        kernels = GpuKernels(folder.config, kv_type, folder.quant)
        schedules = gpu_schedules()
    with device:
        executable = built(folder, held, kernels, device, schedules, about)
    checked = parsed(executable) if schedules else []
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / f"made{output.suffix}"
        try:
            executable.export_library(str(made), **options)
        except (RuntimeError, OSError) as error:  # of the linker, which says why in many lines
            told = [line for line in str(error).splitlines() if "error: " in line.lower()]
            raise EdgeInferError(
                f"{output} could not be linked: {' '.join(told) or error}"
            ) from error
        with AtomicFile(output) as file:
            file.write(made.read_bytes())
    return checked


def built(
    folder: MlcFolder,
    held: Contents,
    kernels: KernelSet,
    device: Any,
    schedules: tuple[Any, ...],
    about: dict[str, Any],
) -> Any:
    """Returns a model as TVM compiled it.

    Args:
        folder: the model.
        held: its tensors.
        kernels: what it is drawn with.
        device: TVM's target.
        schedules: passes that share loops among threads; none for kernels that do so themselves.
        about: what the library tells of itself, beside the model.
    """
    decoder = Decoder(folder.config, held, kernels)
    module, named, _ = decoder.export_tvm(spec=specification(decoder, kernels), allow_extern=True)
    names = [name for name, _ in named]
    metadata = {
        "version": VERSION,
        "model": fingerprint(folder.config, held.parameters),
        "tvm": compiler_version(),
        **about,
        "parameters": names,
        "sources": {name: held.parameters[name].sources for name in names},
    }
    module = with_metadata(module, json.dumps(metadata))
    if schedules:  # of devices whose programs find libraries by name
        module = module.with_attrs({"system_lib_prefix": SYSTEM_PREFIX})
    return relax.build(
        module,
        target=device,
        relax_pipeline=lowered(module, device, schedules),
        system_lib=bool(schedules),
    )


def _export_options(target: Target, output: Path) -> dict[str, Any]:
    if output.suffix == ".tar":
        return {"fcompile": tar.tar}
    linker = _linker(target.compilers)
    if linker is None:
        raise UnsupportedError(
            f"no C++ compiler here links for {target.name} ({', '.join(target.compilers)})",
            hint="install one, or let the output end in .tar and link it where it is to run",
        )
    return {"cc": linker}


def _linker(names: Sequence[str]) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)
