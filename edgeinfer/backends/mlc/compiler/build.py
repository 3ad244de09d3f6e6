"""From a decoder to a library: TVM's passes, code for a target, and a file."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx

from edgeinfer.backends.mlc.compiler.decoder import MOST_LOGITS, MOST_TOKENS

METADATA = "edgeinfer_metadata"


def lowered(module: Any, target: Any, schedules: tuple[Any, ...] = ()) -> Any:
    """Returns the passes that make a module's functions into code for the virtual machine."""
    transform = relax.transform
    one_pass = tvm.transform.module_pass(opt_level=0)

    def bounded(mod: Any, context: Any) -> Any:
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function):
                bounds = {"n": MOST_TOKENS, "m": MOST_LOGITS}
                mod[name] = function.with_attr("tir_var_upper_bound", bounds)
        return mod

    def all_passes(mod: Any, context: Any) -> Any:
        passes = [
            one_pass(bounded),
            tirx.transform.BindTarget(target),
            transform.LegalizeOps(),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
            transform.DeadCodeElimination(),
            *schedules,
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
        return tvm.transform.Sequential(passes)(mod)

    return one_pass(all_passes)


def with_metadata(module: Any, text: str) -> Any:
    """Adds a function that returns a text."""
    builder = relax.BlockBuilder(module)
    with builder.function(METADATA, []):
        builder.emit_func_output(tvm.ir.StringImm(text))
    return builder.get()
