"""Every way to run a model on a device, and the one to take, with what speaks against the others.

The pick is what a careful person would choose: of what fits with the context that is wanted and
still generates at a reading pace, the most bits per weight up to 8; then the cache of most bits,
and of two backends with the same weights the faster. The context is given up last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeinfer.device.profile import DeviceProfile
from edgeinfer.formats.adapter import AdapterHeader
from edgeinfer.formats.ggml_types import BY_NAME
from edgeinfer.planner.footprint import Predictor
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.planner.planner import DEFAULT_CONTEXT, plan_model
from edgeinfer.planner.roofline import cautious_ceilings
from edgeinfer.planner.sizes import format_bytes
from edgeinfer.planner.variants import Variant

CACHES = ("f16", "q8_0", "q4_0")
CONTEXTS = (2048, 8192, 32768)  # tokens, besides the wanted and the trained one
READING_PACE = 10.0  # tokens/s
FEWEST_BITS, MOST_BITS = 4.0, 9.0  # a weight; more is no better, fewer cost quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for; None leaves it to the survey."""

    memory: int | None = None  # bytes
    context: int | None = None
    threads: int | None = None
    kv_types: tuple[str, str] | None = None
    adapters: tuple[AdapterHeader, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A way to run the model, and what speaks against it."""

    plan: MemoryPlan
    variant: Variant
    against: str = ""  # empty for the pick, and for what differs only in context or cache

    @property
    def bits(self) -> float:
        """Bits a weight."""
        return 8 * self.variant.outline.file_bytes / self.variant.outline.parameters

    @property
    def turn_seconds(self) -> float:
        """The time of a question and its answer."""
        speed = self.plan.speed
        return speed.turn_seconds if speed else float("inf")

    def to_json(self) -> dict[str, object]:
        """Returns the record that ``--json`` prints."""
        return self.plan.to_json() | {
            "bits_per_weight": round(self.bits, 3),
            "how": self.variant.how,
            "is_exact": self.variant.is_exact,
            "against": self.against,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All ways, in the order of variants, backends, caches and contexts."""

    rows: tuple[Row, ...]
    pick: Row | None  # None: nothing fits
    ceilings_source: str


def survey(
    variants: Sequence[Variant],
    backends: Mapping[str, Predictor],
    device: DeviceProfile,
    wish: Wish,
) -> Survey:
    """Plans every variant with every backend, cache type and context.

    Args:
        variants: the forms of the model; at least one.
        backends: what each predicts, by name; at least one.
        device: where it is to run; without ceilings, cautious ones are taken.
        wish: what is asked for.

    Raises:
        UsageError: what is asked for makes no sense.
    """
    ceilings = device.ceilings or cautious_ceilings(device)
    device = replace(device, ceilings=ceilings)
    rows = [
        Row(plan=plan, variant=variant)
        for variant in variants
        for name, predictor in backends.items()
        for plan in _plans(variant.outline, name, predictor, device, wish)
    ]
    pick = _pick(rows, _wanted(variants[0].outline, wish))
    judged = tuple(replace(row, against=_against(row, pick)) for row in rows)
    best = judged[rows.index(pick)] if pick is not None else None
    return Survey(rows=judged, pick=best, ceilings_source=ceilings.source)


def _plans(
    outline: Outline, backend: str, predictor: Predictor, device: DeviceProfile, wish: Wish
) -> Iterator[MemoryPlan]:
    for keys, values in _caches(outline, wish):
        for context in _contexts(outline, wish):
            yield plan_model(
                outline,
                device=device,
                memory=wish.memory,
                context=context,
                threads=wish.threads,
                kv_type_k=keys,
                kv_type_v=values,
                backend=backend,
                predictor=predictor,
                adapters=wish.adapters,
                refuse=False,
            )


def _wanted(outline: Outline, wish: Wish) -> int:
    return wish.context or min(outline.config.context, DEFAULT_CONTEXT)


def _contexts(outline: Outline, wish: Wish) -> list[int]:
    if wish.context is not None:
        return [wish.context]
    trained = outline.config.context
    usual = (context for context in CONTEXTS if context < trained)
    return sorted({_wanted(outline, wish), *usual, trained})


def _caches(outline: Outline, wish: Wish) -> list[tuple[str, str]]:
    if outline.kv_type:
        return [(outline.kv_type, outline.kv_type)]
    if wish.kv_types is not None:
        return [wish.kv_types]
    if outline.kv_types:
        return [(kind, kind) for kind in outline.kv_types]
    width = outline.config.head_dim
    return [(kind, kind) for kind in CACHES if width % BY_NAME[kind].block == 0]


def _pick(rows: Sequence[Row], wanted: int) -> Row | None:
    fitting = [row for row in rows if row.plan.fits]
    contexts = sorted({row.plan.context for row in fitting if row.plan.context <= wanted})
    caches = list(dict.fromkeys(row.plan.kv_types for row in rows))
    for fewest in (FEWEST_BITS, 0.0):
        for context in reversed(contexts):
            # The second type costs hardly any accuracy, the others do.
            for some in (caches[:2], caches[2:]):
                here = [
                    row
                    for row in fitting
                    if row.plan.context == context
                    and row.plan.kv_types in some
                    and row.bits >= fewest
                ]
                if here:
                    return _best(here, caches)
    return None


def _best(rows: Sequence[Row], caches: Sequence[str]) -> Row:
    """Of rows of one context: the most bits at a reading pace, else the fastest."""

    def cache(row: Row) -> int:
        return caches.index(row.plan.kv_types)

    lean = [row for row in rows if row.bits <= MOST_BITS] or rows
    readable = [row for row in lean if _pace(row) >= READING_PACE]
    if not readable:
        return min(lean, key=lambda row: (row.turn_seconds, cache(row)))
    return max(readable, key=lambda row: (round(row.bits, 1), -cache(row), -row.turn_seconds))


def _pace(row: Row) -> float:
    return row.plan.decode_tokens_per_second or 0.0


def _against(row: Row, pick: Row | None) -> str:
    plan = row.plan
    if not plan.fits:
        return f"needs {format_bytes(plan.needed_bytes - plan.budget_bytes)} more"
    if pick is None or row is pick:
        return ""
    if row.variant is pick.variant:
        if plan.backend == pick.plan.backend:
            return ""
        times = row.turn_seconds / pick.turn_seconds
        return f"{times:.1f}x slower" if times >= 1 else "other cache or context"
    if row.bits > MOST_BITS:
        return "no better than 8 bits"
    if row.bits < pick.bits:
        return "fewer bits"
    return f"under {READING_PACE:.0f} tokens/s" if _pace(row) < READING_PACE else "slower"
