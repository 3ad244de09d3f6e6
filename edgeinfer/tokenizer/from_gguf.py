"""A tokenizer from the metadata of a GGUF."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder

from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.tokenizer import encoders, pieces, vocabulary
from edgeinfer.tokenizer.base import Frame, Specials, Tokenizer
from edgeinfer.tokenizer.end_tokens import SYNTAX, end_ids
from edgeinfer.tokenizer.pieces import Pieces
from edgeinfer.tokenizer.pretokenizers import PRETOKENIZERS
from edgeinfer.tokenizer.vocabulary import PREFIX, TokenType, Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of vocabulary: how to build its encoder, and what holds unless said."""

    build: Callable[[Vocabulary], Encoder]
    codec: pieces.Codec
    add_bos: bool = False
    add_eos: bool = False
    spaced: bool = False  # texts begin with a space of the tokenizer's own
    specials: Mapping[str, int] | None = None  # where the file names none


# tokenizer.ggml.model -> what it means
KINDS = {
    "gpt2": Kind(build=encoders.byte_level_bpe, codec=pieces.byte_level),
    "llama": Kind(
        build=encoders.sentencepiece_bpe,
        codec=pieces.sentencepiece,
        add_bos=True,
        spaced=True,
        specials={"bos": 1, "eos": 2, "unknown": 0},
    ),
    # The same by its merges: llama.cpp's own converter calls it so.
    "gemma4": Kind(build=encoders.sentencepiece_bpe, codec=pieces.sentencepiece, add_bos=True),
    "t5": Kind(
        build=encoders.unigram,
        codec=pieces.sentencepiece,
        add_eos=True,
        spaced=True,
        specials={"eos": 1, "unknown": 2},
    ),
    "bert": Kind(
        build=encoders.wordpiece,
        codec=pieces.wordpiece,
        add_bos=True,
        specials={"bos": 101, "unknown": 100, "seperator": 102},
    ),
}


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """Builds the tokenizer that a GGUF describes.

    Raises:
        CorruptFileError: the vocabulary contradicts itself; names the key.
        UnsupportedError: the model or the pre-tokenizer is not known; names it.
    """
    model = metadata.get(PREFIX + "model")
    if isinstance(model, str) and model not in KINDS:
        raise UnsupportedError(
            f"tokenizer {model!r} ('{PREFIX}model') is not known",
            hint=f"known are {', '.join(KINDS)}",
        )
    vocab = vocabulary.read(metadata)
    kind = KINDS[vocab.model]
    return _assemble(vocab, kind, _template(metadata))


def _assemble(vocab: Vocabulary, kind: Kind, template: str | None) -> Tokenizer:
    odd = _odd_types(vocab)
    _check_bytes(vocab, odd)
    specials = {
        name: number for name, number in (kind.specials or {}).items() if number < len(vocab.tokens)
    } | dict(vocab.specials)
    ends = end_ids(_markers(vocab, odd), vocab.specials)
    ends |= {specials["eos"]} if "eos" in specials else set()
    types = _resolved(odd, vocab.ids, ends)
    control = {
        number for number, type_ in types.items() if type_ in (TokenType.CONTROL, TokenType.UNKNOWN)
    }
    added = {number for number, type_ in types.items() if type_ == TokenType.USER_DEFINED}

    rules = encoders.guarded(lambda: kind.build(vocab), "the vocabulary")
    tokens = list(_added_tokens(vocab, control, added))
    frame = _frame(vocab, kind, specials)
    bert = vocab.model == "bert"
    return Tokenizer(
        parsing=encoders.with_added_tokens(rules, tokens, literal=False),
        literal=encoders.with_added_tokens(rules, tokens, literal=True),
        frame=frame,
        pieces=Pieces(
            encoders.wordpiece_texts(vocab) if bert else vocab.tokens,
            kind.codec,
            verbatim=pieces.verbatim(kind.codec, control, added),
            leading_space=bert or (kind.spaced and vocab.flags.get("add_space_prefix", True)),
        ),
        specials=Specials(
            bos=specials.get("bos"),
            eos=specials.get("eos"),
            ends=ends,
            control=frozenset(control),
        ),
        chat_template=template,
        add_bos=bool(frame.before),
    )


def _odd_types(vocab: Vocabulary) -> dict[int, int]:
    """The types of the few tokens that are not normal ones."""
    normal = int(TokenType.NORMAL)  # an enum would be compared a hundred thousand times
    return {number: type_ for number, type_ in enumerate(vocab.types) if type_ != normal}


def _markers(vocab: Vocabulary, odd: Mapping[int, int]) -> dict[str, int]:
    """Tokens that can be markers: by their type or, where files have it wrong, their look.

    Others are text, whatever it looks like: Qwen's "</s>" ends a line struck through.
    """
    tokens = vocab.tokens
    angular = [number for number, text in enumerate(tokens) if text[0] == "<"]
    looks = ("<|", "<｜", "<end_of_")  # noqa: RUF001
    marked = {number for number in angular if tokens[number].startswith(looks)}
    return {tokens[number]: number for number in sorted(marked.union(odd))}


def _check_bytes(vocab: Vocabulary, odd: Mapping[int, int]) -> None:
    for number, type_ in odd.items():
        if type_ == TokenType.BYTE and not pieces.BYTE_TOKEN.fullmatch(vocab.tokens[number]):
            raise CorruptFileError(
                f"key '{PREFIX}tokens': token {number}, {vocab.tokens[number]!r:.40}, is a byte "
                "by its type, but not written as one (<0x0A>)"
            )


def _resolved(
    odd: Mapping[int, int], ids: Mapping[str, int], ends: frozenset[int]
) -> dict[int, int]:
    """Types as they should be: what ends an answer is no text, whatever the file says."""
    return {
        **odd,
        **dict.fromkeys(ends, TokenType.CONTROL),
        **{ids[text]: TokenType.USER_DEFINED for text in SYNTAX if text in ids},
    }


def _added_tokens(vocab: Vocabulary, control: set[int], added: set[int]) -> Iterator[AddedToken]:
    strips = _stripping(vocab)
    for number in sorted(control | added):
        yield AddedToken(
            vocab.tokens[number],
            normalized=False,
            special=number in control,
            lstrip=number in strips["l"],
            rstrip=number in strips["r"],
        )


def _stripping(vocab: Vocabulary) -> Mapping[str, Collection[int]]:
    if vocab.strips is not None:
        return vocab.strips
    # Phi-3 was trained with the white space after its markers removed, which no key says.
    if not any(name in vocab.model_name.lower() for name in ("phi-3", "phi3")):
        return {"l": (), "r": ()}
    keeps = ("<unk>", "<s>", "<|endoftext|>")
    stripping = [n for n, text in enumerate(vocab.tokens) if text not in keeps]
    return {"l": (), "r": frozenset(stripping)}


def _frame(vocab: Vocabulary, kind: Kind, specials: Mapping[str, int]) -> Frame:
    if vocab.model == "bert":
        before = [specials.get("cls", specials.get("bos"))]
        after = [specials.get("seperator")]
        return Frame(
            before=tuple(number for number in before if number is not None),
            after=tuple(number for number in after if number is not None),
        )
    rules = PRETOKENIZERS.get(vocab.pre or "") if vocab.model == "gpt2" else None
    add_bos = vocab.flags.get(
        "add_bos_token", kind.add_bos or (rules is not None and rules.add_bos)
    )
    add_eos = vocab.flags.get("add_eos_token", kind.add_eos)
    for wanted, name in ((add_bos, "bos"), (add_eos, "eos")):
        if wanted and name not in specials:
            raise CorruptFileError(
                f"key '{PREFIX}add_{name}_token' asks for it, but there is no "
                f"'{PREFIX}{name}_token_id'"
            )
    return Frame(
        before=(specials["bos"],) if add_bos else (),
        after=(specials["eos"],) if add_eos else (),
    )


def _template(metadata: Mapping[str, Any]) -> str | None:
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise CorruptFileError("key 'tokenizer.chat_template' is not a text")
    return template
