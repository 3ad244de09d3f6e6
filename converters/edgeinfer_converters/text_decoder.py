"""What turns tokens into text in a tokenizer.json that is made from a GGUF's vocabulary."""

from __future__ import annotations

from typing import Any

from tokenizers import decoders

from edgeinfer.tokenizer import Tokenizer
from edgeinfer.tokenizer.pieces import SPACE, byte_level


def text_decoder(tokenizer: Tokenizer) -> Any:
    """Returns a decoder of the `tokenizers` library; ours works on bytes instead."""
    if tokenizer.pieces.codec is byte_level:
        return decoders.ByteLevel()
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if tokenizer.pieces.leading_space:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)
