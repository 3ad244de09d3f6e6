"""Chooses the next token from the logits of the last one.

The chain, in llama.cpp's order and with its definitions:

1. logit bias: added to the logit of its token;
2. penalties over the last ``repeat_last_n`` tokens of the text, prompt included: a
   positive logit is divided by ``repeat_penalty``, another multiplied (Keskar et al. 2019,
   arXiv:1909.05858); then ``presence_penalty`` and, for each occurrence,
   ``frequency_penalty`` are subtracted;
3. top-k, typical, top-p, min-p: each drops candidates;
4. temperature: logits are divided by it;
5. draw from the softmax of what is left.

Temperature 0 takes the best token after step 2; equal ones by the smaller number.

The log-probabilities reported with a token are the model's own: of the softmax of the raw
logits, before all of the above, so that they compare between requests.

``NativeSampler`` is what runs. ``ReferenceSampler`` says the same in numpy, a line a
stage, and is what the native one is tested against; both use one random stream, so that
they draw the same tokens from the same seed.
"""

from __future__ import annotations

import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeinfer import _native
from edgeinfer.errors import EdgeInferError, UsageError
from edgeinfer.types import SamplingParams, TokenLogprob

FloatVector = NDArray[np.float32]  # (n_vocab,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A chosen token; ``top`` holds the ``SamplingParams.logprobs`` likeliest, best first."""

    token: int
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


class Sampler(Protocol):
    """Chooses tokens for one sequence."""

    def sample(self, logits: FloatVector) -> Draw:
        """Draws a token; does not remember it.

        Raises:
            EdgeInferError: a logit is NaN or +inf, or all are -inf.
        """

    def probabilities(self, logits: FloatVector) -> list[tuple[int, float]]:
        """The kept tokens with their probabilities, in the order the draw walks along."""

    def accept(self, token: int) -> None:
        """Remembers a token of the text, prompt or answer, for the penalties."""

    def reset(self) -> None:
        """Forgets the text and starts the random stream again."""


# field -> what is allowed, and the test
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "temperature": ("0 or more", lambda x: 0 <= x < math.inf),
    "top_k": ("0 or more", lambda x: 0 <= x < 2**31),
    "top_p": ("above 0, up to 1", lambda x: 0 < x <= 1),
    "min_p": ("between 0 and 1", lambda x: 0 <= x <= 1),
    "typical_p": ("above 0, up to 1", lambda x: 0 < x <= 1),
    "repeat_penalty": ("above 0", lambda x: 0 < x < math.inf),
    "repeat_last_n": ("-1 or more", lambda x: -1 <= x < 2**31),
    "presence_penalty": ("a finite number", math.isfinite),
    "frequency_penalty": ("a finite number", math.isfinite),
    "seed": ("between 0 and 2**64 - 1, or None", lambda x: 0 <= x < 2**64),
    "max_tokens": ("0 or more, or None", lambda x: x >= 0),
    "logprobs": ("between 0 and 1000", lambda x: 0 <= x <= 1000),
}
_WHOLE = {"top_k", "repeat_last_n", "seed", "max_tokens", "logprobs"}
_MAY_BE_NONE = {"seed", "max_tokens"}


def check_params(params: SamplingParams, vocab_size: int) -> None:
    """Raises a UsageError that names the first field whose value makes no sense."""
    for field, (allowed, holds) in _RANGES.items():
        value = getattr(params, field)
        if value is None and field in _MAY_BE_NONE:
            continue
        kind = int if field in _WHOLE else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not holds(value):
            raise UsageError(f"{field} is {value!r}", hint=f"{field} is {allowed}")
    for token, bias in params.logit_bias.items():
        if not isinstance(token, int) or not 0 <= token < vocab_size:
            raise UsageError(
                f"logit_bias: token {token!r} is not in the vocabulary",
                hint=f"tokens are 0 to {vocab_size - 1}",
            )
        if not isinstance(bias, (int, float)) or math.isnan(bias) or bias == math.inf:
            raise UsageError(f"logit_bias: the bias of token {token} is {bias!r}")
    if isinstance(params.stop, str) or not all(isinstance(s, str) and s for s in params.stop):
        raise UsageError("stop is a list of strings, none of them empty")


def _seed(params: SamplingParams) -> int:
    return int.from_bytes(os.urandom(8), "little") if params.seed is None else params.seed


class NativeSampler:
    """The sampler of the native extension; the GIL is released while it works."""

    def __init__(self, params: SamplingParams, vocab_size: int) -> None:
        check_params(params, vocab_size)
        self.seed = _seed(params)
        self._sampler = _native.Sampler(
            vocab_size=vocab_size,
            seed=self.seed,
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            typical_p=params.typical_p,
            repeat_penalty=params.repeat_penalty,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            repeat_last_n=params.repeat_last_n,
            logit_bias=list(params.logit_bias.items()),
            logprobs=params.logprobs,
        )
        self.accept = self._sampler.accept
        self.reset = self._sampler.reset

    def sample(self, logits: FloatVector) -> Draw:
        """As ``Sampler.sample``."""
        try:
            token, logprob, top = self._sampler.sample(logits)
        except ValueError as error:
            raise _unusable(error) from error
        return Draw(
            token=token,
            logprob=logprob,
            top=tuple(TokenLogprob(token=token, logprob=logprob) for token, logprob in top),
        )

    def probabilities(self, logits: FloatVector) -> list[tuple[int, float]]:
        """As ``Sampler.probabilities``."""
        try:
            return self._sampler.probabilities(logits)
        except ValueError as error:
            raise _unusable(error) from error


def _unusable(error: ValueError) -> EdgeInferError:
    return EdgeInferError(
        f"the model's output cannot be sampled: {error}",
        hint="the weights may be damaged; try another file or quantisation of the model",
    )


class ReferenceSampler:
    """The chain in numpy, double precision; written to be read."""

    def __init__(self, params: SamplingParams, vocab_size: int) -> None:
        check_params(params, vocab_size)
        self.params = params
        self.vocab_size = vocab_size
        self.seed = _seed(params)
        self.reset()

    def reset(self) -> None:
        """As ``Sampler.reset``."""
        last_n = self.params.repeat_last_n
        self.text: deque[int] = deque(maxlen=None if last_n < 0 else last_n)
        self.random = pcg64(self.seed)

    def accept(self, token: int) -> None:
        """As ``Sampler.accept``."""
        self.text.append(token)

    def sample(self, logits: FloatVector) -> Draw:
        """As ``Sampler.sample``."""
        tokens, weights = self._run(logits)
        sums = np.add.accumulate(weights)
        place = int(np.searchsorted(sums, self.random.random() * sums[-1], side="right"))
        token = int(tokens[min(place, len(tokens) - 1)])

        raw = logits.astype(np.float64)
        logprobs = raw - raw.max() - np.log(np.exp(raw - raw.max()).sum())
        best = np.lexsort((np.arange(len(raw)), -raw))[: self.params.logprobs]
        return Draw(
            token=token,
            logprob=float(logprobs[token]),
            top=tuple(TokenLogprob(token=int(t), logprob=float(logprobs[t])) for t in best),
        )

    def probabilities(self, logits: FloatVector) -> list[tuple[int, float]]:
        """As ``Sampler.probabilities``."""
        tokens, weights = self._run(logits)
        total = np.add.accumulate(weights)[-1]
        return list(zip(tokens.tolist(), (weights / total).tolist(), strict=True))

    def _run(self, logits: FloatVector) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Returns the kept tokens and their weights, not yet normalised."""
        params = self.params
        if np.isnan(logits).any() or np.isposinf(logits).any():
            raise _unusable(ValueError("a logit is NaN or infinite"))
        adjusted = logits.astype(np.float64)
        for token, bias in params.logit_bias.items():
            adjusted[token] += bias
        for token, count in Counter(self.text).items():
            logit = adjusted[token]
            repeat = params.repeat_penalty
            logit = logit / repeat if logit > 0 else logit * repeat
            adjusted[token] = logit - (count * params.frequency_penalty + params.presence_penalty)

        tokens = np.flatnonzero(adjusted > -np.inf)
        if not len(tokens):
            raise _unusable(ValueError("every token has probability 0"))
        if params.temperature == 0:
            best = tokens[np.argmax(adjusted[tokens]), None]
            return best, np.ones(1)

        def falling(tokens: NDArray[np.intp]) -> NDArray[np.intp]:
            return tokens[np.lexsort((tokens, -adjusted[tokens]))]

        if 0 < params.top_k < self.vocab_size:
            tokens = falling(tokens)[: params.top_k]
        if params.typical_p < 1:
            weights = _weights(adjusted[tokens])
            total = np.add.accumulate(weights)[-1]
            surprise = -(adjusted[tokens] - adjusted[tokens].max() - math.log(total))
            entropy = _sum(weights / total * surprise)
            order = np.lexsort((tokens, np.abs(surprise - entropy)))
            sums = np.add.accumulate(weights[order] / total)
            count = int(np.searchsorted(sums, params.typical_p, side="right")) + 1
            tokens = falling(tokens[order][:count])
        if params.top_p < 1:
            total = _sum(_weights(adjusted[tokens]))
            tokens = falling(tokens)
            sums = np.add.accumulate(_weights(adjusted[tokens]) / total)
            tokens = tokens[: int(np.searchsorted(sums, params.top_p, side="left")) + 1]
        if params.min_p > 0:
            least = adjusted[tokens].max() + math.log(params.min_p)
            tokens = tokens[adjusted[tokens] >= least]
        return tokens, _weights(adjusted[tokens], params.temperature)


def _weights(logits: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """exp((logits - best) / temperature), by the C library's exp as in the native sampler."""
    return np.array([math.exp(x) for x in ((logits - logits.max()) / temperature).tolist()])


def _sum(values: NDArray[np.float64]) -> float:
    """The sum from left to right; numpy's own adds pairwise and rounds differently."""
    return float(np.add.accumulate(values)[-1])


def pcg64(seed: int) -> np.random.Generator:
    """PCG64 (O'Neill 2014, HMC-CS-2014-0905) on its default stream, seeded as its author does."""
    multiplier = 0x2360ED051FC65DA44385DF649FCCF645
    increment = 0x5851F42D4C957F2D14057B7EF767814F
    generator = np.random.PCG64(0)
    generator.state = {
        "bit_generator": "PCG64",
        "state": {
            "state": ((increment + seed) * multiplier + increment) % 2**128,
            "inc": increment,
        },
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(generator)


def accept_all(sampler: Sampler, tokens: Iterable[int]) -> None:
    """Remembers a whole text."""
    for token in tokens:
        sampler.accept(token)
