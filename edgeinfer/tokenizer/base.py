"""The tokenizer that the rest of edgeinfer sees, whatever file it came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tokenizers import Tokenizer as Encoder

from edgeinfer.errors import UsageError
from edgeinfer.tokenizer.pieces import Pieces
from edgeinfer.tokenizer.stream import StreamDecoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Specials:
    """The ids with a meaning of their own.

    ``ends`` are all that end a generation; ``control`` those that ``skip_special`` skips.
    """

    bos: int | None = None
    eos: int | None = None
    ends: frozenset[int] = frozenset()
    control: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What ``add_special`` puts before and after a text; None leaves it to the encoder."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """Text to ids and back. Immutable, and safe to share between threads.

    Attributes:
        parsing: encodes special tokens in the text as what they are.
        literal: encodes them as the characters they are written with.
        frame: ids around a text, or None where the encoders add them.
        pieces: the bytes of each id.
        specials: the ids with a meaning.
        chat_template: the source of the chat template that came with it, or None.
        add_bos: whether ``encode`` begins with ``bos_id``.
    """

    parsing: Encoder = field(repr=False)
    literal: Encoder = field(repr=False)
    frame: Frame | None
    pieces: Pieces = field(repr=False)
    specials: Specials = field(repr=False)
    chat_template: str | None = field(repr=False)
    add_bos: bool

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return len(self.pieces.texts)

    def padded(self, size: int) -> Tokenizer:
        """Returns one with ids up to ``size``; those added stand for no text."""
        return self if size <= self.vocab_size else replace(self, pieces=self.pieces.padded(size))

    @property
    def bos_id(self) -> int | None:
        """The id that begins a sequence."""
        return self.specials.bos

    @property
    def eos_id(self) -> int | None:
        """The id that the file says ends a sequence; see ``eos_ids``."""
        return self.specials.eos

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends a generation: end of text, of turn, of message."""
        return self.specials.ends

    def encode(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Returns the ids of a text.

        Args:
            text: any Unicode text.
            add_special: whether to add what the model wants around it (usually ``bos_id``).
            parse_special: whether ``"<|im_end|>"`` in the text is that token, or nine
                characters; a text from a user should be the latter.

        Raises:
            UsageError: the text has half of a surrogate pair.
        """
        encoder = self.parsing if parse_special else self.literal
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the text has a lone surrogate at character {error.start}") from None
        frame = self.frame
        if frame is None:
            return list(encoder.encode(text, add_special_tokens=add_special).ids)
        ids = list(encoder.encode(text, add_special_tokens=False).ids)
        return [*frame.before, *ids, *frame.after] if add_special else ids

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Returns the text of ids; bytes that are no UTF-8 become U+FFFD.

        Raises:
            UsageError: an id is not in the vocabulary.
        """
        octets = self._skipping if skip_special else self.token_bytes
        text = b"".join(map(octets, ids)).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self.pieces.leading_space else text

    def stream(self, *, skip_special: bool = False, continues: bool = False) -> StreamDecoder:
        """Returns a decoder that takes ids one by one.

        Args:
            skip_special: leaves control tokens out.
            continues: the ids go on from earlier ones, so that a leading space is a
                space of the text.
        """
        return StreamDecoder(
            self._skipping if skip_special else self.token_bytes,
            drop_leading_space=self.pieces.leading_space and not continues,
        )

    def token_bytes(self, number: int) -> bytes:
        """Returns the bytes that a token stands for; they need not be whole characters."""
        self._check(number)
        return self.pieces.octets(number)

    def token_text(self, number: int) -> str:
        """Returns a token as the vocabulary writes it, such as ``Ġthe`` or ``▁the``."""
        self._check(number)
        return self.pieces.texts[number] or ""

    def is_special(self, number: int) -> bool:
        """Says whether a token is a control token, not text."""
        self._check(number)
        return number in self.specials.control

    def _skipping(self, number: int) -> bytes:
        return b"" if self.is_special(number) else self.pieces.octets(number)

    def _check(self, number: int) -> None:
        if not 0 <= number < len(self.pieces.texts):
            raise UsageError(f"token {number} is not in the vocabulary of {len(self.pieces.texts)}")
