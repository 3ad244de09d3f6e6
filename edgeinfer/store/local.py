"""Files and folders named by their path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeinfer.errors import NotFoundError, UnsupportedError, UsageError
from edgeinfer.store.choose import choose, parts_of, quant_of
from edgeinfer.store.model import Progress, StoredModel

_SUFFIXES = (".gguf", ".safetensors", ".onnx", ".bin", ".pt")
# A folder is what the first of these files in it says.
_FOLDER_MARKS = (
    ("mlc-chat-config.json", "mlc"),
    ("genai_config.json", "onnx"),
    ("config.json", "hf"),
)


class LocalSource:
    """Paths. An existing one wins over every other meaning of a reference."""

    name = "local"

    def claims(self, reference: str) -> bool:
        """True for what exists, and for what can only be meant as a path."""
        if "://" in reference:
            return reference.startswith("file://")
        looks = reference.startswith(("/", "./", "../", "~", ".\\", "..\\"))
        return looks or reference.endswith(_SUFFIXES) or _path(reference).exists()

    def locate(self, reference: str) -> StoredModel | None:
        """Says what is at the path.

        Raises:
            UnsupportedError: something, but no model.
        """
        path = _path(reference)
        if not path.exists():
            return None
        return _folder(path, reference) if path.is_dir() else _file(path, reference)

    def fetch(self, reference: str, progress: Progress | None) -> StoredModel:
        """Nothing can be fetched to a path."""
        raise NotFoundError(f"there is no file or folder {reference!r}")

    def models(self) -> Iterator[StoredModel]:
        """Paths are not kept track of."""
        return iter(())

    def remove(self, reference: str) -> int:
        """Refuses: the file is the user's."""
        if not _path(reference).exists():
            raise NotFoundError(f"there is no file or folder {reference!r}")
        raise UsageError(
            f"{reference} is your own file; edgeinfer removes only what it downloaded",
            hint=f"to delete it: rm {'-r ' if _path(reference).is_dir() else ''}{reference}",
        )


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(child.stat().st_size for child in path.rglob("*") if child.is_file())
    return path.stat().st_size


def is_complete(folder: Path) -> bool:
    """True if a Hugging Face folder has all its weights: an index's shards, or any one file."""
    import json

    index = folder / "model.safetensors.index.json"
    if not (folder / "config.json").is_file():
        return False
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    try:
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return all(isinstance(shard, str) and (folder / shard).is_file() for shard in shards)


def _path(reference: str) -> Path:
    return Path(reference.removeprefix("file://")).expanduser()


def _file(path: Path, reference: str) -> StoredModel:
    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF" or path.suffix == ".gguf"
    if is_gguf:
        names = parts_of(path.name)
        missing = [name for name in names if not path.with_name(name).is_file()]
        if missing:
            raise NotFoundError(f"{path} is one part of a model, and {missing[0]} is missing")
        size = sum(path.with_name(name).stat().st_size for name in names)
        return _model(path, "gguf", reference, size, quant_of(path.name))
    if path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        return _folder(path.parent, reference)
    if path.suffix == ".onnx":
        return _model(path, "onnx", reference, size_of(path))
    raise UnsupportedError(
        f"{path} is no model that edgeinfer knows",
        hint="give a .gguf file, or a folder with config.json and safetensors",
    )


def _folder(path: Path, reference: str) -> StoredModel:
    for mark, kind in _FOLDER_MARKS:
        if (path / mark).is_file() and (kind != "hf" or any(path.glob("*.safetensors"))):
            return _model(path, kind, reference, size_of(path))
    file = choose([child.name for child in path.iterdir() if child.is_file()])
    if file is not None:
        return _file(path / file, reference)
    pickled = any(path.glob("*.bin")) or any(path.glob("*.pt"))
    raise UnsupportedError(
        f"the folder {path} holds no model",
        hint="its weights are pickles, which can run code; look for a safetensors version"
        if pickled
        else "a model folder has a .gguf file, or config.json and safetensors",
    )


def _model(path: Path, kind: str, reference: str, size: int, quant: str = "") -> StoredModel:
    return StoredModel(
        path=path, format=kind, reference=reference, source="local", bytes=size, quant=quant
    )
