"""What guessing tokens ahead brings, and what it costs where nothing can be guessed.

    python benchmarks/speculation.py MODEL... [--tokens 192] [--rounds 5]

Each text is generated without guesses (``speculate="off"``) and by default, in turns; the ratio is
that of the speeds of one round, with the least and the most of all rounds. The tokens must be the
same ones. Three prompts repeat themselves, and a model goes on in their way (one with random
weights goes round in circles of its own); the answer to a question is ordinary text.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record

import edgeinfer

LINES = "".join(
    f"{number}. {line}\n"
    for number, line in enumerate(
        [
            "Measure the flour and the sugar.",
            "Beat four eggs until they are pale.",
            "Melt the butter over a low heat.",
            "Fold everything together with a spoon.",
            "Pour it into a tin lined with paper.",
            "Bake it for forty minutes, then let it cool.",
        ],
        1,
    )
)
QUESTION = "Why does the sea look blue, and why is it grey on some days?\n\n"
COLUMNS = {
    "model": "s",
    "text": "s",
    "off": ".1f",
    "guessing": ".1f",
    "ratio": ".2f",
    "least": ".2f",
    "most": ".2f",
    "guessed": "d",
    "right": ".0%",
}
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A prompt, and how it is answered."""

    prompt: str
    temperature: float = 0.0


RECORD = '{"name": "x", "value": 1},\n'
REFRAIN = "Row, row, row your boat, gently down the stream. "
TEXTS = {
    "a list said again": Text(prompt=f"The recipe:\n{LINES}\nThe recipe again:\n{LINES}" * 2),
    "records": Text(prompt=RECORD * 25),
    "a refrain": Text(prompt=REFRAIN * 10),
    "ordinary": Text(prompt=QUESTION),
    "ordinary, temperature 0.8": Text(prompt=QUESTION, temperature=0.8),
}


def measure(model: edgeinfer.Model, name: str, text: Text, tokens: int, rounds: int) -> Row:
    """One text, both ways in turns."""
    ends = {token: float("-inf") for token in model.tokenizer.eos_ids}
    options = {"temperature": text.temperature, "max_tokens": tokens, "logit_bias": ends}
    rates: dict[str, list[float]] = {"off": [], "auto": []}
    for seed in range(rounds + 1):
        done = {
            way: model.generate(text.prompt, speculate=way, seed=seed, **options)
            for way in (rates if seed % 2 else reversed(rates))
        }
        assert done["off"].tokens == done["auto"].tokens, (name, seed)
        if seed == 0:  # pages come in
            continue
        for way, completion in done.items():
            rates[way].append(completion.timings.decode_tokens_per_second)
    ratios = [guessing / off for guessing, off in zip(rates["auto"], rates["off"], strict=True)]
    last = done["auto"].timings
    return {
        "model": Path(model.path).stem,
        "text": name,
        "off": statistics.median(rates["off"]),
        "guessing": statistics.median(rates["auto"]),
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "guessed": last.drafted_tokens,
        "right": last.accepted_tokens / max(last.drafted_tokens, 1),
        "said_speedup": last.speedup,
        "ratios": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="references or GGUF files")
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    for reference in options.models:
        with edgeinfer.load(reference, context=2048, backend="native") as model:
            rows = [
                measure(model, name, text, options.tokens, options.rounds)
                for name, text in TEXTS.items()
            ]
        print(record.table(rows, COLUMNS))
        about = {**record.context(), "tokens": options.tokens, "rounds": options.rounds}
        print(record.save(f"speculation_{rows[0]['model']}", about, rows))


if __name__ == "__main__":
    main()
