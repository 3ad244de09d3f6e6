"""How each named pre-tokenizer cuts text into words before byte-level BPE.

A GGUF names its pre-tokenizer (``tokenizer.ggml.pre``) and holds no more of it, so the
name must be known here: a wrong guess gives other tokens, and no error. The patterns
are those of the vendors' tokenizer.json where the two differ from llama.cpp's.
"""

from __future__ import annotations

from dataclasses import dataclass

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PUNCTUATION_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
DIGITS = r"\p{N}+"
THREE_DIGITS = r"[0-9][0-9][0-9]"
CL100K = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_PUNCTUATION_AND_SPACE}"
QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_PUNCTUATION_AND_SPACE}"
QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
SEED = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}"
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# CJK from the first unified ideograph, with kana and the old range of compatibility forms.
_DEEPSEEK_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretokenizer:
    """What a pre-tokenizer's name stands for.

    ``splits`` are applied one after the other: each cuts its matches out of the pieces
    that those before it left. ``ignore_merges`` takes a word that is a token as it is.
    """

    splits: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False
    add_bos: bool = False


_GPT2 = Pretokenizer(splits=(GPT2,))
_GPT2_NFC = Pretokenizer(splits=(GPT2,), nfc=True)
_STARCODER = Pretokenizer(splits=(DIGIT, GPT2))
_LLAMA3 = Pretokenizer(splits=(CL100K,), ignore_merges=True, add_bos=True)
_CL100K = Pretokenizer(splits=(CL100K,))
_QWEN2 = Pretokenizer(splits=(QWEN2,), nfc=True)
_O200K = Pretokenizer(splits=(O200K,))
_DEEPSEEK3 = Pretokenizer(
    splits=(r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK_V3)
)

# The order matters to the converter: of two names that mean the same, the first is written.
PRETOKENIZERS: dict[str, Pretokenizer] = {
    "gpt-2": _GPT2,
    "phi-2": _GPT2,
    "mellum": _GPT2,
    "modern-bert": _GPT2,
    "exaone4": _GPT2,
    "trillion": _GPT2,
    "granite-docling": _GPT2,
    "jais": _GPT2,
    "olmo": _GPT2_NFC,
    "mpt": _GPT2_NFC,
    "smollm": _STARCODER,
    "refact": _STARCODER,
    "starcoder": _STARCODER,
    "codeshell": _STARCODER,
    "exaone": _STARCODER,
    "minerva-7b": _STARCODER,
    "command-r": Pretokenizer(splits=(DIGIT, GPT2), nfc=True),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "falcon-h1": _LLAMA3,
    "pixtral": _LLAMA3,
    "lfm2": _LLAMA3,
    "dbrx": _CL100K,
    "smaug-bpe": _CL100K,
    "chatglm-bpe": _CL100K,
    "glm4": _CL100K,
    "qwen2": _QWEN2,
    "megrez": _QWEN2,
    "qwen35": Pretokenizer(splits=(QWEN35,), nfc=True),
    "deepseek-r1-qwen": Pretokenizer(splits=(QWEN2,)),
    "stablelm2": Pretokenizer(splits=(QWEN2,)),
    "hunyuan": Pretokenizer(splits=(QWEN2,)),
    "gpt-4o": _O200K,
    "llama4": _O200K,
    "tekken": Pretokenizer(splits=(TEKKEN,), ignore_merges=True, add_bos=True),
    "deepseek-coder": Pretokenizer(
        splits=("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, DIGIT)
    ),
    "deepseek-v3": _DEEPSEEK3,
    "hunyuan-dense": _DEEPSEEK3,
    "falcon": Pretokenizer(splits=(r"[\p{P}\$\+<=>\^~\|`]+", GPT2, THREE_DIGITS)),
    "bloom": Pretokenizer(splits=(_BLOOM,)),
    "gpt3-finnish": Pretokenizer(splits=(_BLOOM,)),
    "poro-chat": Pretokenizer(splits=(_BLOOM,)),
    "viking": Pretokenizer(splits=(_BLOOM, DIGIT)),
    "bailingmoe": Pretokenizer(splits=(BAILING,)),
    "seed-coder": Pretokenizer(splits=(SEED,)),
    # Written by converters that knew no better; its meaning is fixed all the same.
    "default": Pretokenizer(splits=(r"[\p{P}\$\+<=>\^~\|]+", GPT2, DIGITS, THREE_DIGITS)),
}
