"""Apache TVM as a backend: folders for MLC LLM, run by libraries compiled from our own model."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from edgeinfer.backends.base import ModelFiles, Support
from edgeinfer.backends.mlc.fingerprint import compiler_version
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import UnsupportedError
from edgeinfer.planner import mlc as memory
from edgeinfer.planner.footprint import Footprint, Pace, Setting
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.plan import MemoryPlan

if TYPE_CHECKING:
    from edgeinfer.backends.mlc.engine import MlcEngine


class MlcBackend:
    """Loads MLC folders, compiled for the processor."""

    name = "mlc"
    formats = frozenset({"mlc"})

    def version(self) -> str:
        """The version of apache-tvm, or "" where it is not installed."""
        return compiler_version()

    def probe(self, device: DeviceProfile) -> Support:
        """Opens TVM's runtime, and looks for kernels for the processor."""
        from edgeinfer.backends.mlc.library import ISAS
        from edgeinfer.backends.mlc.runtime import INSTALL, ffi

        if importlib.util.find_spec("tvm_ffi") is None or not self.version():
            return Support(usable=False, reason=f"apache-tvm is not installed ({INSTALL})")
        try:
            ffi()
        except UnsupportedError as error:
            return Support(usable=False, reason=error.message)
        if not set(device.isas) & set(ISAS):
            return Support(usable=False, reason=f"kernels are for {', '.join(ISAS)} only")
        return Support(usable=True, reason=f"apache-tvm {self.version()}", rank=30)

    def footprint(self, model: Outline, setting: Setting) -> Footprint:
        """As ``Predictor.footprint``."""
        return memory.footprint(model, setting)

    def pace(self, model: Outline) -> Pace:
        """As ``Predictor.pace``."""
        return memory.pace(model)

    def load(self, files: ModelFiles, plan: MemoryPlan) -> MlcEngine:
        """Compiles the model if that was not done before, and loads it.

        Raises:
            UnsupportedError: apache-tvm is missing, the library is not for this model or machine,
                or the plan wants a GPU or a cache that there are no kernels for.
            CorruptFileError: a file of the folder is missing, cut short or damaged.
            DoesNotFitError: the memory is gone in spite of the plan.
        """
        from edgeinfer.backends.mlc.loading import open_engine
        from edgeinfer.backends.mlc.runtime import ffi

        ffi()
        return open_engine(files.path, plan)
