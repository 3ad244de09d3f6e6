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


def write_unigram(folder: Path) -> None:
    """Writes a small tokenizer of XLM-RoBERTa's kind, as transformers makes it of SentencePiece."""
    import io

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    lines = [
        "the cat sat on the mat, the other cat on the rat: is it a Katze? Wo ist sie?",
        "caf\u00e9 na\u00efve \ufb01ne \uff21\uff22 100 % \u4eca\u65e5\u306f \u043f\u0440\u0438",
    ]
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 8),
        model_writer=trained,
        model_type="unigram",
        vocab_size=90,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    proto = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    pieces = [(proto.IdToPiece(n), proto.GetScore(n)) for n in range(3, proto.vocab_size())]
    model = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = [*((text, 0.0) for text in special), *pieces, ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([*special, "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "unk": "<unk>"}
    names |= {"pad": "<pad>", "mask": "<mask>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "XLMRobertaTokenizer",
                **{f"{name}_token": text for name, text in names.items()},
            }
        )
    )
