"""The plots of an evaluation, drawn by matplotlib from its records."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeinfer.errors import UnsupportedError
from edgeinfer.evaluation.measures import QUANTILES
from edgeinfer.evaluation.report import Record, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_KL = 1e-9  # what a logarithmic axis shows of less


def require_matplotlib() -> None:
    """Finds out before any work is done.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f"plots need matplotlib: {error}",
            hint="pip install 'edgeinfer[report]', or leave them out with --no-plots",
        ) from error


def draw(records: Sequence[Record]) -> dict[str, bytes]:
    """Returns file name -> PNG.

    Raises:
        UnsupportedError: matplotlib is not installed.
    """
    require_matplotlib()
    wanted: dict[str, Callable[[Axes, Sequence[Record]], None]] = {"perplexity.png": _perplexity}
    if all("kl_mean" in record for record in records):
        wanted |= {
            "kl_quantiles.png": _kl_quantiles,
            "size_kl.png": _size_kl,
            "probability_error.png": _probability_error,
        }
    return {name: _png(plot, records) for name, plot in wanted.items()}


def _png(plot: Callable[[Axes, Sequence[Record]], None], records: Sequence[Record]) -> bytes:
    # Not pyplot: it keeps state, and looks for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    plot(axes, records)
    axes.grid(True, alpha=0.3)
    octets = io.BytesIO()
    figure.savefig(octets, format="png", metadata={"Software": "edgeinfer"})
    return octets.getvalue()


def _perplexity(axes: Axes, records: Sequence[Record]) -> None:
    names = [label(record) for record in records]
    axes.errorbar(
        [record["perplexity"] for record in records],
        range(len(names)),
        xerr=[record["perplexity_error"] for record in records],
        fmt="o",
        capsize=4,
    )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    if "reference_perplexity" in records[0]:
        axes.axvline(records[0]["reference_perplexity"], color="gray", label="reference")
        axes.legend()
    axes.set_xlabel("perplexity ± standard error")


def _kl_quantiles(axes: Axes, records: Sequence[Record]) -> None:
    _by_quantile(axes, records, "kl_quantiles", lambda kl: max(kl, _LEAST_KL))
    axes.set_yscale("log")
    axes.set_ylabel("KL(reference ‖ model), nats")


def _probability_error(axes: Axes, records: Sequence[Record]) -> None:
    _by_quantile(axes, records, "p_error_quantiles", lambda error: error)
    axes.set_ylabel("p(model) - p(reference) of the token that came")


def _by_quantile(
    axes: Axes, records: Sequence[Record], field: str, shown: Callable[[float], float]
) -> None:
    places = range(len(QUANTILES))
    for record in records:
        axes.plot(places, [shown(value) for value in record[field]], ".-", label=label(record))
    axes.set_xticks(places, [f"{share:.1%}".replace(".0%", "%") for share in QUANTILES])
    axes.set_xlabel("share of tokens below")
    axes.legend()


def _size_kl(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    for record in records:
        axes.errorbar(
            record["file_bytes"] / 1e6,
            max(record["kl_mean"], _LEAST_KL),
            yerr=record["kl_mean_error"],
            fmt="o",
            capsize=4,
            label=label(record),
        )
    axes.set_yscale("log")
    axes.set_xlabel("size, MB")
    axes.set_ylabel("mean KL ± standard error, nats")
    axes.legend()
