"""The options that chat and run share, and what they mean: a model and its sampling."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeinfer.cli import ui

if TYPE_CHECKING:
    from edgeinfer.runtime.model import Model

F = TypeVar("F", bound=Callable[..., Any])


def _read_biases(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> dict[int, float]:
    """Reads ``15043+1.5``, ``15043-inf``: a token and what is added to its logit."""
    biases = {}
    for value in values:
        match = re.fullmatch(r"(\d+)([+-](?:inf|\d+(?:\.\d*)?))", value)
        if match is None:
            raise click.BadParameter(f"{value!r} is not like 15043+1.5 or 15043-inf")
        biases[int(match[1])] = float(match[2])
    return biases


def _read_adapters(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    """Reads ``FILE`` and ``FILE=0.5``."""
    adapters = []
    for value in values:
        path, found, scale = value.rpartition("=")
        if not found or os.path.exists(value):  # a name may have the sign in it
            adapters.append((value, 1.0))
            continue
        try:
            adapters.append((path, float(scale)))
        except ValueError:
            raise click.BadParameter(f"{value!r} is not FILE or FILE=SCALE") from None
        if not path:
            raise click.BadParameter(f"{value!r} names no file")
    return tuple(adapters)


# As llama.cpp's; a verb that loads or plans a model has both.
_CACHE_TYPES = (
    click.option(
        "-ctk",
        "--cache-type-k",
        default="f16",
        metavar="TYPE",
        show_default=True,
        help="Keys in the KV cache: f32, f16, bf16, q8_0 or q4_0.",
    ),
    click.option(
        "-ctv",
        "--cache-type-v",
        default="f16",
        metavar="TYPE",
        show_default=True,
        help="Values in the KV cache.",
    ),
)
_ADAPTERS = click.option(
    "--lora",
    multiple=True,
    callback=_read_adapters,
    metavar="FILE[=SCALE]",
    help="A GGUF adapter to compute with; may be repeated.",
)
_MODEL = (
    click.option("-c", "--context", "--ctx-size", type=int, help="Tokens of context."),
    click.option("-t", "--threads", type=int, help="Compute threads, at most."),
    click.option("-tb", "--threads-batch", type=int, help="The same, to read prompts."),
    click.option("-b", "--batch", "--batch-size", type=int, help="Prompt tokens a step."),
    *_CACHE_TYPES,
    click.option("-ngl", "--gpu-layers", type=int, help="Layers on the GPU, -1 for all."),
    click.option("-md", "--model-draft", "draft", metavar="MODEL", help="Guesses tokens ahead."),
    _ADAPTERS,
    click.option("--memory", metavar="SIZE", help="Use at most so much, such as 2GiB."),
    click.option("--backend", default="auto", show_default=True, help="What runs the model."),
    click.option("--offline", is_flag=True, help="Never ask the network."),
)

# Names as llama.cpp's where it has the option, fields as of SamplingParams. None: as the
# model's makers recommend.
_SAMPLING = (
    click.option("-n", "--max-tokens", "--predict", "max_tokens", type=int, help="At most."),
    click.option("--temp", "--temperature", "temperature", type=float, help="0 is greedy."),
    click.option("--top-k", type=int, help="0 keeps all."),
    click.option("--top-p", type=float, help="1 keeps all."),
    click.option("--min-p", type=float, help="0 keeps all."),
    click.option("--typical", "--typical-p", "typical_p", type=float, help="1 keeps all."),
    click.option("--repeat-penalty", type=float, help="1 is off."),
    click.option("--repeat-last-n", type=int, help="Tokens the penalties look back on."),
    click.option("--presence-penalty", type=float, help="0 is off."),
    click.option("--frequency-penalty", type=float, help="0 is off."),
    click.option("--seed", type=int, help="The same seed draws the same tokens."),
    click.option(
        "--logit-bias",
        multiple=True,
        callback=_read_biases,
        metavar="TOKEN(+/-)BIAS",
        help="Such as 15043-1.",
    ),
    click.option(
        "--speculate",
        type=click.Choice(["auto", "off", "lookup", "draft"]),
        help="Guess tokens ahead from the text, or with -md, while that is faster.",
    ),
    click.option(
        "--overflow",
        type=click.Choice(["stop", "shift"]),
        help="When the context is full: stop, or go on without the middle of the text.",
    ),
    click.option("--stop", multiple=True, metavar="TEXT", help="End before this text."),
)
SAMPLING_FIELDS = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "seed",
)
# How to generate, beside the sampling.
_WAYS = ("speculate", "overflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How to load the model."""

    context: int | None
    threads: int | None
    threads_batch: int | None = None
    batch: int | None
    cache_type_k: str
    cache_type_v: str
    gpu_layers: int | None = None
    draft: str | None = None
    lora: tuple[tuple[str, float], ...] = ()
    memory: str | None
    backend: str
    offline: bool

    def open(self, reference: str) -> Model:
        """Finds the model, showing a download, and loads it."""
        _import_numpy()
        from edgeinfer.cli._fetch import fetch
        from edgeinfer.runtime import loading

        found = fetch(reference, offline=self.offline)
        model = loading.load(
            found.reference,
            memory=self.memory,
            backend=self.backend,
            context=self.context,
            threads=self.threads,
            batch_threads=self.threads_batch,
            batch=self.batch,
            kv_type_k=self.cache_type_k,
            kv_type_v=self.cache_type_v,
            gpu_layers=self.gpu_layers,
            draft=fetch(self.draft, offline=self.offline).reference if self.draft else None,
            lora=self.lora,
            offline=self.offline,
        )
        ui.detail(model.plan.explain())
        return model


def _import_numpy() -> None:
    """Imports it before anything else does, in half the time that it would take then.

    Its BLAS starts threads that spin where ours are to run, unless told not to; nothing here
    multiplies by it. And further down, CPython (up to 3.13 at least) is likely to be at the end of
    a piece of its stack, and maps and unmaps the next one at every call.
    """
    name = "OPENBLAS_NUM_THREADS"
    given = os.environ.get(name)
    os.environ[name] = given or "1"
    import numpy  # noqa: F401

    if given is None:  # another library's BLAS may be there to be used
        del os.environ[name]


def model_options(function: F) -> F:
    """Adds the options that load a model; they arrive in one ``ModelOptions``."""
    return _add(_MODEL, function)


def cache_type_options(function: F) -> F:
    """Adds the types of the KV cache, of a verb that plans and does not load."""
    return _add(_CACHE_TYPES, function)


def adapter_option(function: F) -> F:
    """Adds the adapters that a verb computes with or plans for."""
    return _add((_ADAPTERS,), function)


def sampling_options(function: F) -> F:
    """Adds the sampling options; ``take_sampling`` gathers them."""
    return _add(_SAMPLING, function)


def _add(options: tuple[Callable[[F], F], ...], function: F) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def take_model(values: dict[str, Any]) -> ModelOptions:
    """Takes the model options out of a verb's arguments."""
    return ModelOptions(**{field.name: values.pop(field.name) for field in fields(ModelOptions)})


def take_sampling(values: dict[str, Any]) -> dict[str, Any]:
    """Takes the sampling options that were given out of a verb's arguments."""
    given = {name: values.pop(name) for name in (*SAMPLING_FIELDS, *_WAYS)}
    given["logit_bias"] = values.pop("logit_bias") or None
    given["stop"] = list(values.pop("stop")) or None
    return {name: value for name, value in given.items() if value is not None}
