"""Models that Ollama has: ``ollama://name[:tag]``, read from its store without copying.

A manifest names the parts of a model by digest; the weights are a GGUF blob.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from edgeinfer.errors import CorruptFileError, NotFoundError, UsageError
from edgeinfer.store.model import Progress, StoredModel

# [host/][namespace/]model[:tag], each part a plain name.
_REFERENCE = re.compile(
    r"ollama://(?:(?P<host>[\w.-]+)/(?=[^/]+/))?(?:(?P<namespace>[\w.-]+)/)?"
    r"(?P<model>[\w.-]+)(?::(?P<tag>[\w.-]+))?",
    re.ASCII,
)
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_MODEL = "application/vnd.ollama.image.model"
# Ollama run as a service of Linux keeps its models here.
_SERVICE_ROOT = Path("/usr/share/ollama/.ollama/models")


class OllamaSource:
    """Ollama's store; it is only read."""

    name = "ollama"

    def claims(self, reference: str) -> bool:
        """True for ``ollama://...``."""
        return reference.startswith("ollama://")

    def locate(self, reference: str) -> StoredModel | None:
        """Reads the manifest and finds the blob."""
        parts = _parse(reference)
        for root in _roots():
            manifest = root.joinpath("manifests", *parts)
            if manifest.is_file():
                return _read(root, manifest)
        return None

    def fetch(self, reference: str, progress: Progress | None) -> StoredModel:
        """Leaves fetching to Ollama."""
        name = reference.removeprefix("ollama://")
        raise NotFoundError(f"Ollama has no {name} on this machine", hint=f"ollama pull {name}")

    def models(self) -> Iterator[StoredModel]:
        """Yields the models whose weights are GGUF."""
        for root in _roots():
            for manifest in sorted(root.glob("manifests/*/*/*/*")):
                try:
                    model = _read(root, manifest)
                except CorruptFileError:
                    continue  # another program's; its owner will tell
                if model is not None:
                    yield model

    def remove(self, reference: str) -> int:
        """Refuses: the model is Ollama's."""
        name = reference.removeprefix("ollama://")
        if self.locate(reference) is None:
            raise NotFoundError(f"Ollama has no {name} on this machine")
        raise UsageError(f"{name} belongs to Ollama", hint=f"ollama rm {name}")


def _roots() -> list[Path]:
    chosen = os.environ.get("OLLAMA_MODELS")
    roots = [Path(chosen)] if chosen else [Path.home() / ".ollama" / "models", _SERVICE_ROOT]
    return [root for root in roots if os.access(root / "manifests", os.R_OK | os.X_OK)]


def _parse(reference: str) -> tuple[str, str, str, str]:
    """Returns (host, namespace, model, tag)."""
    match = _REFERENCE.fullmatch(reference)
    parts = (
        (
            match["host"] or _HOST,
            match["namespace"] or _NAMESPACE,
            match["model"],
            match["tag"] or _TAG,
        )
        if match
        else ()
    )
    if len(parts) != 4 or any(set(part) <= {"."} for part in parts):
        raise UsageError(f"{reference!r} is not of the form ollama://name[:tag]")
    return parts


def _read(root: Path, manifest: Path) -> StoredModel | None:
    """The model of a manifest; None if its weights are absent or no GGUF."""
    content = _json(manifest)
    layers = content.get("layers")
    for layer in layers if isinstance(layers, list) else []:
        if not isinstance(layer, dict) or layer.get("mediaType") != _MODEL:
            continue
        blob = _blob(root, layer.get("digest"), manifest)
        if blob.is_file():
            with blob.open("rb") as file:
                is_gguf = file.read(4) == b"GGUF"
            return _model(root, manifest, content, blob) if is_gguf else None
    return None


def _model(root: Path, manifest: Path, content: dict[str, object], blob: Path) -> StoredModel:
    host, namespace, name, tag = manifest.parts[-4:]
    prefix = f"{host}/{namespace}/" if host != _HOST else ""
    if not prefix and namespace != _NAMESPACE:
        prefix = f"{namespace}/"
    config = content.get("config")
    digest = config.get("digest") if isinstance(config, dict) else None
    details = _json(path) if digest and (path := _blob(root, digest, manifest)).is_file() else {}
    return StoredModel(
        path=blob,
        format="gguf",
        reference=f"ollama://{prefix}{name}:{tag}",
        source="ollama",
        bytes=blob.stat().st_size,
        quant=str(details.get("file_type", "")),
    )


def _blob(root: Path, digest: object, manifest: Path) -> Path:
    """The file of a digest, which must be one and no path."""
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise CorruptFileError(f"{manifest}: {digest!r} is no SHA-256 digest")
    return root / "blobs" / f"sha256-{match[1]}"


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorruptFileError(f"{path} is no JSON object")
    return content
