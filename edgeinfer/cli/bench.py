"""``edgeinfer bench``: how fast a model runs here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edgeinfer.cli import ui
from edgeinfer.cli._model_options import adapter_option, cache_type_options

if TYPE_CHECKING:
    from edgeinfer.cli._model_options import ModelOptions
    from edgeinfer.runtime.benchmark import Result, Test, Work
    from edgeinfer.store import StoredModel


def _counts(
    least: int,
) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, ...]]:
    """A reader of ``512`` or ``1,2,4,8``; none given is ()."""

    def read(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
        try:
            counts = tuple(int(part) for part in value.split(",")) if value else ()
        except ValueError:
            raise click.BadParameter(f"{value!r} is not like 512 or 128,512") from None
        if any(count < least for count in counts):
            raise click.BadParameter(f"{min(counts)} is less than {least}")
        return counts

    return read


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "-p", "--n-prompt", "prompts", callback=_counts(0), default="512", show_default=True,
    metavar="N[,N...]", help="Prompt tokens to read (pp); 0: no such test.",
)  # fmt: skip
@click.option(
    "-n", "--n-gen", "generations", callback=_counts(0), default="128", show_default=True,
    metavar="N[,N...]", help="Tokens to generate (tg); 0: no such test.",
)  # fmt: skip
@click.option(
    "-d", "--n-depth", "depths", callback=_counts(0), default="0", show_default=True,
    metavar="N[,N...]", help="Tokens that are in the context before.",
)  # fmt: skip
@click.option("-t", "--threads", callback=_counts(1), metavar="N[,N...]", help="Compute threads.")
@click.option(
    "-r", "--repetitions", "rounds", type=click.IntRange(1), default=5, show_default=True,
    help="Rounds; the tests take turns.",
)  # fmt: skip
@click.option("-b", "--batch", "--batch-size", type=int, help="Prompt tokens a step.")
@cache_type_options
@adapter_option
@click.option(
    "--sustained", type=click.FloatRange(1), is_flag=False, flag_value=60.0, metavar="[SECONDS]",
    help="Then generate for so long (60) and say how the speed holds.",
)  # fmt: skip
@click.option("--ceilings", is_flag=True, help="Measure the machine, too, and compare.")
@click.option("--memory", metavar="SIZE", help="Use at most so much, such as 2GiB.")
@click.option("-ngl", "--gpu-layers", type=int, help="Layers on the GPU, -1 for all.")
@click.option(
    "--backend", default="auto", show_default=True, help='What runs the model; "all": compare.'
)
@click.option(
    "--reference", metavar="MODEL", help="With all: where KL is from (default: the first)."
)
@click.option("--offline", is_flag=True, help="Never ask the network.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of records.")
def command(
    models: tuple[str, ...],
    prompts: tuple[int, ...],
    generations: tuple[int, ...],
    depths: tuple[int, ...],
    threads: tuple[int, ...],
    rounds: int,
    sustained: float | None,
    ceilings: bool,
    reference: str | None,
    as_json: bool,
    **loading: Any,
) -> None:
    """Time MODEL: reading prompts (pp) and generating (tg), in tokens per second.

    With --backend all it may be several files and folders, such as one model in several formats.

    Options and names are llama-bench's: several numbers, with commas between, are several tests.
    Beside tokens per second stand the bytes of weights read and the multiply-adds done per second;
    --ceilings measures in every round what memory and processor can do at most; --sustained
    generates for a minute, as long as it takes some devices to become hot and slow.
    """
    from edgeinfer.cli._model_options import ModelOptions
    from edgeinfer.runtime.benchmark import Test

    tests = [
        *(Test(prompt_tokens=n, depth=d) for d in depths for n in prompts if n),
        *(Test(new_tokens=n, depth=d) for d in depths for n in generations if n),
    ]
    if not tests:
        raise click.UsageError("nothing to time: -p and -n are both 0")
    wanted = _Wanted(tests=tests, rounds=rounds, ceilings=ceilings, sustained=sustained)
    if loading["backend"] == "all":
        if ceilings or len(threads) > 1:
            raise click.UsageError("--backend all takes one number of threads and no --ceilings")
        from edgeinfer.cli import _bench_all

        counts = {"-p": prompts, "-n": generations, "-d": depths, "-t": threads, "-r": (rounds,)}
        options = ModelOptions(context=None, threads=threads[0] if threads else None, **loading)
        given = _given(counts, loading)
        given += ["--sustained", str(sustained)] if sustained else []
        compared = _bench_all.compare(options, models, reference, given)
        if as_json:
            ui.emit_json(compared)
        else:
            _bench_all.show(compared)
        return
    if len(models) > 1:
        raise click.UsageError("several models are compared with --backend all")
    (model,) = models
    records = []
    for count in threads or (None,):
        options = ModelOptions(context=wanted.context, threads=count, **loading)
        records.append(_time(options, model, wanted))
        if not as_json:
            _show(records[-1])
    if as_json:
        ui.emit_json(records)


_PASSED_ON = {
    "batch": "-b",
    "cache_type_k": "-ctk",
    "cache_type_v": "-ctv",
    "gpu_layers": "-ngl",
    "memory": "--memory",
}


def _given(counts: dict[str, tuple[int, ...]], loading: dict[str, Any]) -> list[str]:
    """The arguments that a comparison hands to each backend's own run."""
    given = []
    for option, numbers in counts.items():
        if numbers:
            given += [option, ",".join(map(str, numbers))]
    for name, option in _PASSED_ON.items():
        if loading[name] is not None:
            given += [option, str(loading[name])]
    for path, scale in loading["lora"]:
        given += ["--lora", f"{path}={scale}"]
    return given + ["--offline"] * loading["offline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is to be measured of one loaded model."""

    tests: list[Test]
    rounds: int
    ceilings: bool
    sustained: float | None  # seconds

    @property
    def lasting(self) -> Test:
        """What generates for long: the first test that generates, or 128 tokens again and again."""
        from edgeinfer.runtime.benchmark import Test

        known = (test for test in self.tests if test.new_tokens)
        return next(known, Test(new_tokens=128, depth=self.tests[0].depth))

    @property
    def context(self) -> int:
        """The tokens that the longest test needs."""
        tests = [*self.tests, self.lasting] if self.sustained else self.tests
        return max(test.depth + test.tokens for test in tests)


def _time(options: ModelOptions, reference: str, wanted: _Wanted) -> dict[str, Any]:
    """Loads the model, times it, and returns all that there is to say."""
    from functools import partial

    from edgeinfer.cli import _bench_sustained
    from edgeinfer.cli._fetch import fetch
    from edgeinfer.device import ceilings
    from edgeinfer.device.resident import peak_resident_bytes
    from edgeinfer.runtime import benchmark

    stored = fetch(reference, offline=options.offline)
    started = time.perf_counter()
    with options.open(stored.reference) as model:
        loaded = time.perf_counter()
        plan = model.plan
        bench = benchmark.Bench(model.engine, batch=plan.batch, adapters=model.adapters)
        prompt = wanted.tests[0].prompt_tokens or 1
        bench.fill(prompt)
        first = time.perf_counter()
        with ui.progress("timing", len(wanted.tests) * wanted.rounds, "test") as bar:

            def show(name: str) -> None:
                bar.describe(name)
                bar.advance(1)

            results = benchmark.run(
                bench,
                wanted.tests,
                rounds=wanted.rounds,
                ceilings=partial(ceilings.measure, plan.threads) if wanted.ceilings else None,
                progress=show,
            )
        sustained = wanted.sustained and _bench_sustained.measure(
            bench, wanted.lasting, wanted.sustained
        )
        bench.close()
    work = _work(stored, plan.backend)
    return {
        "model": stored.reference,
        "file_bytes": stored.bytes,
        "parameters": work and work.parameters,
        "quant": plan.quant,
        "backend": plan.backend,
        "threads": plan.threads,
        "batch": plan.batch,
        "context": plan.context,
        "kv_type_k": plan.kv_type_k,
        "kv_type_v": plan.kv_type_v,
        "lora": [list(use) for use in options.lora],
        "machine": _machine(),
        "load_seconds": loaded - started,
        "first_token_prompt": prompt,
        "first_token_seconds": first - started,
        # The memory that the ceilings are measured with would count.
        "peak_resident_bytes": None if wanted.ceilings else peak_resident_bytes(),
        "tests": [_result(result, work, plan.batch) for result in results],
        "sustained": sustained,
    }


def _work(stored: StoredModel, backend: str) -> Work | None:
    """What the matrices cost; known of GGUF files."""
    from edgeinfer import quant
    from edgeinfer.formats.gguf import open_gguf
    from edgeinfer.runtime.benchmark import work_of

    if stored.format != "gguf":
        return None
    with open_gguf(stored.path) as file:
        read = {
            name: quant.get(tensor.type).packed_nbytes(tensor.shape)
            if backend == "native"
            else tensor.nbytes
            for name, tensor in file.tensors.items()
        }
        shapes = {name: (file.tensors[name].shape, nbytes) for name, nbytes in read.items()}
        return work_of(shapes, file.metadata)


def _machine() -> dict[str, Any]:
    from edgeinfer import __version__, _native
    from edgeinfer.device import detect

    device = detect()
    return {
        "name": device.name,
        "os": device.os,
        "machine": device.machine,
        "cpu": device.cpu,
        "isa": _native.isa(),
        "physical_cores": device.physical_cores,
        "logical_cores": device.logical_cores,
        "usable_cpus": device.usable_cpus,
        "memory_total": device.memory_total,
        "edgeinfer": __version__,
    }


def _result(result: Result, work: Work | None, batch: int) -> dict[str, Any]:
    """A test as a record; what is not known is null."""
    from statistics import median

    test, limits = result.test, result.ceilings
    return {
        "test": test.name,
        "prompt_tokens": test.prompt_tokens,
        "new_tokens": test.new_tokens,
        "depth": test.depth,
        "tokens_per_second": result.tokens_per_second,
        "deviation": result.deviation,
        "samples": list(result.samples),
        "bytes_per_second": work and result.bytes_per_second(work, batch),
        "macs_per_second": work and result.macs_per_second(work),
        "stream_bytes_per_second": median(c.stream_bytes_per_second for c in limits)
        if limits
        else None,
        "int8_macs_per_second": median(c.int8_macs_per_second for c in limits) if limits else None,
        "of_stream": work and result.of_stream(work, batch),
        "of_peak": work and result.of_peak(work),
    }


def _show(record: dict[str, Any]) -> None:
    """The record for people."""
    from edgeinfer.cli import _bench_sustained

    machine = record["machine"]
    parts = [record["model"], record["quant"], ui.format_bytes(record["file_bytes"])]
    if record["parameters"]:
        parts.append(f"{record['parameters'] / 1e6:,.0f} M parameters")
    ui.emit(", ".join(parts))
    ui.emit(
        f"{machine['cpu']}, {record['threads']} threads, {record['backend']} backend, "
        f"{machine['isa']}, cache {record['kv_type_k']}/{record['kv_type_v']}"
    )
    ui.emit()
    columns = {
        "GB/S": ("bytes_per_second", 1e-9, ".1f"),
        "OF STREAM": ("of_stream", 1, ".0%"),
        "GMAC/S": ("macs_per_second", 1e-9, ".1f"),
        "OF PEAK": ("of_peak", 1, ".0%"),
    }
    known = {
        head: column
        for head, column in columns.items()
        if any(test[column[0]] is not None for test in record["tests"])
    }
    rows = [
        (
            test["test"],
            f"{test['tokens_per_second']:.2f} ± {test['deviation']:.2f}",
            *(format(test[key] * scale, spec) for key, scale, spec in known.values()),
        )
        for test in record["tests"]
    ]
    ui.table(rows, ("TEST", "TOKENS/S", *known))
    ui.emit()
    ui.emit(
        f"ready after {record['load_seconds']:.2f} s, first token of a prompt of "
        f"{record['first_token_prompt']} after {record['first_token_seconds']:.2f} s"
    )
    if record["sustained"]:
        ui.emit(_bench_sustained.text(record["sustained"]))
    if record["peak_resident_bytes"]:
        ui.emit(f"{ui.format_bytes(record['peak_resident_bytes'])} resident at the peak")
