"""``edgeinfer convert``: a checkpoint or a GGUF file becomes a quantised model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeinfer.cli import ui
from edgeinfer.cli._mix import MixOptions, choices_record, measured, mix_options, show_choices
from edgeinfer.cli._several import (
    ReportOptions,
    conversion_bar,
    convert_several,
    formats,
    report_options,
)
from edgeinfer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "to",
    default="gguf",
    show_default=True,
    metavar="FORMAT,...",
    help="gguf, mlc or onnx; several in one pass, each with a type of its own if need be: "
    "gguf:q4_k_m,onnx.",
)
@click.option(
    "-q",
    "--quant",
    help="Quant type: f16, q8_0, q4_k_m (the default), ...; of ONNX f32, f16, int8, int4 (the "
    "default), int2; of MLC q4f16_1 (the default), q4f32_1, q3f16_1, q0f16, .... f32, f16, int8 "
    "and int4 (the default with several formats) are a form in each: int4 is q4_0, int4 and "
    "q4f16_1, int8 is q8_0 and int8, which MLC has not.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write, of ONNX and MLC a folder; by default SOURCE-QUANT.gguf in the "
    "current folder. With several formats the folder for all.",
)
@click.option(
    "--tensor-type",
    "tensor_types",
    multiple=True,
    metavar="PATTERN=TYPE",
    help="Type of the matrices whose names match a regular expression; may be repeated, "
    "the first that matches counts.",
)
@click.option("--output-tensor-type", metavar="TYPE", help="Type of the output matrix.")
@click.option("--token-embedding-type", metavar="TYPE", help="Type of the token embedding.")
@click.option("--pure", is_flag=True, help="One type for all matrices, no mix.")
@click.option(
    "--lora",
    type=click.Path(path_type=Path),
    metavar="ADAPTER",
    help="Convert this PEFT adapter of SOURCE, in f16 or f32, and not SOURCE.",
)
@click.option(
    "--merge-lora",
    type=click.Path(path_type=Path),
    metavar="ADAPTER",
    help="Add this PEFT adapter to the weights.",
)
@click.option(
    "--mlc-mode",
    type=click.Choice(["mse", "mlc"]),
    help="With --to mlc: mse searches for a small error (default), mlc writes the bytes that "
    "MLC LLM's own converter writes.",
)
@click.option(
    "--cache-type",
    metavar="TYPE",
    help="With --to onnx: type of cached keys and values, f32, f16 or int8; by default that of "
    "the activations.",
)
@click.option(
    "--imatrix",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Importance matrix, of edgeinfer calibrate or llama-imatrix: low-bit types lose less.",
)
@click.option("--calibrate", is_flag=True, help="Collect an importance matrix first.")
@click.option(
    "-f",
    "--calibration-text",
    "text_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Text to calibrate on; by default one in many languages that comes with edgeinfer.",
)
@mix_options
@report_options
@click.option("-t", "--threads", type=click.IntRange(min=1), help="By default one a processor.")
@click.option(
    "--verify",
    is_flag=True,
    help="Compare the output with SOURCE, weights and logits; exit code 7 if it is not the same.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a report as JSON.")
def command(
    source: Path,
    to: str,
    quant: str | None,
    output: Path | None,
    tensor_types: tuple[str, ...],
    output_tensor_type: str | None,
    token_embedding_type: str | None,
    pure: bool,
    lora: Path | None,
    merge_lora: Path | None,
    mlc_mode: str | None,
    cache_type: str | None,
    imatrix: Path | None,
    calibrate: bool,
    text_file: Path | None,
    threads: int | None,
    verify: bool,
    as_json: bool,
    **mixing: Any,
) -> None:
    """Converts SOURCE to GGUF, or to a folder for ONNX Runtime or MLC LLM, or to several at once.

    SOURCE is a Hugging Face folder (config.json, safetensors, tokenizer), an MLC folder, or a GGUF
    file, whose metadata is kept. Weights that have the wanted type already are copied: q4f16_1 of
    MLC is q4_0.

    Of several formats all appear or none: what any of them refuses is said before weights are
    read, everything is written under hidden names, and renamed when all of it is on disk; until
    then, and after an error, older outputs are as they were. The report comes after that, needs
    room for the source's weights once more meanwhile, and takes no output away: a format whose
    backend is missing or fails is listed as not measured.
    """
    import edgeinfer
    from edgeinfer.cli._calibration import importance_of
    from edgeinfer.quant.assignment import Overrides

    report = ReportOptions(**{name: mixing.pop(name) for name in ReportOptions.__slots__})
    options_of_mix = MixOptions(**mixing)
    several = formats(to, quant)
    if len(several) == 1:
        (to, quant), *_ = several
    to_size = options_of_mix.wanted
    if imatrix and (calibrate or (text_file and not to_size)):
        raise UsageError("--imatrix is a calibration that was done", hint="leave --calibrate out")
    if to_size and (quant or pure or lora or merge_lora or to != "gguf"):
        raise UsageError(
            "--budget, --size and --bpw choose the types of a GGUF by themselves",
            hint="leave -q, --pure, --to, --lora and --merge-lora out",
        )
    measuring = len(several) > 1 or bool(report.report)
    if measuring and (to_size or lora or verify):
        raise UsageError(
            "an adapter, --verify, --budget, --size and --bpw are for one format without --report",
            hint="--no-report, or edgeinfer eval afterwards",
        )
    overrides = Overrides(
        tensors=tuple(_pattern_and_type(text) for text in tensor_types),
        output=output_tensor_type,
        embedding=token_embedding_type,
        pure=pure,
    )
    if mlc_mode is not None and "mlc" not in dict(several):
        raise UsageError("--mlc-mode is for --to mlc")
    name = (lora or source).resolve().name.removesuffix(".gguf")
    default = "f16" if lora else {"gguf": "q4_k_m", "mlc": "q4f16_1"}.get(to, "default")
    wanted = next((mixing[key] for key in ("budget", "size", "bpw") if mixing[key]), default)
    target = output or Path(f"{name}-{str(quant or wanted).lower()}.{to}")
    matrix = None
    if to_size:
        mix, matrix = measured(
            source,
            options_of_mix,
            state=target.with_name(f"{target.name}.sensitivity.json"),
            imatrix=imatrix,
            text_file=text_file,
            fixed=overrides,
            threads=threads,
        )
        if options_of_mix.dry_run:
            if as_json:
                ui.emit_json(choices_record(mix))
            else:
                show_choices(mix)
            return
        quant, overrides = mix.recipe, mix.overrides()
    elif imatrix or calibrate or text_file:
        matrix = importance_of(source, imatrix=imatrix, text_file=text_file, threads=threads)
    context = options_of_mix.context
    if cache_type and "onnx" not in dict(several):
        raise UsageError("--cache-type is for --to onnx")
    if context and "onnx" not in dict(several) and not options_of_mix.budget:
        raise UsageError("-c is the context that --budget means, or --to onnx writes tables for")
    options = {
        "lora": lora,
        "cache": cache_type,
        "context": context if not to_size else None,
        "merge_lora": merge_lora,
        "mode": mlc_mode,
        "importance": matrix.importance() if matrix else None,
    }
    if measuring:
        folder = (output or Path()) if len(several) > 1 else target.parent
        if len(several) > 1:
            targets = [(f, q, folder / f"{name}-{str(q).lower()}.{f}") for f, q in several]
        else:
            targets = [(to, quant, target)]
        convert_several(
            source,
            targets,
            folder / name,
            report,
            calibrated_on=text_file if calibrate or text_file else False,
            threads=threads,
            as_json=as_json,
            options={
                **{key: value for key, value in options.items() if value is not None},
                **({"overrides": overrides} if overrides != Overrides() else {}),
            },
        )
        return
    with conversion_bar(f"converting {name}") as show:
        done = edgeinfer.convert(
            source,
            to=to,
            quant=quant,
            output=target,
            overrides=overrides,
            threads=threads,
            progress=show,
            verify=verify,
            **{name: value for name, value in options.items() if value is not None},
        )
    if as_json:
        ui.emit_json(done.to_json())
    else:
        _summarise(done.to_json())


def _pattern_and_type(text: str) -> tuple[str, str]:
    pattern, found, type_ = text.rpartition("=")
    if not found or not pattern or not type_:
        raise UsageError(
            f"--tensor-type {text!r} is not PATTERN=TYPE", hint="for example ffn_down=q6_k"
        )
    return pattern, type_


def _summarise(report: Mapping[str, Any]) -> None:
    types = ", ".join(f"{count} {name}" for name, count in report["types"].items())
    ui.emit(
        f"{report['output']}: {ui.format_bytes(report['bytes_out'])} "
        f"from {ui.format_bytes(report['bytes_in'])}, "
        f"{report['bits_per_weight']:.2f} bits a weight, "
        f"{report['tensors']} tensors ({types}), {report['seconds']:.1f} s, "
        f"{ui.format_bytes(report['peak_resident_bytes'])} of memory at the peak"
    )
    for change, count in report["replaced"].items():
        ui.emit(f"{change} in {count} tensors, whose rows are not whole blocks")
    for change, count in report["requantised"].items():
        ui.emit(f"{change} in {count} tensors, decoded and encoded anew")
    for note in report["notes"]:
        ui.emit(f"note: {note}")
    if report["verification"]:
        _tell_verification(report["verification"])


def _tell_verification(found: Mapping[str, Any]) -> None:
    worst = ", ".join(
        f"{tensor['name']} {tensor['type']} {tensor['error']:.2%} (limit {tensor['limit']:.2%})"
        for tensor in found["worst"]
    )
    ui.emit(
        f"verified: {found['tensors']} tensors, {found['texts']} texts, KL {found['kl_mean']:.5f} "
        f"(limit {found['kl_limit']:.3f}) and {found['top1_agreement']:.1%} the same top token of "
        f"{found['tokens']}; worst tensors: {worst}"
    )
