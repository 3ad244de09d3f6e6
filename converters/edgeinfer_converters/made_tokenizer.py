"""The files of a tokenizer, as a Hugging Face folder has them, made from a GGUF's keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Encoder
from tokenizers import processors

from edgeinfer.tokenizer import Tokenizer
from edgeinfer_converters.text_decoder import text_decoder


def write_made(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a tokenizer that was built from a GGUF's keys, which is changed for it.

    tokenizer.json, tokenizer_config.json, and generation_config.json if texts end.
    """
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
