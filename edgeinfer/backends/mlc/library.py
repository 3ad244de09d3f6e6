"""Which library runs a folder: one that was given, one made before, or one made now."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeinfer.backends.mlc.fingerprint import compiler_sources, compiler_version, fingerprint
from edgeinfer.backends.mlc.parameters import Contents
from edgeinfer.backends.mlc.runtime import INSTALL
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import EdgeInferError, NotFoundError, UnsupportedError
from edgeinfer.formats.mlc.folder import MlcFolder
from edgeinfer.store.home import home, lock

GIVEN = "EDGEINFER_MLC_LIBRARY"
# Instruction sets that there are kernels for, and the target that each is of.
ISAS = {
    "avx512": "x86_64",
    "avxvnni": "x86_64",
    "avx2": "x86_64",
    "neon_dotprod": "aarch64",
    "neon": "aarch64",
}
KV_TYPES = ("f32", "f16")
_log = logging.getLogger("edgeinfer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a library has to be for.

    Attributes:
        folder: the model.
        contents: its tensors.
        isas: kernel sets of the machine, best first.
        kv_type: of the cache.
    """

    folder: MlcFolder
    contents: Contents
    isas: tuple[str, ...]
    kv_type: str

    @property
    def model(self) -> str:
        """The fingerprint."""
        return fingerprint(self.folder.config, self.contents.parameters)

    @property
    def isa(self) -> str:
        """The best one that there are kernels for.

        Raises:
            UnsupportedError: there is none.
        """
        found = next((isa for isa in self.isas if isa in ISAS), None)
        if found is None:
            raise UnsupportedError(
                "the backend 'mlc' has no kernels for this processor",
                hint=f"it has some for {', '.join(ISAS)}",
            )
        return found


def beside(folder: Path, device: DeviceProfile) -> Path:
    """Where a library lies that comes with a folder."""
    return folder / f"edgeinfer-{device.machine}.so"


def find(wanted: Wanted, device: DeviceProfile) -> Path:
    """Returns a library for a model; compiles it if there is none.

    Raises:
        NotFoundError: the one that was given does not exist.
        UnsupportedError: there is none, and no compiler.
    """
    given = os.environ.get(GIVEN)
    if given:
        if not Path(given).is_file():
            raise NotFoundError(f"{given}: no such file ({GIVEN})")
        return Path(given)
    if beside(wanted.folder.path, device).is_file():
        return beside(wanted.folder.path, device)
    return cached(wanted)


def cached(wanted: Wanted) -> Path:
    """Returns the library that was made for a model here, or makes it."""
    version = compiler_version()
    if not version:
        raise UnsupportedError(
            f"{wanted.folder.path}: there is no compiled library, and no apache-tvm to make one",
            hint=INSTALL,
        )
    name = f"{wanted.model}-{wanted.isa}-{wanted.kv_type}-tvm{version}-{compiler_sources()}"
    place = home() / "libraries" / f"{name}.so"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with lock(f"library-{name}"):
            if not place.is_file():
                _log.info("compiling %s for %s, once", wanted.folder.path, wanted.isa)
                compile_in_process(
                    {
                        "folder": str(wanted.folder.path),
                        "target": ISAS[wanted.isa],
                        "isa": wanted.isa,
                        "kv_type": wanted.kv_type,
                        "output": str(place),
                    }
                )
    return place


def compile_in_process(job: dict[str, Any]) -> dict[str, Any]:
    """Compiles in a process of its own, which takes the compiler's memory along when it ends.

    Returns:
        what it says of the library.

    Raises:
        EdgeInferError: it failed; there is no output then.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "edgeinfer.backends.mlc.compiler"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    lines = ran.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        answer = {}
    if "error" in answer:
        kind = UnsupportedError if answer.get("unsupported") else EdgeInferError
        raise kind(answer["error"], hint=answer.get("hint"))
    if ran.returncode or "seconds" not in answer:
        told = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
        raise EdgeInferError(f"the library could not be compiled: {told}")
    found: dict[str, Any] = answer
    return found


def check(metadata: dict[str, Any], path: Path, wanted: Wanted) -> None:
    """Refuses a library that is not for a model, or not for this machine.

    Raises:
        UnsupportedError: why.
    """
    hint = "compile it again: edgeinfer compile MODEL"
    if metadata.get("version") != VERSION:
        raise UnsupportedError(
            f"{path} is of version {metadata.get('version')!r}, this program loads {VERSION}",
            hint=hint,
        )
    if metadata.get("model") != wanted.model:
        raise UnsupportedError(f"{path} was compiled for another model", hint=hint)
    if metadata.get("isa") not in wanted.isas:
        raise UnsupportedError(
            f"{path} was compiled for {metadata.get('isa')}, which this processor is not",
            hint=hint,
        )
    if metadata.get("kv_type") != wanted.kv_type:
        raise UnsupportedError(
            f"{path} has a cache of {metadata.get('kv_type')}, not of {wanted.kv_type}",
            hint=f"ask for that one (-ctk, -ctv), or {hint}",
        )


VERSION = 1
