"""The tokenizers of tiny models, trained on a few lines."""

from __future__ import annotations

import json
from pathlib import Path


def write_tokenizer(folder: Path) -> None:
    """Writes a small byte-level BPE tokenizer, trained on a few lines, with a template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    lines = ["the cat sat on the mat, the other cat on the rat"] * 4
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "GPT2TokenizerFast",
                "bos_token": "<|endoftext|>",
                "eos_token": "<|im_end|>",
                "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n"
                "{{ m.content }}<|im_end|>\n{% endfor %}",
            }
        )
    )


def write_wordpiece(folder: Path) -> None:
    """Writes a small tokenizer of BERT's kind, which lowers case and strips accents."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer()
    lines = ["the cat sat on the mat, the other cat on the rat: is it a Katze? Wo ist sie?"] * 4
    tokenizer.train_from_iterator(lines, vocab_size=200, min_frequency=1, show_progress=False)
    tokenizer.enable_truncation(8)  # which published files have, and which is not for us to obey
    tokenizer.enable_padding(length=8)
    cls, sep = (tokenizer.token_to_id(text) for text in ("[CLS]", "[SEP]"))
    state = json.loads(tokenizer.to_str())
    state["post_processor"] = {
        "type": "BertProcessing",
        "sep": ["[SEP]", sep],
        "cls": ["[CLS]", cls],
    }
    (folder / "tokenizer.json").write_text(json.dumps(state))
    names = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "BertTokenizerFast",
                **{f"{name}_token": text for name, text in names.items()},
            }
        )
    )
