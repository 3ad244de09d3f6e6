"""Encoders of the `tokenizers` library for the kinds of vocabulary that a GGUF can hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Encoder

from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.tokenizer.pieces import SPACE
from edgeinfer.tokenizer.pretokenizers import PRETOKENIZERS
from edgeinfer.tokenizer.vocabulary import PREFIX, TokenType, Vocabulary


def byte_level_bpe(vocabulary: Vocabulary) -> Encoder:
    """GPT-2's byte-level BPE, cut into words as ``tokenizer.ggml.pre`` says."""
    pre = vocabulary.pre
    if pre not in PRETOKENIZERS:
        raise UnsupportedError(
            f"pre-tokenizer {pre!r} ('{PREFIX}pre') is not known"
            if pre
            else f"the file names no pre-tokenizer (key '{PREFIX}pre')",
            hint="convert the model again from its original checkpoint",
        )
    if vocabulary.merges is None:
        raise CorruptFileError(f"key '{PREFIX}merges' is missing")
    rules = PRETOKENIZERS[pre]
    encoder = Encoder(
        models.BPE(
            vocab=vocabulary.ids,
            merges=vocabulary.merges,
            ignore_merges=rules.ignore_merges,
        )
    )
    if rules.nfc:
        encoder.normalizer = normalizers.NFC()
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(split), "isolated") for split in rules.splits),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    encoder.decoder = decoders.ByteLevel()
    return encoder


def sentencepiece_bpe(vocabulary: Vocabulary) -> Encoder:
    """SentencePiece's BPE: the pair whose token has the best score is merged first.

    The library ranks pairs, not tokens, so every way to write a token as two becomes a
    pair of that token's rank (as transformers converts such models).
    """
    if vocabulary.scores is None:
        raise CorruptFileError(f"key '{PREFIX}scores' is missing")
    unknown = vocabulary.specials.get("unknown", 0)
    encoder = Encoder(
        models.BPE(
            vocab=vocabulary.ids,
            # The pairs themselves are there if the model never had scores.
            merges=vocabulary.merges or _merges_of_scores(vocabulary, vocabulary.scores),
            unk_token=vocabulary.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    first_only = _prefixes_space(vocabulary) and vocabulary.prefix_first_only
    everywhere = _prefixes_space(vocabulary) and not vocabulary.prefix_first_only
    encoder.normalizer = normalizers.Sequence(
        [
            *_cleaning(vocabulary),
            *([normalizers.Prepend(SPACE)] if everywhere else []),
            normalizers.Replace(" ", SPACE),
        ]
    )
    if first_only:
        encoder.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=SPACE, prepend_scheme="first", split=False
        )
    return encoder


def _merges_of_scores(vocabulary: Vocabulary, scores: list[float]) -> list[tuple[str, str]]:
    ids = vocabulary.ids
    # Text never merges into a control or a byte token.
    mergeable = {TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED}
    ranked = sorted(
        (
            number
            for number, type_ in enumerate(vocabulary.types)
            if type_ in mergeable and len(vocabulary.tokens[number]) > 1
        ),
        key=lambda number: -scores[number],
    )
    merges = []
    for number in ranked:
        text = vocabulary.tokens[number]
        pairs = [
            (text[:at], text[at:])
            for at in range(1, len(text))
            if text[:at] in ids and text[at:] in ids
        ]
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        merges += pairs
    return merges


def _prefixes_space(vocabulary: Vocabulary) -> bool:
    return vocabulary.flags.get("add_space_prefix", True)


def _cleaning(vocabulary: Vocabulary) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if vocabulary.charsmap:
        steps.append(normalizers.Precompiled(vocabulary.charsmap))
    if vocabulary.flags.get("remove_extra_whitespaces", False):
        steps.append(normalizers.Replace(Regex("^ +| +$"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    return steps


def unigram(vocabulary: Vocabulary) -> Encoder:
    """SentencePiece's unigram model: the likeliest way to cut a text (Kudo 2018, arXiv:1804.10959).

    Words are cut apart, each with the space before it; where extra white space is not removed, it
    stays with them.
    """
    if vocabulary.scores is None:
        raise CorruptFileError(f"key '{PREFIX}scores' is missing")
    encoder = Encoder(
        models.Unigram(
            list(zip(vocabulary.tokens, vocabulary.scores, strict=True)),
            unk_id=vocabulary.specials.get("unknown", 2),
            byte_fallback=TokenType.BYTE in vocabulary.types,
        )
    )
    if vocabulary.charsmap:
        encoder.normalizer = normalizers.Precompiled(vocabulary.charsmap)
    words = pre_tokenizers.Metaspace(
        replacement=SPACE, prepend_scheme="always" if _prefixes_space(vocabulary) else "never"
    )
    removes = vocabulary.flags.get("remove_extra_whitespaces", False)
    encoder.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words]) if removes else words
    )
    return encoder


def wordpiece(vocabulary: Vocabulary) -> Encoder:
    """BERT's WordPiece. A GGUF marks the tokens that begin a word, BERT the others."""
    unknown = vocabulary.tokens[vocabulary.specials.get("unknown", 0)]
    encoder = Encoder(
        models.WordPiece(
            vocab={text: number for number, text in enumerate(wordpiece_texts(vocabulary))},
            unk_token=unknown,
            max_input_chars_per_word=100,
        )
    )
    lowercase = vocabulary.flags.get("normalizer.lowercase", True)
    encoder.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase,
        strip_accents=vocabulary.flags.get("normalizer.strip_accents", lowercase),
    )
    encoder.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return encoder


def wordpiece_texts(vocabulary: Vocabulary) -> list[str]:
    """Returns the tokens as BERT's own vocabulary writes them: ``##`` on continuations."""
    return [
        text
        if type_ == TokenType.CONTROL or (text.startswith("[") and text.endswith("]"))
        else text[1:]
        if text.startswith(SPACE) and len(text) > 1
        else f"##{text}"
        for text, type_ in zip(vocabulary.tokens, vocabulary.types, strict=True)
    ]


def with_added_tokens(encoder: Encoder, added: Iterable[AddedToken], *, literal: bool) -> Encoder:
    """Returns an encoder of the same model and rules that looks for added tokens first.

    Args:
        encoder: shares its model, which is not copied.
        added: tokens to look for in the text before it is cut into words.
        literal: leaves the special ones among them to be encoded as text.
    """
    both = Encoder(encoder.model)
    if encoder.normalizer is not None:
        both.normalizer = encoder.normalizer
    if encoder.pre_tokenizer is not None:
        both.pre_tokenizer = encoder.pre_tokenizer
    if encoder.post_processor is not None:
        both.post_processor = encoder.post_processor
    tokens = list(added)
    both.add_tokens(tokens)
    both.encode_special_tokens = literal
    if literal and isinstance(encoder.model, models.Unigram):
        _cut_apart(both, [token.content for token in tokens if token.special])
    return both


def _cut_apart(encoder: Encoder, texts: Iterable[str]) -> None:
    """Keeps the model, which knows the texts of special tokens, from making tokens of them.

    A byte-pair model has no merges that lead there; a unigram model would take them whole.
    """
    patterns = [f"{re.escape(text[0])}(?={re.escape(text[1:])})" for text in texts if text[1:]]
    if patterns:
        cut = pre_tokenizers.Split(Regex("|".join(patterns)), "merged_with_previous")
        encoder.pre_tokenizer = pre_tokenizers.Sequence(
            [*([encoder.pre_tokenizer] if encoder.pre_tokenizer else []), cut]
        )


def guarded(build: Callable[[], Encoder], what: str) -> Encoder:
    """Runs a construction in the library, whose errors are of no type in particular.

    Raises:
        CorruptFileError: the library refused, or panicked over, what it was given.
    """
    from edgeinfer.errors import EdgeInferError

    try:
        return build()
    except EdgeInferError:
        raise
    except Exception as error:
        raise CorruptFileError(f"{what} cannot be used: {error}") from error
    except BaseException as error:
        # A panic of the Rust library is no Exception, but a file can cause one.
        if type(error).__name__ != "PanicException":
            raise
        raise CorruptFileError(f"{what} cannot be used: {error}") from None
