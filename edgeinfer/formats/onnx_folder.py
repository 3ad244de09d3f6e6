"""What an exported ONNX folder says of itself, beside the graph: ``edgeinfer.json``.

The graph alone does not tell a model's numbers, and to read it takes a library. This file is
enough to plan a model and to refuse a damaged one.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from edgeinfer.arch.config import ModelConfig, RopeTable
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.formats.untrusted_json import parse_json

NAME = "edgeinfer.json"
GRAPH = "model.onnx"
_VERSION = 2
CACHES = ("f32", "f16", "int8")
# Type of a matrix -> the GGUF type nearest to it in size and speed.
NEAREST = {
    "f32": "f32",
    "f16": "f16",
    "int2": "q4_0",
    "int4": "q4_0",
    "int4/16": "q4_0",
    "int4+offsets": "q4_1",
    "int8": "q8_0",
    "int8/16": "q8_0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFolder:
    """An exported model.

    Attributes:
        path: the folder.
        config: the model's numbers, for the context it was exported for.
        context: tokens its rotary tables reach.
        quant: the recipe.
        floats: type of activations: "f32" or "f16".
        cache: type of keys and values: "f32", "f16" or "int8".
        matrices: name -> type, such as "int4", and (rows, columns).
        files: name -> bytes, of the graph and its data.
        merges: of the tokenizer.
        metadata: the ``general.*`` keys that a GGUF of the model would have.
    """

    path: Path
    config: ModelConfig
    context: int
    quant: str
    floats: str
    cache: str
    matrices: Mapping[str, tuple[str, tuple[int, int]]]
    files: Mapping[str, int]
    merges: int
    metadata: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Writes the record into a folder."""
        record = {name: value for name, value in asdict(self).items() if name != "path"}
        record["config"]["rope_tables"] = []  # they are in the data, and long
        record["config"]["layer_rope"] = []
        text = json.dumps({"version": _VERSION, **record}, indent=1, default=_plain)
        (folder / NAME).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> OnnxFolder:
    """Reads the record of a folder, and checks that its files are whole.

    Raises:
        UnsupportedError: the folder has none, or one of a later version.
        CorruptFileError: the record makes no sense, or a file is missing or cut short.
    """
    path = folder / NAME
    if folder.is_file() and (folder.parent / NAME).is_file():
        raise UnsupportedError(
            f"{folder} is a file of an exported model", hint=f"give its folder: {folder.parent}"
        )
    if not path.is_file():
        raise UnsupportedError(
            f"{folder} was not exported by edgeinfer: it has no {NAME}",
            hint="export the model: edgeinfer convert SOURCE --to onnx -q int4 -o FOLDER",
        )
    try:
        record = parse_json(path.read_bytes())
        if record.get("version") != _VERSION:
            raise UnsupportedError(
                f"{path} is of version {record.get('version')!r}, this program reads {_VERSION}",
                hint="export the model again",
            )
        found = OnnxFolder(
            path=folder,
            config=_config(record["config"]),
            context=_positive(record["context"]),
            quant=str(record["quant"]),
            floats=_one_of(("f32", "f16"), record["floats"]),
            cache=_one_of(CACHES, record["cache"]),
            matrices={
                str(name): (_one_of(NEAREST, kind), (_positive(rows), _positive(columns)))
                for name, (kind, (rows, columns)) in dict(record["matrices"]).items()
            },
            files={str(name): _positive(size) for name, size in dict(record["files"]).items()},
            merges=int(record["merges"]),
            metadata=dict(record["metadata"]),
        )
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise CorruptFileError(f"{path} is damaged: {error!r}") from error
    for name, size in found.files.items():
        file = folder / name
        if not file.is_file():
            raise CorruptFileError(f"{file} is missing", hint="export the model again")
        if file.stat().st_size != size:
            raise CorruptFileError(
                f"{file} has {file.stat().st_size} bytes, expected {size}",
                hint="export the model again",
            )
    return found


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{value!r} is no JSON")


def _positive(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no size")
    return value


def _one_of(known: Collection[str], value: Any) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return str(value)


def _config(record: Mapping[str, Any]) -> ModelConfig:
    """The numbers; of the rotary tables there are none, they are in the data."""
    known = {field.name for field in fields(ModelConfig)}
    kinds = typing.get_type_hints(ModelConfig)
    values: dict[str, Any] = {}
    for name, value in record.items():
        if name not in known:
            raise ValueError(f"unknown number {name!r}")
        kind = kinds[name]
        if isinstance(kind, types.GenericAlias):
            values[name] = tuple(value)
        elif isinstance(kind, type) and issubclass(kind, Enum):
            values[name] = kind(value)
        elif kind is float:
            values[name] = float(value)
        elif type(value) is kind:
            values[name] = value
        else:
            raise ValueError(f"{name} is {value!r}")
    values["rope_tables"] = (RopeTable(inverse_frequencies=()),)
    values["layer_rope"] = (0,) * int(values["layers"])
    return ModelConfig(**values)
