"""The tokenizer of an exported folder: the checkpoint's own files, or made from a GGUF's keys."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.tokenizer import Tokenizer, load_tokenizer
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.made_tokenizer import write_made

_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """The ids that genai_config.json names."""

    bos: int | None
    ends: tuple[int, ...]


def tokenizer_of(source: HuggingFaceSource | GgufSource) -> Tokenizer:
    """Loads a source's tokenizer; the errors are those of ``load_tokenizer``."""
    return load_tokenizer(source.gguf if isinstance(source, GgufSource) else source.path)


def write_tokenizer(
    source: HuggingFaceSource | GgufSource, tokenizer: Tokenizer, folder: Path
) -> TokenIds:
    """Writes a tokenizer.json and the small files beside it; the tokenizer is changed for it."""
    if isinstance(source, GgufSource):
        write_made(tokenizer, folder)
    else:
        for name in _COPIED:
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, folder / name)
        if not (folder / "tokenizer.json").is_file():
            write_made(tokenizer, folder)
    first = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    ends = tuple(dict.fromkeys([*first, *sorted(tokenizer.eos_ids)]))
    return TokenIds(bos=tokenizer.bos_id, ends=ends)
