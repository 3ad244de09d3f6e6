"""The figures of an evaluation, each with its standard error.

A mean's error is the standard deviation over the root of the count, as if tokens were independent,
and what follows from a mean has the error that a linear function of it would have. A quantile's is
half the distance between the values whose ranks are one binomial standard deviation away, which
assumes nothing about the distribution. A maximum has none.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from edgeinfer.evaluation.scores import Distance, Surprise, Vector

# Shares of tokens that the table of quantiles has; what plots are drawn from.
QUANTILES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """How well a text is predicted; with a reference, how far from it. Errors are standard errors.

    Attributes:
        tokens: how many were scored.
        perplexity: e to the mean of -ln p.
        nll: the mean of -ln p, nats a token.
        reference_perplexity: the reference's, on the same tokens.
        perplexity_ratio: the model's perplexity over the reference's.
        kl_mean: the mean of KL(reference || model), nats a token.
        kl_median: half of the tokens have less.
        kl_p99: 99 % of the tokens have less.
        kl_p999: 99.9 % of the tokens have less.
        kl_max: the largest.
        top1_agreement: the share of tokens where both hold the same for the likeliest.
        p_error_mean: the mean of p(model) - p(reference) of the tokens that came.
        p_error_rms: the root of the mean square of that.
        kl_quantiles: KL at each of QUANTILES.
        p_error_quantiles: p(model) - p(reference) at each of QUANTILES.
    """

    tokens: int
    perplexity: float
    perplexity_error: float
    nll: float
    nll_error: float
    reference_perplexity: float | None = None
    reference_perplexity_error: float | None = None
    perplexity_ratio: float | None = None
    perplexity_ratio_error: float | None = None
    kl_mean: float | None = None
    kl_mean_error: float | None = None
    kl_median: float | None = None
    kl_median_error: float | None = None
    kl_p99: float | None = None
    kl_p99_error: float | None = None
    kl_p999: float | None = None
    kl_p999_error: float | None = None
    kl_max: float | None = None
    top1_agreement: float | None = None
    top1_agreement_error: float | None = None
    p_error_mean: float | None = None
    p_error_mean_error: float | None = None
    p_error_rms: float | None = None
    p_error_rms_error: float | None = None
    kl_quantiles: tuple[float, ...] = ()
    p_error_quantiles: tuple[float, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Returns the record; without a reference it has no such fields."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}


def measures(scores: Surprise) -> Measures:
    """Sums the scores of all tokens up."""
    nll, nll_error = mean(scores.nll)
    perplexity = math.exp(nll)
    plain = Measures(
        tokens=len(scores.nll),
        perplexity=perplexity,
        perplexity_error=perplexity * nll_error,
        nll=nll,
        nll_error=nll_error,
    )
    if not isinstance(scores, Distance):
        return plain
    reference, reference_error = mean(scores.nll_reference)
    log_ratio, log_ratio_error = mean(scores.nll - scores.nll_reference)
    kl, kl_error = mean(scores.kl)
    agreement, agreement_error = mean(scores.same_top.astype(np.float64))
    p_error = np.exp(-scores.nll) - np.exp(-scores.nll_reference)
    p_mean, p_mean_error = mean(p_error)
    square, square_error = mean(p_error**2)
    rms = math.sqrt(square)
    return replace(
        plain,
        reference_perplexity=math.exp(reference),
        reference_perplexity_error=math.exp(reference) * reference_error,
        perplexity_ratio=math.exp(log_ratio),
        perplexity_ratio_error=math.exp(log_ratio) * log_ratio_error,
        kl_mean=kl,
        kl_mean_error=kl_error,
        kl_median=quantile(scores.kl, 0.5),
        kl_median_error=quantile_error(scores.kl, 0.5),
        kl_p99=quantile(scores.kl, 0.99),
        kl_p99_error=quantile_error(scores.kl, 0.99),
        kl_p999=quantile(scores.kl, 0.999),
        kl_p999_error=quantile_error(scores.kl, 0.999),
        kl_max=float(scores.kl.max()),
        top1_agreement=agreement,
        top1_agreement_error=agreement_error,
        p_error_mean=p_mean,
        p_error_mean_error=p_mean_error,
        p_error_rms=rms,
        p_error_rms_error=square_error / (2 * rms) if rms else 0.0,
        kl_quantiles=tuple(quantile(scores.kl, share) for share in QUANTILES),
        p_error_quantiles=tuple(quantile(p_error, share) for share in QUANTILES),
    )


def mean(values: Vector) -> tuple[float, float]:
    """The mean and its standard error."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), error


def quantile(values: Vector, share: float) -> float:
    """The value that a share of the values is below; between two it is interpolated."""
    return float(np.quantile(values, share))


def quantile_error(values: Vector, share: float) -> float:
    """The standard error of a quantile, by the binomial deviation of its rank."""
    spread = math.sqrt(share * (1 - share) / len(values))
    low, high = np.quantile(values, [max(share - spread, 0), min(share + spread, 1)])
    return float(high - low) / 2
