"""Compiles the model of a folder for a target."""

from __future__ import annotations

import json
import os
from pathlib import Path

import tvm
from tvm import relax

from edgeinfer.backends.mlc.compiler.build import export, lowered, with_metadata
from edgeinfer.backends.mlc.compiler.cpu import CpuKernels
from edgeinfer.backends.mlc.compiler.decoder import Decoder, specification
from edgeinfer.backends.mlc.compiler.isa import ISAS, Isa
from edgeinfer.backends.mlc.fingerprint import compiler_version, fingerprint
from edgeinfer.backends.mlc.library import VERSION
from edgeinfer.backends.mlc.parameters import contents
from edgeinfer.formats.mlc.folder import MlcFolder


def cpu_target(isa: Isa) -> tvm.target.Target:
    """TVM's target of an instruction set."""
    return tvm.target.Target({"kind": "llvm", "mcpu": isa.cpu, "mattr": list(isa.features)})


def compile_model(folder: MlcFolder, target_name: str, kv_type: str, output: Path) -> None:
    """Writes a library; the file appears when it is complete."""
    isa = ISAS[target_name]
    held = contents(folder)
    target = cpu_target(isa)
    with target:
        kernels = CpuKernels(folder.config, isa, kv_type)
        decoder = Decoder(folder.config, held, kernels)
        module, named, _ = decoder.export_tvm(
            spec=specification(decoder, kernels), allow_extern=True
        )
        metadata = {
            "version": VERSION,
            "model": fingerprint(folder.config, held.parameters),
            "isa": isa.name,
            "kv_type": kv_type,
            "tvm": compiler_version(),
            "parameters": [_ours(name) for name, _ in named],
        }
        module = with_metadata(module, json.dumps(metadata))
        executable = relax.build(module, target=target, relax_pipeline=lowered(module, target))
    part = output.with_name(f".{output.stem}.{os.getpid()}.part.so")
    try:
        export(executable, part)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def _ours(name: str) -> str:
    """Parameters of norms and matrices are called alike in modules and in ``Contents``."""
    return name
