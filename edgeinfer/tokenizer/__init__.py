"""Text to tokens and back, and conversations to text."""

from __future__ import annotations

import os
from pathlib import Path

from edgeinfer.errors import NotFoundError
from edgeinfer.formats.gguf import GGUFFile, open_gguf
from edgeinfer.tokenizer.base import Tokenizer
from edgeinfer.tokenizer.stream import StreamDecoder
from edgeinfer.tokenizer.template import ChatTemplate

__all__ = ["ChatTemplate", "StreamDecoder", "Tokenizer", "load", "load_tokenizer"]


def load(source: str | os.PathLike[str] | GGUFFile) -> Tokenizer:
    """Loads the tokenizer of a model.

    Args:
        source: an open GGUF, or the path of one (a vocabulary without tensors will do), of
            a Hugging Face folder, or of a tokenizer.json.

    Raises:
        NotFoundError: there is no such file, or no tokenizer in the folder.
        CorruptFileError: the vocabulary contradicts itself.
        UnsupportedError: a tokenizer of a kind that is not known; the message names it.
    """
    from edgeinfer.tokenizer.from_gguf import from_gguf

    if isinstance(source, GGUFFile):
        return from_gguf(source.metadata)
    path = Path(source)
    if not path.exists():
        raise NotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        from edgeinfer.tokenizer.from_json import from_folder

        return from_folder(path)
    if path.suffix == ".json":
        from edgeinfer.tokenizer.from_json import from_json

        return from_json(path)
    with open_gguf(path) as file:
        return from_gguf(file.metadata)


load_tokenizer = load
