"""What libraries are compiled for: names, processors, and the kind of file each becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgeinfer.errors import UnsupportedError, UsageError, known_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of device.

    Attributes:
        suffix: of the file: a shared library, or an archive of objects to be linked on.
        machine: where it runs on processors, the name of theirs; "" for graphics processors.
        isa: of processors, unless another is asked for.
        compilers: of C++ that can link it, the first that is there.
        needs: what is left to do with an archive.
    """

    name: str
    suffix: str
    machine: str = ""
    isa: str = ""
    compilers: tuple[str, ...] = ()
    needs: str = ""


_ALL = (
    Target(
        name="x86_64",
        suffix=".so",
        machine="x86_64",
        isa="avx2",
        compilers=("x86_64-linux-gnu-g++", "g++", "c++"),
    ),
    Target(
        name="aarch64",
        suffix=".so",
        machine="aarch64",
        isa="neon_dotprod",
        compilers=("aarch64-linux-gnu-g++", "g++", "c++"),
    ),
    Target(
        name="android",
        suffix=".tar",
        needs="Android's NDK links it, with TVM's runtime built with OpenCL",
    ),
    Target(
        name="adreno",
        suffix=".tar",
        needs="Android's NDK links it, with TVM's runtime built with OpenCL",
    ),
    Target(
        name="macos",
        suffix=".tar",
        needs="Xcode links it; Metal compiles its shaders when it is loaded",
    ),
    Target(
        name="iphone",
        suffix=".tar",
        needs="Xcode links it into an app; Metal compiles its shaders when it is loaded",
    ),
    Target(
        name="webgpu",
        suffix=".tar",
        needs="Emscripten links it with TVM's runtime for the web",
    ),
)
TARGETS: Mapping[str, Target] = MappingProxyType({target.name: target for target in _ALL})


def get_target(name: str) -> Target:
    """Returns a target by its name.

    Raises:
        UnsupportedError: there can be none.
        UsageError: there is none.
    """
    if name == "vulkan":
        raise UnsupportedError(
            "no code for Vulkan: packages of apache-tvm lack that part of the compiler",
            hint="android reaches the same graphics processors by OpenCL, webgpu by browsers",
        )
    if name not in TARGETS:
        raise UsageError(f"no target {name!r}", hint=known_names(name, TARGETS))
    return TARGETS[name]
