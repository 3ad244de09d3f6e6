"""What a conversion kept of a model, as a report: Markdown for people, JSON for programs.

It is made of the reports of the conversion and the records of the evaluation, one an output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeinfer.evaluation.report import Record, table
from edgeinfer.formats.atomic import AtomicFile

_MEASURED = {
    "perplexity": "{perplexity:.4f} ± {perplexity_error:.4f}",
    "ratio": "{perplexity_ratio:.4f} ± {perplexity_ratio_error:.4f}",
    "KL mean": "{kl_mean:.6f} ± {kl_mean_error:.6f}",
    "same top": "{top1_agreement:.2%} ± {top1_agreement_error:.2%}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """What became of a source.

    Attributes:
        source: what was converted.
        conversions: reports of the outputs.
        records: of each output that was measured, by its path.
        reasons: why the others were not, by their path.
        text: path, bytes and SHA-256 of the text.
        calibrated: the outputs' encoders knew what the text does to the matrices.
    """

    source: str
    conversions: Sequence[Record]
    records: Mapping[str, Record]
    reasons: Mapping[str, str]
    text: Record
    calibrated: bool = False

    def to_json(self) -> dict[str, Any]:
        """The whole record."""
        return {
            "source": self.source,
            "text": dict(self.text),
            "calibrated_on_the_text": self.calibrated,
            "outputs": [
                {
                    **conversion,
                    "fidelity": self.records.get(conversion["output"]),
                    "not_measured": self.reasons.get(conversion["output"]),
                }
                for conversion in self.conversions
            ],
        }

    def columns(self) -> dict[str, list[str]]:
        """The figures as a table: heading -> a cell an output."""
        rows = [(c, self.records.get(c["output"])) for c in self.conversions]
        return {
            "format": [c["format"] for c, _ in rows],
            "quant": [c["quant"] for c, _ in rows],
            "backend": [r["backend"] if r else "not measured" for _, r in rows],
            "MB": [f"{c['bytes_out'] / 1e6:.1f}" for c, _ in rows],
            "bits": [f"{c['bits_per_weight']:.2f}" for c, _ in rows],
            **{
                head: [form.format_map(r) if r else "" for _, r in rows]
                for head, form in _MEASURED.items()
            },
        }

    def about(self) -> list[str]:
        """Sentences on how it was measured, and what was not."""
        lines = []
        for record in list(self.records.values())[:1]:
            lines.append(
                f"reference: the source's weights as they are, f32 arithmetic and cache, "
                f"{record['reference']['backend']} {record['reference']['version']}: perplexity "
                f"{record['reference_perplexity']:.4f} ± {record['reference_perplexity_error']:.4f}"
            )
            lines.append(
                f"text: {self.text['path']}, SHA-256 {self.text['sha256']}, {record['chunks']} "
                f"chunks of {record['context']} tokens, the second halves scored: "
                f"{record['tokens']} tokens"
            )
            if self.calibrated:
                lines.append(
                    "the importance matrix was collected on this text, which flatters who uses it"
                )
        for path, reason in self.reasons.items():
            lines.append(f"not measured: {Path(path).name}: {reason}")
        return lines

    def markdown(self) -> str:
        """The report for people."""
        first = self.conversions[0]
        lines = [
            f"# {Path(self.source).name}: what the formats keep",
            "",
            f"- source: `{self.source}`, {first['architecture']}, {first['parameters']:,} weights, "
            f"{first['bytes_in'] / 1e6:.1f} MB; all formats written in one pass, "
            f"{first['seconds']:.1f} s, {first['peak_resident_bytes'] / 1e6:.0f} MB of memory at "
            "the peak",
            *(f"- {line}" for line in self.about()),
            "",
            *table(self.columns(), text=3),
            "",
            "± is a standard error, ratio the perplexity over the reference's, KL the divergence "
            "KL(reference ‖ output) in nats a token, same top how often both hold the same token "
            "for the likeliest. Each output ran on its own backend, so that the backend's "
            "arithmetic is part of the figures. Bits a weight are those of all tensors, "
            "embedding and output included, which some formats store in more bits than the rest.",
            "",
        ]
        for conversion in self.conversions:
            lines += [f"## {Path(conversion['output']).name}", ""]
            kinds = ", ".join(f"{count} {kind}" for kind, count in conversion["types"].items())
            lines += [f"- tensors: {kinds}"]
            for what, changes in (
                ("decoded and encoded anew", conversion["requantised"]),
                ("rows that are not whole blocks", conversion["replaced"]),
            ):
                lines += [
                    f"- {change}: {_tensors(count)}, {what}" for change, count in changes.items()
                ]
            lines += [*(f"- note: {note}" for note in conversion["notes"]), ""]
        return "\n".join(lines)

    def write(self, stem: Path) -> list[Path]:
        """Writes STEM.fidelity.md and STEM.fidelity.json, and returns their paths.

        Raises:
            EdgeInferError: a file cannot be written.
        """
        whole = json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"
        files = {
            stem.with_name(f"{stem.name}.fidelity.md"): self.markdown(),
            stem.with_name(f"{stem.name}.fidelity.json"): whole,
        }
        for path, text in files.items():
            with AtomicFile(path) as file:
                file.write(text.encode())
        return list(files)


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"
