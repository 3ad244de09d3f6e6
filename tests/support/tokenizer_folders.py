"""Hugging Face folders with small tokenizers, configured exactly as the families' own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from support.unicode_text import random_texts

# As the vendors' tokenizer.json has them; written out, since edgeinfer's own are on trial.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A tokenizer: how it cuts text, and its special tokens."""

    build: Callable[[], Tokenizer]
    specials: tuple[str, ...]
    bos: str | None = None
    eos: str
    rstrip: bool = False
    adds_bos: bool = False
    added: tuple[str, ...] = ()  # not special
    config: dict[str, Any] = field(default_factory=dict)


def corpus() -> list[str]:
    return ["Once upon a time there was a little house in the woods."] * 4 + random_texts(
        800, seed=7
    )


def byte_level(
    *splits: pre_tokenizers.PreTokenizer,
    nfc: bool = False,
    ignore_merges: bool = False,
    use_regex: bool = False,
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def train_sentencepiece(**options: Any) -> bytes:
    """Returns a BPE model with bytes, trained as Llama's was."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        **{
            "sentence_iterator": iter(corpus()),
            "model_writer": out,
            "model_type": "bpe",
            "vocab_size": 3000,
            "character_coverage": 0.98,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "split_digits": True,
            "allow_whitespace_only_pieces": True,
            "minloglevel": 2,
            **options,
        }
    )
    return out.getvalue()


def sentencepiece_bpe(*, prefix: str, **options: Any) -> Tokenizer:
    """A SentencePiece model as transformers converts it.

    Args:
        prefix: "normalizer" (Llama 2, Phi 3), "metaspace" (Mistral), "none" (Gemma).
        options: of the training.
    """
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=train_sentencepiece(**options))
    size = model.get_piece_size()
    vocab = {model.id_to_piece(number): number for number in range(size)}
    ranked = sorted(vocab, key=lambda text: -model.get_score(vocab[text]))
    merges = [
        (text[:at], text[at:])
        for text in ranked
        if not model.is_byte(vocab[text]) and not model.is_control(vocab[text])
        for at in range(1, len(text))
        if text[:at] in vocab and text[at:] in vocab
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    replace = normalizers.Replace(" ", "▁")
    strip = [decoders.Strip(" ", 1, 0)]
    if prefix == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif prefix == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    else:
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        strip = []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|user|>")

FAMILIES: dict[str, Family] = {
    "llama2": Family(
        build=lambda: sentencepiece_bpe(prefix="normalizer"),
        specials=("<s>", "</s>"),
        bos="<s>",
        eos="</s>",
        adds_bos=True,
    ),
    "mistral": Family(
        build=lambda: sentencepiece_bpe(prefix="metaspace"),
        specials=("<s>", "</s>", "[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
        adds_bos=True,
    ),
    "mistral-nemo": Family(
        build=lambda: byte_level(split(TEKKEN), ignore_merges=True),
        specials=("<s>", "</s>", "[INST]"),
        bos="<s>",
        eos="</s>",
        adds_bos=True,
    ),
    "gemma": Family(
        build=lambda: sentencepiece_bpe(prefix="none", bos_piece="<bos>", eos_piece="<eos>"),
        specials=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        adds_bos=True,
        added=("<unused0>", "▁▁▁", "\n\n"),
    ),
    "phi3": Family(
        build=lambda: sentencepiece_bpe(prefix="normalizer"),
        specials=("<s>", "</s>", "<|endoftext|>", "<|user|>", "<|end|>"),
        bos="<s>",
        eos="<|endoftext|>",
        rstrip=True,
        config={"add_bos_token": False},
    ),
    "llama3": Family(
        build=lambda: byte_level(split(LLAMA3), ignore_merges=True),
        specials=_LLAMA3,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        adds_bos=True,
    ),
    "smollm3": Family(
        build=lambda: byte_level(split(LLAMA3), ignore_merges=True),
        specials=(*_LLAMA3, "<|im_end|>"),
        bos="<|begin_of_text|>",
        eos="<|im_end|>",
        added=("<think>", "</think>"),
    ),
    "olmo2": Family(
        build=lambda: byte_level(split(LLAMA3)),
        specials=_CHATML,
        eos="<|endoftext|>",
    ),
    "qwen2": Family(
        build=lambda: byte_level(split(QWEN2), nfc=True), specials=_CHATML, eos="<|im_end|>"
    ),
    "qwen3": Family(
        build=lambda: byte_level(split(QWEN2), nfc=True),
        specials=_CHATML,
        eos="<|im_end|>",
        added=("<think>", "</think>", "<tool_call>"),
        config={"add_bos_token": False},
    ),
    "smollm2": Family(
        build=lambda: byte_level(pre_tokenizers.Digits(True), use_regex=True),
        specials=_CHATML,
        bos="<|im_start|>",
        eos="<|im_end|>",
    ),
    "granite": Family(
        build=lambda: byte_level(pre_tokenizers.Digits(individual_digits=True), use_regex=True),
        specials=("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        bos="<|end_of_text|>",
        eos="<|end_of_text|>",
    ),
    "gpt2": Family(
        build=lambda: byte_level(use_regex=True), specials=("<|endoftext|>",), eos="<|endoftext|>"
    ),
}


def write_folder(folder: Path, name: str, *, padding: int = 0) -> Path:
    """Writes a family's folder: tokenizer.json, tokenizer_config.json and config.json."""
    family = FAMILIES[name]
    tokenizer = family.build()
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, rstrip=family.rstrip) for text in family.specials]
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in family.added])
    if family.adds_bos and family.bos:
        number = tokenizer.token_to_id(family.bos)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, number)]
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": family.eos}
    config |= {"bos_token": family.bos, **family.config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    size = tokenizer.get_vocab_size() + padding
    (folder / "config.json").write_text(json.dumps({"vocab_size": size}))
    return folder
