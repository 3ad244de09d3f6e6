"""The tokenizer of an exported folder: the checkpoint's own files, or made from a GGUF's keys."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Encoder
from tokenizers import processors

from edgeinfer.tokenizer import Tokenizer, load_tokenizer
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.text_decoder import text_decoder

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


def write_tokenizer(source: HuggingFaceSource | GgufSource, folder: Path) -> TokenIds:
    """Writes a tokenizer.json and the small files beside it.

    Raises:
        NotFoundError: the checkpoint has no tokenizer.
        CorruptFileError: the vocabulary contradicts itself.
        UnsupportedError: a tokenizer of a kind that is not known.
    """
    if isinstance(source, GgufSource):
        tokenizer = load_tokenizer(source.gguf)
        write_made(tokenizer, folder)
    else:
        tokenizer = load_tokenizer(source.path)
        for name in _COPIED:
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, folder / name)
        if not (folder / "tokenizer.json").is_file():
            write_made(tokenizer, folder)
    first = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    ends = tuple(dict.fromkeys([*first, *sorted(tokenizer.eos_ids)]))
    return TokenIds(bos=tokenizer.bos_id, ends=ends)


def write_made(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a tokenizer that was built from a GGUF's keys, which is changed for it."""
    encoder = tokenizer.parsing  # ours alone: it was loaded for this
    encoder.decoder = text_decoder(tokenizer)
    _frame(encoder, tokenizer)
    encoder.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, number in (("bos", tokenizer.bos_id), ("eos", tokenizer.eos_id)):
        if number is not None:
            config[f"{name}_token"] = tokenizer.token_text(number)
    if tokenizer.frame is not None:
        config["add_bos_token"] = bool(tokenizer.frame.before)
        config["add_eos_token"] = bool(tokenizer.frame.after)
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    _write(folder / "tokenizer_config.json", config)
    ends = sorted(tokenizer.eos_ids)
    if ends:
        _write(folder / "generation_config.json", {"eos_token_id": ends})


def _frame(encoder: Encoder, tokenizer: Tokenizer) -> None:
    """Makes the encoder itself put the tokens around a text."""
    frame = tokenizer.frame
    if frame is None or not (frame.before or frame.after):
        return
    names = {number: tokenizer.token_text(number) for number in (*frame.before, *frame.after)}
    before, after = ([names[number] for number in ids] for ids in (frame.before, frame.after))
    encoder.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *before, "$B", *after],
        special_tokens=[(text, number) for number, text in names.items()],
    )


def _write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
