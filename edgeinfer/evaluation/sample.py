"""Short texts of our own, to tell how far two ways to run a model are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeinfer.evaluation.chunks import Chunks, chunked

if TYPE_CHECKING:
    from edgeinfer.tokenizer import Tokenizer

MOST = 128  # tokens
TEXT = (
    "The harbour wakes before the town does. Boats come in with the first light, and the men "
    "on the quay count the boxes twice, once for the buyer and once for the tax. By seven the "
    "ice is gone and the gulls have eaten what fell. A woman from the bakery brings bread and "
    "takes two mackerel for it, as her mother did. Nobody writes this down. At noon the ferry "
    "leaves for the island with post, cement and three children who go to school there, and "
    "when the wind turns north it comes back late, with the cement still on board."
)

# What tokenizers differ in: scripts, accents, digits, spaces, lines, code, names of special tokens.
VERIFIED_TEXTS = (
    TEXT,
    "Grüße aus Köln, señor Núñez; ça va? Dvořák naïvely ate 12,345.67 pierogi on 2024-02-29.",
    "Съешь ещё этих мягких французских булок, да выпей чаю. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "いろはにほへと ちりぬるを。天地玄黃、宇宙洪荒。다람쥐 헌 쳇바퀴에 타고파.",
    "نص حكيم له سر قاطع. दुनिया गोल है। עטלף אבק נס דרך מזגן",
    "def f(x):\n\treturn [i**2 for i in range(x) if i % 3 == 0]  # squares\r\n\n\n    pass",
    "I'm you're WE'LL  two   three    four\u00a0nbsp \u2028 e\u0301 \U0001f469\u200d\U0001f4bb",
    " leading and trailing <s></s><|im_start|>user<|im_end|><|endoftext|><bos>[INST] ",
)


def sample(tokenizer: Tokenizer, context: int) -> Chunks:
    """The text as one chunk, or as much as the context holds."""
    tokens = tokenizer.encode(TEXT)
    return chunked(tokens, context=min(MOST, context, len(tokens)), limit=1)
