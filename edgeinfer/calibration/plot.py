"""The size-divergence frontier of a model, as a picture."""

from __future__ import annotations

import io
from pathlib import Path

from edgeinfer.calibration.mix import Mix
from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.atomic import AtomicFile, check_writable


def check_drawable(path: Path) -> None:
    """Finds out before anything is measured whether a picture can be written.

    Raises:
        UnsupportedError: matplotlib is not installed, or does not know the kind of picture.
        NotFoundError: the folder does not exist.
        EdgeInferError: the file cannot be written.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise UnsupportedError(
            "plots need matplotlib", hint="pip install 'edgeinfer[report]'"
        ) from None
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in known:
        raise UnsupportedError(f"{path}: no kind of picture", hint=f"known: {', '.join(known)}")
    check_writable(path)


def plot_frontier(mix: Mix, path: Path, *, title: str) -> None:
    """Draws predicted divergence against bits a weight, and where the mix is.

    Raises:
        EdgeInferError: the file cannot be written.
    """
    from matplotlib.figure import Figure

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
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower())
    with AtomicFile(path) as file:
        file.write(picture.getvalue())
