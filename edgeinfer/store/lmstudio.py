"""Models that LM Studio has: ``lmstudio://publisher/model[:quant]``, read in place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edgeinfer.errors import NotFoundError, UsageError
from edgeinfer.store.choose import choose, is_model_file, parts_of, quant_of
from edgeinfer.store.model import Progress, StoredModel

_REFERENCE = re.compile(
    r"lmstudio://(?P<publisher>\w[\w.-]*)/(?P<model>\w[\w.-]*)(?::(?P<quant>[\w.-]+))?", re.ASCII
)
_FOLDERS = (".lmstudio/models", ".cache/lm-studio/models")


class LmStudioSource:
    """LM Studio's folders, publisher/model/*.gguf; they are only read."""

    name = "lmstudio"

    def claims(self, reference: str) -> bool:
        """True for ``lmstudio://...``."""
        return reference.startswith("lmstudio://")

    def locate(self, reference: str) -> StoredModel | None:
        """Finds the file."""
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise UsageError(f"{reference!r} is not of the form lmstudio://publisher/model[:quant]")
        return self.find(match["publisher"], match["model"], match["quant"])

    def find(self, publisher: str, model: str, quant: str | None) -> StoredModel | None:
        """Finds the file by the parts of its reference."""
        for root in _roots():
            folder = root / publisher / model
            names = [child.name for child in folder.glob("*.gguf")]
            file = choose(names, quant)
            if file is not None and set(parts_of(file)) <= set(names):
                return _model(folder, file)
        return None

    def fetch(self, reference: str, progress: Progress | None) -> StoredModel:
        """Leaves fetching to LM Studio, or to the hub."""
        name = reference.removeprefix("lmstudio://")
        raise NotFoundError(
            f"LM Studio has no {name} on this machine", hint=f"edgeinfer pull {name}"
        )

    def models(self) -> Iterator[StoredModel]:
        """Yields every complete GGUF."""
        for root in _roots():
            for path in sorted(root.glob("*/*/*.gguf")):
                parts = parts_of(path.name)
                if is_model_file(path.name) and all(path.with_name(p).is_file() for p in parts):
                    yield _model(path.parent, path.name)

    def remove(self, reference: str) -> int:
        """Refuses: the model is LM Studio's."""
        model = self.locate(reference)
        if model is None:
            raise NotFoundError(f"{reference} is not on this machine")
        raise UsageError(f"{reference} belongs to LM Studio", hint=f"rm {model.path}")


def _roots() -> list[Path]:
    return [root for name in _FOLDERS if (root := Path.home() / name).is_dir()]


def _model(folder: Path, file: str) -> StoredModel:
    tag = quant_of(file) or Path(file).stem
    return StoredModel(
        path=folder / file,
        format="gguf",
        reference=f"lmstudio://{folder.parent.name}/{folder.name}:{tag}",
        source="lmstudio",
        bytes=sum((folder / part).stat().st_size for part in parts_of(file)),
        quant=quant_of(file),
    )
