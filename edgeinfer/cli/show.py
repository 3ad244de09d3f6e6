"""``edgeinfer show``: what a model is, from its header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeinfer.cli import ui
from edgeinfer.errors import NotFoundError

if TYPE_CHECKING:
    from edgeinfer.store import StoredModel

_FOLDERS = ("onnx", "mlc")  # formats of exported folders
_TEMPLATE_LINES = 4  # shown without --template


@click.command()
@click.argument("model")
@click.option("--template", is_flag=True, help="Print the whole chat template, nothing else.")
@click.option("--offline", is_flag=True, help="Never ask the network.")
@click.option("--json", "as_json", is_flag=True, help="Print a record.")
def command(model: str, template: bool, offline: bool, as_json: bool) -> None:
    """Show what MODEL is: architecture, size, quant types, tokenizer, chat template."""
    from edgeinfer.cli._fetch import fetch, fetch_gguf

    found = fetch(model, offline=offline)
    if found.format in _FOLDERS:
        record = _folder_record(found)
    else:
        record = _record(fetch_gguf(model, offline=offline))
    source = record["chat_template"]
    if template:
        if source is None:
            raise NotFoundError(f"{model} has no chat template")
        ui.emit(str(source))
    elif as_json:
        ui.emit_json(record)
    else:
        _print(record)


def _record(found: StoredModel) -> dict[str, object]:
    """What the header says."""
    from math import prod

    from edgeinfer.formats.gguf import open_gguf
    from edgeinfer.planner.quant_name import quant_name, weight_types

    with open_gguf(found.path) as model:
        metadata, tensors = model.metadata, model.tensors
    arch = str(metadata.get("general.architecture", ""))
    tokens = metadata.get("tokenizer.ggml.tokens")
    return found.to_json() | {
        "name": metadata.get("general.name"),
        "architecture": arch,
        "parameters": sum(prod(tensor.shape) for tensor in tensors.values()),
        "context": metadata.get(f"{arch}.context_length"),
        "layers": metadata.get(f"{arch}.block_count"),
        "width": metadata.get(f"{arch}.embedding_length"),
        "quant": quant_name(metadata, tensors) if tensors else found.quant,
        "weight_types": weight_types(tensors),
        "packed_bytes": _packed_bytes(weight_types(tensors)),
        "tokenizer": metadata.get("tokenizer.ggml.model"),
        "pre_tokenizer": metadata.get("tokenizer.ggml.pre"),
        "vocabulary": len(tokens) if isinstance(tokens, list) else None,
        "licence": found.licence or metadata.get("general.license"),
        "chat_template": metadata.get("tokenizer.chat_template"),
    }


def _packed_bytes(types: dict[str, int]) -> int | None:
    """What matrices of so many weights a type take in the engine's memory; None if it has not all.

    It keeps some types in another form than the file.
    """
    from edgeinfer.quant import all_types

    packed = {kind.name: kind.packed_bytes / kind.block for kind in all_types()}
    if not types.keys() <= packed.keys():
        return None
    return round(sum(packed[name] * count for name, count in types.items()))


def _folder_record(found: StoredModel) -> dict[str, object]:
    """What an exported folder says of itself."""
    from collections import Counter
    from math import prod

    from edgeinfer.formats import onnx_folder
    from edgeinfer.planner.outline import Outline
    from edgeinfer.runtime.opened import opened
    from edgeinfer.tokenizer import load_tokenizer

    types: Counter[str] = Counter()
    with opened(found) as model:
        outline, metadata = model.header, model.metadata
        tokenizer = load_tokenizer(model.tokenizer)
    assert isinstance(outline, Outline)
    if found.format == "onnx":
        for kind, shape in onnx_folder.read(found.path).matrices.values():
            types[kind] += prod(shape)
    config = outline.config
    return found.to_json() | {
        "name": metadata.get("general.name"),
        "architecture": config.architecture,
        "parameters": outline.parameters,
        "context": config.context,
        "layers": config.layers,
        "width": config.width,
        "quant": outline.quant,
        "weight_types": dict(types.most_common()),
        "cache_type": outline.kv_type or None,
        "tokenizer": "tokenizer.json",
        "pre_tokenizer": None,
        "vocabulary": tokenizer.vocab_size,
        "licence": found.licence or metadata.get("general.license"),
        "chat_template": tokenizer.chat_template,
    }


def _print(record: dict[str, object]) -> None:
    types = record["weight_types"]
    assert isinstance(types, dict)
    total = sum(types.values()) or 1
    mix = ", ".join(f"{kind} {count / total:.0%}" for kind, count in types.items())
    tokenizer = " ".join(str(record[k]) for k in ("tokenizer", "pre_tokenizer") if record[k])
    count, packed = record["bytes"], record.get("packed_bytes")
    assert isinstance(count, int) and (packed is None or isinstance(packed, int))
    rows = [
        ("name", record["name"]),
        ("reference", record["reference"]),
        ("path", record["path"]),
        ("size", ui.format_bytes(count)),
        # Else the file is the better figure: vectors and what is only looked up count, too.
        ("in memory", ui.format_bytes(packed) if packed and packed > count else None),
        ("architecture", record["architecture"]),
        ("parameters", f"{record['parameters']:,}"),
        ("quant", f"{record['quant']} ({mix})" if mix else record["quant"]),
        ("cache", record.get("cache_type")),
        ("context", record["context"]),
        ("layers", record["layers"]),
        ("width", record["width"]),
        ("tokenizer", f"{tokenizer}, {record['vocabulary']} tokens" if tokenizer else None),
        ("licence", record["licence"]),
    ]
    for name, value in rows:
        if value is not None:
            ui.emit(f"{name:12}  {value}")
    if record["chat_template"] is not None:
        lines = str(record["chat_template"]).splitlines()
        ui.emit("chat template")
        for line in lines[:_TEMPLATE_LINES]:
            ui.emit(f"  {line}")
        if len(lines) > _TEMPLATE_LINES:
            ui.emit(f"  ... {len(lines) - _TEMPLATE_LINES} more lines, with --template")
