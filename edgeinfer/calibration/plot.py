"""The size-divergence frontier of a model, as a picture."""

from __future__ import annotations

from pathlib import Path

from edgeinfer.calibration.mix import Mix
from edgeinfer.errors import UnsupportedError


def plot_frontier(mix: Mix, path: Path, *, title: str) -> None:
    """Draws predicted divergence against bits a weight, and where the mix is.

    Raises:
        UnsupportedError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UnsupportedError(
            "plots need matplotlib", hint="pip install 'edgeinfer[report]'"
        ) from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    weights = sum(mix.weights.values())
    axes.plot([8 * size / weights for size, _ in mix.frontier], [kl for _, kl in mix.frontier])
    axes.plot([mix.bits_per_weight], [mix.divergence], "o", label="this mix")
    axes.set_yscale("log")
    axes.set_xlabel("bits a weight, of the matrices")
    axes.set_ylabel("KL divergence, nats a token (predicted)")
    axes.set_title(title)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path)
