"""A tokenizer from a tokenizer.json, alone or in a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder

from edgeinfer.errors import CorruptFileError, NotFoundError
from edgeinfer.tokenizer import encoders, folder, pieces
from edgeinfer.tokenizer.base import Frame, Specials, Tokenizer
from edgeinfer.tokenizer.end_tokens import end_ids
from edgeinfer.tokenizer.pieces import Pieces

MOST_TOKENS = 4_000_000


def from_folder(path: Path) -> Tokenizer:
    """Builds the tokenizer of a Hugging Face folder.

    Raises:
        NotFoundError: it holds neither a tokenizer.json nor a tokenizer.model.
        CorruptFileError: a file is not what its name says.
    """
    if (path / "tokenizer.json").is_file():
        return from_json(path / "tokenizer.json")
    if (path / "tokenizer.model").is_file():
        from edgeinfer.tokenizer.from_gguf import from_gguf
        from edgeinfer.tokenizer.sentencepiece_model import folder_metadata

        return from_gguf(folder_metadata(path))
    raise NotFoundError(
        f"{path}: no tokenizer.json and no tokenizer.model in this folder",
        hint="give the folder of a Hugging Face checkpoint, or a GGUF file",
    )


def from_json(path: Path) -> Tokenizer:
    """Builds the tokenizer of a tokenizer.json and of the configs beside it.

    Raises:
        CorruptFileError: the library cannot read it.
    """
    encoder = encoders.guarded(lambda: Encoder.from_file(str(path)), str(path))
    encoder.no_truncation()
    encoder.no_padding()
    vocabulary = encoder.get_vocab(with_added_tokens=True)
    special = folder.special_tokens(path.parent, vocabulary)
    added: dict[int, AddedToken] = encoder.get_added_tokens_decoder()
    control = frozenset(
        {number for number, token in added.items() if token.special} | set(special.ids.values())
    )
    texts = _texts(path, vocabulary)
    codec, leading_space = _codec(encoder)
    bos = special.ids.get("bos")
    frame = None
    if special.add_bos is not None:
        eos = special.ids.get("eos")
        frame = Frame(
            before=(bos,) if special.add_bos and bos is not None else (),
            after=(eos,) if special.add_eos and eos is not None else (),
        )
    return Tokenizer(
        parsing=encoder,
        literal=encoders.with_added_tokens(encoder, _in_order(added), literal=True),
        frame=frame,
        pieces=Pieces(
            texts,
            codec,
            verbatim=pieces.verbatim(codec, control, added.keys()),
            leading_space=leading_space,
        ),
        specials=Specials(
            bos=bos,
            eos=special.ids.get("eos"),
            ends=frozenset(special.ends)
            | end_ids({token.content: number for number, token in added.items()}, {}),
            control=control,
        ),
        chat_template=folder.chat_template(path.parent),
        add_bos=bool(frame.before) if frame else _begins_with(encoder, bos),
    )


def _in_order(added: dict[int, AddedToken]) -> list[AddedToken]:
    return [added[number] for number in sorted(added)]


def _texts(path: Path, vocabulary: dict[str, int]) -> list[str | None]:
    size = max(vocabulary.values(), default=-1) + 1
    if not 0 < size <= MOST_TOKENS:
        raise CorruptFileError(f"{path}: a vocabulary of {size} tokens")
    texts: list[str | None] = [None] * size
    for text, number in vocabulary.items():
        texts[number] = text
    return texts


def _begins_with(encoder: Encoder, bos: int | None) -> bool:
    return bos is not None and encoder.encode("", add_special_tokens=True).ids[:1] == [bos]


def _codec(encoder: Encoder) -> tuple[pieces.Codec, bool]:
    """What a token's text stands for, and whether a text's first space is added."""
    parts = _parts(encoder.decoder)
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return pieces.byte_level, False
    if "WordPiece" in kinds:
        return pieces.wordpiece, True
    if kinds & {"ByteFallback", "Metaspace", "Replace"}:
        strips = any(
            (part["type"] == "Strip" and part.get("start", 0) > 0)
            or (part["type"] == "Metaspace" and part.get("prepend_scheme") != "never")
            for part in parts
        )
        return pieces.sentencepiece, strips
    return pieces.plain, False


def _parts(decoder: Any) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    state: dict[str, Any] = json.loads(decoder.__getstate__())
    parts: list[dict[str, Any]] = state.get("decoders", [state])
    return parts
