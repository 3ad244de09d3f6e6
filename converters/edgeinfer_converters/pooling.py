"""What a checkpoint for embeddings does with hidden states: the files of sentence-transformers.

``modules.json`` lists what a text goes through, each part with a folder of its own
(https://sbert.net/docs/sentence_transformer/usage/custom_models.html).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeinfer.arch.config import Pooling
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.formats.untrusted_json import parse_json
from edgeinfer_converters.json_files import read_json

# Switches of a Pooling module's config.json, one for each kind; newer ones name the kind.
_SWITCHES = {
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_cls_token": Pooling.FIRST,
    "pooling_mode_lasttoken": Pooling.LAST,
}
_NAMES = {"mean": Pooling.MEAN, "cls": Pooling.FIRST, "lasttoken": Pooling.LAST}
_HARMLESS = ("Transformer", "Normalize")  # the model itself; vectors have length 1 anyway


def read_pooling(folder: Path) -> Pooling | None:
    """Returns how a checkpoint's embeddings are made; None if it is not for embeddings.

    Raises:
        CorruptFileError: modules.json is not a list of modules.
        UnsupportedError: embeddings go through something else as well.
    """
    found = None
    for module in _modules(folder):
        kind = str(module.get("type")).rpartition(".")[2]
        if kind == "Pooling":
            found = _kind(folder / str(module.get("path")) / "config.json")
        elif kind not in _HARMLESS:
            raise UnsupportedError(f"{folder}: embeddings that go through a module {kind!r}")
    return found


def _modules(folder: Path) -> list[dict[str, Any]]:
    path = folder / "modules.json"
    if not path.exists():
        return []
    try:
        modules = parse_json(b'{"modules":' + path.read_bytes() + b"}")["modules"]
    except ValueError as error:
        raise CorruptFileError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CorruptFileError(f"{path}: not a list of modules")
    return modules


def _kind(path: Path) -> Pooling:
    settings = read_json(path)
    named = settings.get("pooling_mode")
    if named is not None:
        kinds = [_NAMES.get(str(named))]
    else:
        on = [name for name, value in settings.items() if value is True and "_mode_" in name]
        kinds = [_SWITCHES.get(name) for name in on]
    if len(kinds) != 1 or kinds[0] is None:
        raise UnsupportedError(f"{path}: pooling other than mean, first or last token")
    return kinds[0]
