"""StoredModel, and the Protocol of the places that hold models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Called with (bytes done, bytes in all or None).
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model on disk."""

    path: Path  # the file, or the folder
    format: str  # "gguf", "hf" (config.json and safetensors), "onnx", "mlc"
    reference: str  # finds this model again
    source: str  # the name of the source that holds it
    bytes: int
    quant: str = ""  # as the file's name or its owner calls it
    licence: str = ""  # SPDX, where the source knows it

    def to_json(self) -> dict[str, object]:
        """Returns the record that ``--json`` prints."""
        return {
            "reference": self.reference,
            "source": self.source,
            "format": self.format,
            "quant": self.quant,
            "bytes": self.bytes,
            "path": str(self.path),
        }


class Source(Protocol):
    """A place that holds models. The registry is ``library.SOURCES``."""

    name: str

    def claims(self, reference: str) -> bool:
        """True if the reference has this source's form."""

    def locate(self, reference: str) -> StoredModel | None:
        """Finds the model on disk without asking the network; None if it is absent."""

    def fetch(self, reference: str, progress: Progress | None) -> StoredModel:
        """Downloads the model.

        Raises:
            NotFoundError: it does not exist, or cannot be fetched.
            CheckFailedError: what came is not what was promised.
        """

    def models(self) -> Iterator[StoredModel]:
        """Yields what is on disk."""

    def remove(self, reference: str) -> int:
        """Deletes the model and returns the bytes that this freed.

        Raises:
            NotFoundError: it is not here.
            UsageError: it belongs to another program.
        """
