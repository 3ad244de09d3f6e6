"""An MLC folder, ours or one that MLC LLM's own tool wrote: its numbers, and where tensors lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from edgeinfer.arch import numbers_from_hf
from edgeinfer.arch.config import ModelConfig, RopeStyle
from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError
from edgeinfer.formats.mlc.chat_config import NAME, as_hugging_face, hf_class
from edgeinfer.formats.mlc.quants import QUANTS, Quant
from edgeinfer.formats.untrusted_json import parse_json

INDEX, OLD_INDEX = "tensor-cache.json", "ndarray-cache.json"
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint32": 4}
_SHARDS = "raw-shard"
# mlc-chat-config.json -> the key that a GGUF has.
_SAMPLING = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor in a file.

    Attributes:
        file: the file's name.
        offset: bytes before it.
        shape: as it is stored.
        dtype: "float32", "float16", "bfloat16" or "uint32".
        halved: float32, of which the file has the upper 16 bits: bfloat16.
    """

    file: str
    offset: int
    shape: tuple[int, ...]
    dtype: str
    halved: bool

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return prod(self.shape) * (2 if self.halved else _ITEM_BYTES[self.dtype])


@dataclass(frozen=True, slots=True, kw_only=True)
class MlcFolder:
    """A folder that can be run.

    Attributes:
        path: the folder.
        model_type: the family as MLC LLM calls it.
        hf_class: as transformers does.
        config: the model's numbers; ``context`` is what the folder allows.
        quant: how matrices are stored.
        tensors: by MLC LLM's names.
        metadata: keys that a GGUF of the model would have.
    """

    path: Path
    model_type: str
    hf_class: str
    config: ModelConfig
    quant: Quant
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, Any]

    def tensor(self, name: str) -> Stored:
        """Returns a tensor.

        Raises:
            CorruptFileError: there is none of the name.
        """
        if name not in self.tensors:
            raise CorruptFileError(f"{self.path}: tensor {name!r} is missing")
        return self.tensors[name]


def read(path: Path) -> MlcFolder:
    """Reads what a folder says of itself, and checks that its files are whole.

    Raises:
        NotFoundError: it is no such folder.
        UnsupportedError: a family, or a way to store weights, that is not known.
        CorruptFileError: a file makes no sense, is missing or cut short.
    """
    if not (path / NAME).is_file():
        raise NotFoundError(
            f"{path}: no {NAME} in it",
            hint="make one: edgeinfer convert SOURCE --to mlc -q q4f16_1 -o FOLDER",
        )
    stated = _json(path / NAME)
    index = next((path / name for name in (INDEX, OLD_INDEX) if (path / name).is_file()), None)
    if index is None:
        raise CorruptFileError(f"{path / INDEX} is missing", hint="export the model again")
    try:
        settings = as_hugging_face(stated)
        quant = str(stated["quantization"])
        if quant not in QUANTS:
            raise UnsupportedError(
                f"{path}: weights stored as {quant!r} are not supported",
                hint=f"known: {', '.join(QUANTS)}",
            )
        arch, numbers = numbers_from_hf(settings)
        context = int(stated["context_window_size"])
        if context < 1:
            context = numbers.context
        config = numbers.model_config(arch, context)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{path / NAME} is damaged: {error!r}") from error
    try:
        tensors = _tensors(path, _json(index))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{index} is damaged: {error!r}") from error
    return MlcFolder(
        path=path,
        model_type=str(stated["model_type"]),
        hf_class=hf_class(str(stated["model_type"])),
        # Rows of queries and keys lie as in a checkpoint, whatever a GGUF of the family does.
        config=replace(config, context=context, rope_style=RopeStyle.HALVES),
        quant=QUANTS[quant],
        tensors=tensors,
        metadata=_metadata(stated, arch.name),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise CorruptFileError(f"{path} is damaged: {error}") from error


def _tensors(path: Path, index: Mapping[str, Any]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for shard in index["records"]:
        name, size = str(shard["dataPath"]), _size(shard["nbytes"])
        if shard.get("format", _SHARDS) != _SHARDS or Path(name).name != name:
            raise ValueError(f"{name!r} is no shard")
        file = path / name
        if not file.is_file():
            raise CorruptFileError(f"{file} is missing", hint="export the model again")
        if file.stat().st_size != size:
            raise CorruptFileError(
                f"{file} has {file.stat().st_size} bytes, expected {size}",
                hint="export the model again",
            )
        for record in shard["records"]:
            stored = Stored(
                file=name,
                offset=_size(record["byteOffset"]),
                shape=tuple(map(_size, record["shape"])),
                dtype=str(record["dtype"]),
                halved=record["dtype"] == "float32" and record.get("format") == "f32-to-bf16",
            )
            if stored.nbytes != record["nbytes"] or stored.offset + stored.nbytes > size:
                raise ValueError(f"{record['name']!r} does not lie within {name}")
            found[str(record["name"])] = stored
    return found


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def _metadata(stated: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    found: dict[str, Any] = {"general.architecture": architecture}
    for theirs, ours in _SAMPLING.items():
        value = stated.get(theirs)
        if isinstance(value, (int, float)) and value != 1.0:  # 1 is what the format has for none
            found[ours] = float(value)
    return found
