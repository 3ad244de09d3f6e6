"""Opens a folder with a library: the checks, the weights, the engine."""

from __future__ import annotations

from pathlib import Path

from edgeinfer.backends.mlc import library as libraries
from edgeinfer.backends.mlc.engine import MlcEngine
from edgeinfer.backends.mlc.packing import packed
from edgeinfer.backends.mlc.parameters import contents
from edgeinfer.backends.mlc.runtime import Library
from edgeinfer.device.detect import detect
from edgeinfer.errors import CorruptFileError, DoesNotFitError, UnsupportedError
from edgeinfer.formats.guard import Guard
from edgeinfer.formats.mlc import folder as folders
from edgeinfer.planner.plan import MemoryPlan


def open_engine(path: Path, plan: MemoryPlan, given: Path | None = None) -> MlcEngine:
    """Loads a folder as planned.

    Args:
        path: the folder.
        plan: context, threads and the cache's type.
        given: the library; None for the one beside the folder, in the cache, or compiled now.

    Raises:
        UnsupportedError: the library is not for this model or machine, or the plan wants what
            there are no kernels for.
        CorruptFileError: a file of the folder is missing, cut short or damaged.
        DoesNotFitError: the memory is gone in spite of the plan.
    """
    folder = folders.read(path)
    if plan.gpu_layers:
        raise UnsupportedError(
            "the backend 'mlc' runs on the processor only", hint="leave -ngl out"
        )
    if plan.kv_type_k != plan.kv_type_v or plan.kv_type_k not in libraries.KV_TYPES:
        raise UnsupportedError(
            f"the backend 'mlc' has caches of {' or '.join(libraries.KV_TYPES)}, "
            f"not of {plan.kv_types}",
            hint="leave -ctk and -ctv out",
        )
    if plan.context > folder.config.context:
        raise UnsupportedError(
            f"{path} is for {folder.config.context} tokens, not {plan.context}",
            hint="use a shorter context (-c)",
        )
    device = detect()
    held = contents(folder)
    wanted = libraries.Wanted(
        folder=folder, contents=held, isas=device.isas, kv_type=plan.kv_type_k
    )
    place = given or libraries.find(wanted, device)
    library = Library(place)
    libraries.check(library.metadata, place, wanted)
    try:
        order = [held.parameters[name] for name in library.metadata["parameters"]]
    except (KeyError, TypeError) as error:
        raise CorruptFileError(f"{place}: damaged: {error!r}") from error
    files = {folder.path / stored.file for stored in folder.tensors.values()}
    try:
        with Guard(files):
            parameters = packed(folder, order, plan.threads)
        return MlcEngine(library, folder.config, parameters, plan)
    except MemoryError as error:
        raise DoesNotFitError(
            "the system refused TVM the memory",
            need_bytes=plan.total_bytes,
            have_bytes=plan.budget_bytes,
            suggest="close other programs, or use a smaller quantisation",
        ) from error
