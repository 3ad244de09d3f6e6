"""``edgeinfer eval``: how well models predict a text, and how far they are from a reference."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeinfer.cli import ui
from edgeinfer.cli._model_options import adapter_option, cache_type_options

if TYPE_CHECKING:
    from edgeinfer.backends.registry import Candidate
    from edgeinfer.cli._model_options import ModelOptions
    from edgeinfer.evaluation.chunks import Chunks
    from edgeinfer.evaluation.compact import ReferenceLogits
    from edgeinfer.store import StoredModel


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "-f", "--file", required=True, type=click.Path(path_type=Path, allow_dash=True),
    help="The text to predict.",
)  # fmt: skip
@click.option("--reference", metavar="MODEL", help="A more exact form, to measure KL from.")
@click.option(
    "-c", "--context", "--ctx-size", default=512, show_default=True, help="Tokens a chunk."
)
@click.option("--chunks", "limit", type=click.IntRange(1), help="At most so many chunks.")
@click.option(
    "--backend", "backends", multiple=True, metavar="NAME",
    help='What runs the models; several times, or "all", compares.',
)  # fmt: skip
@click.option("-t", "--threads", type=int, help="Compute threads, at most.")
@click.option("-tb", "--threads-batch", type=int, help="The same, to read prompts.")
@click.option("-b", "--batch", "--batch-size", type=int, help="Tokens a step.")
@cache_type_options
@adapter_option
@click.option("-ngl", "--gpu-layers", type=int, help="Layers on the GPU, -1 for all.")
@click.option("--memory", metavar="SIZE", help="Use at most so much, such as 2GiB.")
@click.option("--offline", is_flag=True, help="Never ask the network.")
@click.option("--max-kl", type=float, help="Exit code 7 if a mean KL is larger.")
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="DIR",
    help="Write report.md, report.json and plots.",
)  # fmt: skip
@click.option("--plots/--no-plots", default=True, help="With --report: PNGs, by matplotlib.")
@click.option("--json", "as_json", is_flag=True, help="Print a record a model and backend.")
def command(
    models: Sequence[str],
    file: Path,
    reference: str | None,
    context: int,
    limit: int | None,
    backends: Sequence[str],
    max_kl: float | None,
    report: Path | None,
    plots: bool,
    as_json: bool,
    **loading: Any,
) -> None:
    """Measure how well each MODEL predicts a text.

    Perplexity is llama.cpp's: chunks of -c tokens, the second halves scored. With --reference
    (the same model as f16, say) also the Kullback-Leibler divergence from it, how often both
    hold the same token for the likeliest, and the error of probabilities. The reference's
    logits are kept on disk for the next time, at two bytes a token and word of the vocabulary.
    Adapters are of MODEL, not of the reference.
    """
    from edgeinfer.cli._fetch import fetch
    from edgeinfer.cli._model_options import ModelOptions
    from edgeinfer.errors import CheckFailedError

    if max_kl is not None and reference is None:
        raise click.UsageError("--max-kl needs --reference")
    if report is not None:
        from edgeinfer.evaluation.report import check_folder

        check_folder(report)
        if plots:
            from edgeinfer.evaluation.plots import require_matplotlib

            require_matplotlib()
    text = _Text(file, context, limit)
    options = ModelOptions(context=context, backend="auto", **loading)
    stored = [fetch(model, offline=options.offline) for model in models]
    exact = None
    if reference is not None:
        exact = _Reference(fetch(reference, offline=options.offline), options, backends, text)
        for model in stored:
            exact.check(model)
    records = []
    for model, candidate in _pairs(stored, backends):
        records.append(_measure(model, candidate, options, text, exact))
        if as_json:
            ui.emit_json(records[-1])
    if not as_json:
        _show(records)
    if report is not None:
        from edgeinfer.evaluation.report import write

        for path in write(report, records, plots=plots):
            ui.note(f"wrote {path}")
    worst = max(records, key=lambda record: record.get("kl_mean", 0.0))
    if max_kl is not None and not worst["kl_mean"] <= max_kl:
        raise CheckFailedError(
            f"{worst['model']} ({worst['backend']}): mean KL {worst['kl_mean']:.6f}, "
            f"the limit is {max_kl}"
        )


class _Text:
    """The text, and its chunks by each tokenizer that asks."""

    def __init__(self, file: Path, context: int, limit: int | None) -> None:
        import hashlib

        from edgeinfer.errors import NotFoundError, UsageError

        try:
            octets = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
            self._text = octets.decode("utf-8")
        except FileNotFoundError:
            raise NotFoundError(f"{file}: no such file") from None
        except OSError as error:
            raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise click.UsageError(f"{file}: not UTF-8 text") from None
        self._context, self._limit = context, limit
        self.about = {
            "path": str(file),
            "bytes": len(octets),
            "sha256": hashlib.sha256(octets).hexdigest(),
        }

    def chunks(self, model: StoredModel) -> Chunks:
        """The text as a model's tokenizer cuts it."""
        from edgeinfer.runtime.evaluation import text_chunks
        from edgeinfer.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(model.path)
        return text_chunks(tokenizer, self._text, context=self._context, limit=self._limit)


class _Reference:
    """The model that others are measured from, in the best backend that was asked for."""

    def __init__(
        self, stored: StoredModel, options: ModelOptions, backends: Sequence[str], text: _Text
    ) -> None:
        from edgeinfer.backends.native import NativeBackend
        from edgeinfer.store.checksum import sha256_of_model

        self._stored, self._options, self._text = stored, options, text
        self._digest = sha256_of_model(stored.path)
        able = [candidate for _, candidate in _pairs([stored], backends)]
        # Its arithmetic is the most exact one.
        self._candidate = min(able, key=lambda candidate: candidate.name != NativeBackend.name)

    @property
    def about(self) -> dict[str, Any]:
        """What the logits depend on."""
        return {
            "model": self._stored.reference,
            "sha256": self._digest,
            "backend": self._candidate.name,
            "version": self._candidate.version,
            "kv_type_k": self._options.cache_type_k,
            "kv_type_v": self._options.cache_type_v,
        }

    def check(self, model: StoredModel) -> None:
        """Refuses, before anything is computed, a model that reads other tokens.

        Raises:
            UsageError: the texts' tokens differ.
        """
        from edgeinfer.errors import UsageError

        if self._text.chunks(model).digest() != self._text.chunks(self._stored).digest():
            raise UsageError(
                f"{model.reference} reads other tokens than {self._stored.reference}",
                hint="a reference is the same model in a more exact form",
            )

    def logits(self) -> ReferenceLogits:
        """Its logits, computed if they are not on disk."""
        from edgeinfer.runtime.evaluation import reference_logits

        chunks = self._text.chunks(self._stored)
        options = replace(self._options, backend=self._candidate.name, lora=())
        key = {name: value for name, value in self.about.items() if name != "model"}
        with ui.progress("reference", len(chunks), "chunk") as bar:
            return reference_logits(
                lambda: options.open(self._stored.reference), chunks, key, progress=bar.to
            )


def _pairs(
    stored: Sequence[StoredModel], backends: Sequence[str]
) -> Iterator[tuple[StoredModel, Candidate]]:
    """Each model with each backend that was asked for and reads it; by default with the best."""
    from edgeinfer.backends import registry
    from edgeinfer.device.detect import detect

    device = detect()
    for model in stored:
        if not backends or "all" in backends:
            found = registry.candidates(device)
        else:
            found = [c for name in backends for c in registry.candidates(device, [name])]
            missing = set(backends) - {c.name for c in found}
            if missing:
                registry.named(missing.pop(), model.format, device)  # says what is wrong
        able = []
        for candidate in found:
            reason = registry.unfit(candidate, model.format)
            if reason is None:
                able.append(candidate)
            elif backends:
                ui.note(f"{model.reference}: not {candidate.name}: {reason}")
        if not able:
            raise registry.none_fits(found, model.format)
        for candidate in able if backends else able[:1]:
            yield model, candidate


def _measure(
    model: StoredModel,
    candidate: Candidate,
    options: ModelOptions,
    text: _Text,
    exact: _Reference | None,
) -> dict[str, Any]:
    """One model in one backend: all that there is to say."""
    from edgeinfer.runtime.evaluation import evaluate, evaluation_record

    chunks = text.chunks(model)
    reference = exact.logits() if exact else None  # before the model takes the memory
    with (
        replace(options, backend=candidate.name).open(model.reference) as opened,
        ui.progress(
            f"{Path(model.reference).name} ({candidate.name})", len(chunks), "chunk"
        ) as bar,
    ):
        start = time.perf_counter()
        found = evaluate(opened, chunks, reference, progress=bar.to)
        return evaluation_record(
            opened,
            found,
            chunks,
            format=model.format,
            size=model.bytes,
            version=candidate.version,
            text=text.about,
            reference=exact.about if exact else None,
            seconds=time.perf_counter() - start,
        ) | {"lora": [list(use) for use in options.lora]}


def _show(records: Sequence[Mapping[str, Any]]) -> None:
    from edgeinfer.evaluation.report import columns

    first = records[0]
    ui.emit(
        f"{first['text']['path']}: {first['chunks']} chunks of {first['context']} tokens, "
        f"{first['tokens']} scored"
    )
    if first["reference"]:
        ui.emit(
            f"reference {first['reference']['model']} ({first['reference']['backend']}): "
            f"perplexity {first['reference_perplexity']:.4f} "
            f"± {first['reference_perplexity_error']:.4f}"
        )
    ui.emit()
    shown = columns(records)
    ui.table(list(zip(*shown.values(), strict=True)), [head.upper() for head in shown])
