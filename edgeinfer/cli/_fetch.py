"""Finds a model for a verb: shows the download, and what the reference resolved to."""

from __future__ import annotations

from contextlib import ExitStack

from edgeinfer import store
from edgeinfer.cli import ui
from edgeinfer.errors import UnsupportedError


def fetch(reference: str, *, offline: bool = False) -> store.StoredModel:
    """Resolves a reference; see ``edgeinfer.store.resolve`` for the errors."""
    with ExitStack() as stack:
        bar: ui.Progress | None = None

        def show(done: int, total: int | None) -> None:
            nonlocal bar
            if bar is None:  # only now is it known that there is something to download
                bar = stack.enter_context(ui.progress(f"pulling {reference}", total))
            bar.to(done)

        model = store.resolve(reference, offline=offline, progress=show)
    if model.reference != reference:
        ui.detail(f"{reference} is {model.reference}")
    ui.detail(f"{model.path} ({ui.format_bytes(model.bytes)})")
    return model


def fetch_gguf(reference: str, *, offline: bool = False) -> store.StoredModel:
    """As ``fetch``, for a verb that reads GGUF headers.

    Raises:
        UnsupportedError: the model is of another format.
    """
    model = fetch(reference, offline=offline)
    if model.format != "gguf":
        raise UnsupportedError(
            f"{model.path} is a {model.format!r} model, and this verb reads GGUF files",
            hint=f"convert it first: edgeinfer convert {reference} --to gguf -q q4_k_m -o OUT.gguf",
        )
    return model
