"""A model's numbers as its file states them: what config.json and GGUF metadata have in common.

``from_hf`` and ``from_gguf`` read them, ``to_gguf`` writes them, ``model_config`` resolves
them for a context length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgeinfer.arch.config import Mixer, ModelConfig, Pooling, RopeTable
from edgeinfer.arch.rope import NEEDS_ORIGINAL, Rope, RopeKind
from edgeinfer.arch.spec import Architecture
from edgeinfer.errors import CorruptFileError, UnsupportedError

# Largest values that any known model comes near; beyond them a file is broken or hostile.
_LIMITS = {
    "vocab_size": 1 << 24,
    "context": 1 << 30,
    "layers": 1 << 10,
    "width": 1 << 17,
    "heads": 1 << 12,
    "kv_heads": 1 << 12,
    "head_dim": 1 << 12,
    "ff_width": 1 << 20,
    "experts": 1 << 12,
    "experts_used": 1 << 12,
    "conv_taps": 16,
    "delta_heads": 1 << 12,
    "delta_key_heads": 1 << 12,
    "delta_dim": 1 << 12,
    "laurel_rank": 1 << 16,
}
# The same of what is 0 where there is none.
_OPTIONAL_LIMITS = {
    "token_types": 1 << 12,
    "dense_ff_width": 1 << 20,
    "local_head_dim": 1 << 12,
    "shared_kv_layers": 1 << 10,
    "per_layer_width": 1 << 16,
}
MOST_STREAMS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """Numbers of one model, not yet resolved for a context.

    Attributes:
        rope: the rotary embedding; that of the layers without a window where
            ``local_rope`` is set.
        local_rope: the rotary embedding of windowed layers, None if it is the same.
        window: sliding window in tokens, 0 for none.
        windowed: per layer, whether the window applies.
        rotated: per layer, whether there is a rotary embedding.
        mixers: per layer, what mixes its tokens; empty for attention in all.
        conv_taps: of the causal convolutions of recurrent layers.
        delta_heads, delta_key_heads, delta_dim: of gated delta nets.
        dense_ff_width: of a feed-forward block without experts, beside them or in the first layers;
            0 for none.
        dense_layers: so many of the first layers have no experts.
        expert_weights_scale: multiplies the weights of experts.
        local_head_dim: of layers with a window, 0 if it is that of the others.
        layer_kv_heads, layer_ff_width: per layer, empty if all have the same.
        shared_kv_layers: so many of the last layers read the keys and values of the last one
            before them that is windowed as they are.
        key_is_value: per layer, whether its keys are its values; empty for none.
        per_layer_width: of the inputs that layers have of their own, 0 for none.
        streams: residual streams.
        laurel_rank: of what layers add beside attention, 0 for nothing.
        cutoffs: per layer, the standard deviations above the mean from which on gates count, -inf
            where all do; empty where all layers' do.
        pooling: what the file says of embeddings, None if it does not.
    """

    name: str = ""
    vocab_size: int
    context: int
    token_types: int = 0
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff_width: int
    experts: int = 0
    experts_used: int = 0
    norm_eps: float
    rope: Rope
    local_rope: Rope | None = None
    window: int = 0
    windowed: tuple[bool, ...] = ()
    rotated: tuple[bool, ...] = ()
    mixers: tuple[Mixer, ...] = ()
    conv_taps: int = 0
    delta_heads: int = 0
    delta_key_heads: int = 0
    delta_dim: int = 0
    dense_ff_width: int = 0
    dense_layers: int = 0
    expert_weights_scale: float = 1.0
    local_head_dim: int = 0
    layer_kv_heads: tuple[int, ...] = ()
    layer_ff_width: tuple[int, ...] = ()
    shared_kv_layers: int = 0
    key_is_value: tuple[bool, ...] = ()
    per_layer_width: int = 0
    streams: int = 1
    laurel_rank: int = 0
    cutoffs: tuple[float, ...] = ()
    attention_scale: float
    attention_softcap: float = 0.0
    output_softcap: float = 0.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    output_scale: float = 1.0
    tied_output: bool = False
    pooling: Pooling | None = None

    def model_config(self, arch: Architecture, context: int | None = None) -> ModelConfig:
        """Resolves the numbers for sequences of up to ``context`` tokens.

        Args:
            arch: the family.
            context: tokens, None for the trained context; decides between LongRoPE's
                long and short divisors.
        """
        context = self.context if context is None else context
        tables: list[RopeTable] = [self.rope.table(context)] if any(self.rotated) else []
        local = 0
        if tables and self.local_rope is not None:
            tables.append(self.local_rope.table(context))
            local = 1
        return ModelConfig(
            architecture=arch.name,
            name=self.name,
            vocab_size=self.vocab_size,
            context=self.context,
            positions=self.context if arch.learned_positions else 0,
            token_types=self.token_types,
            causal=arch.causal,
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=max(self.head_dim, self.local_head_dim),
            layer_head_dim=varied(
                self.local_head_dim or self.head_dim if windowed else self.head_dim
                for windowed in self.windowed
            ),
            layer_kv_heads=self.layer_kv_heads,
            layer_ff_width=self.layer_ff_width,
            layer_kv=self._layer_kv(),
            layer_key_is_value=self.key_is_value,
            value_norm=arch.value_norm,
            per_layer_width=self.per_layer_width,
            streams=self.streams,
            laurel_rank=self.laurel_rank,
            layer_cutoff=self.cutoffs,
            dense_ff_width=self.dense_ff_width,
            dense_layers=self.dense_layers,
            ff_width=self.ff_width,
            experts=self.experts,
            experts_used=self.experts_used,
            router=arch.router,
            expert_weights_norm=arch.expert_weights_norm,
            expert_weights_scale=self.expert_weights_scale,
            norm_eps=self.norm_eps,
            norm=arch.norm,
            gated=arch.gated,
            activation=arch.activation,
            norm_placement=arch.norm_placement,
            qk_norm=arch.qk_norm,
            rope_style=arch.rope_style,
            rope_tables=tuple(tables),
            layer_rope=tuple(
                -1 if not rotated else local if windowed else 0
                for windowed, rotated in zip(self.windowed, self.rotated, strict=True)
            ),
            layer_window=tuple(self.window if windowed else 0 for windowed in self.windowed),
            layer_mixer=self.mixers,
            conv_taps=self.conv_taps,
            delta_heads=self.delta_heads,
            delta_key_heads=self.delta_key_heads,
            delta_dim=self.delta_dim,
            delta_tiled=arch.delta_tiled,
            attention_gate=arch.attention_gate,
            shared_expert=arch.has_shared_expert and self.experts > 0,
            attention_scale=self.attention_scale,
            attention_softcap=self.attention_softcap,
            output_softcap=self.output_softcap,
            embedding_scale=self.embedding_scale,
            residual_scale=self.residual_scale,
            output_scale=self.output_scale,
            tied_output=self.tied_output,
            pooling=self.pooling or Pooling.MEAN,
        )

    def _layer_kv(self) -> tuple[int, ...]:
        """Returns the layer whose keys and values each layer reads; nothing if all their own."""
        first = self.layers - self.shared_kv_layers
        if not self.shared_kv_layers:
            return ()
        last = {self.windowed[i]: i for i in range(first)}
        return tuple(i if i < first else last[self.windowed[i]] for i in range(self.layers))

    def check(self, key: Callable[[str], str]) -> None:
        """Checks the ranges and how the numbers fit each other.

        Args:
            key: names the file's key of a field, for the error.

        Raises:
            CorruptFileError: a number makes no sense.
        """
        for field, most in _OPTIONAL_LIMITS.items():
            if not 0 <= (size := getattr(self, field)) <= most:
                raise CorruptFileError(f"{key(field)} is {size}, expected 0 to {most}")
        for field in _LIMITS:
            is_there = {"experts": self.experts, "conv_taps": self.mixers}
            is_there["laurel_rank"] = self.laurel_rank
            if field.startswith("delta"):
                is_there[field] = Mixer.DELTA_NET in self.mixers
            if is_there.get(field.removesuffix("_used"), True):
                check_size(field, getattr(self, field), key)
        if self.experts_used > self.experts:
            raise CorruptFileError(
                f"{key('experts_used')} is {self.experts_used}, of {self.experts} experts"
            )
        if self.delta_key_heads and self.delta_heads % self.delta_key_heads:
            raise CorruptFileError(
                f"{key('delta_heads')} is {self.delta_heads}, not a multiple of "
                f"{key('delta_key_heads')}, which is {self.delta_key_heads}"
            )
        if self.heads % self.kv_heads:
            raise CorruptFileError(
                f"{key('heads')} is {self.heads}, not a multiple of "
                f"{key('kv_heads')}, which is {self.kv_heads}"
            )
        if not 0 < self.norm_eps < 1:
            raise CorruptFileError(f"{key('norm_eps')} is {self.norm_eps}, expected 0 to 1")
        if self.window < 0:
            raise CorruptFileError(f"{key('window')} is {self.window}, expected at least 0")
        if not 0 <= self.dense_layers < self.layers:
            raise CorruptFileError(
                f"{key('dense_layers')} is {self.dense_layers}, of {self.layers} layers"
            )
        if self.dense_layers:
            check_size("ff_width", self.dense_ff_width, key)
        for field in (
            *("attention_scale", "embedding_scale", "residual_scale", "output_scale"),
            "expert_weights_scale",
        ):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise CorruptFileError(f"{key(field)} gives {field} {value}, expected above 0")
        for field in ("attention_softcap", "output_softcap"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0):
                raise CorruptFileError(f"{key(field)} is {value}, expected at least 0")
        if not 1 <= self.streams <= MOST_STREAMS:
            raise CorruptFileError(
                f"{key('streams')} is {self.streams}, expected 1 to {MOST_STREAMS}"
            )
        for cutoff in self.cutoffs:
            if not cutoff < math.inf:
                raise CorruptFileError(f"{key('cutoffs')} has {cutoff}: no gate would count")
        for heads in self.layer_kv_heads:
            if heads < 1 or self.heads % heads:
                raise CorruptFileError(f"{key('kv_heads')} has {heads}, of {self.heads} heads")
        for width in self.layer_ff_width:
            check_size("ff_width", width, key)
        first = self.layers - self.shared_kv_layers
        if self.shared_kv_layers and not set(self.windowed[:first]) >= set(self.windowed):
            raise CorruptFileError(
                f"{key('shared_kv_layers')} is {self.shared_kv_layers}: none of the first {first} "
                "layers has keys and values for all others"
            )
        if len(set(self.layer_ff_width)) > 1 and self.experts:
            raise UnsupportedError("experts, and layers of different widths")
        local = self.local_head_dim or self.head_dim
        for rope, head_dim in ((self.rope, self.head_dim), (self.local_rope, local)):
            if rope is not None:
                _check_rope(rope, head_dim, key)


def varied(values: Iterable[int]) -> tuple[int, ...]:
    """Returns each layer's number; nothing if all have the same."""
    numbers = tuple(values)
    return numbers if len(set(numbers)) > 1 else ()


def check_size(field: str, size: int, key: Callable[[str], str]) -> int:
    """Returns a size that is within its limits, so that memory may be taken for it.

    Raises:
        CorruptFileError: it is not.
    """
    if not 1 <= size <= _LIMITS[field]:
        raise CorruptFileError(f"{key(field)} is {size}, expected 1 to {_LIMITS[field]}")
    return size


def _check_rope(rope: Rope, head_dim: int, key: Callable[[str], str]) -> None:
    if not 2 <= rope.dim <= head_dim or rope.dim % 2:
        raise CorruptFileError(
            f"{key('rope.dim')} gives {rope.dim} rotary lanes, "
            f"expected an even number up to the head's {head_dim}"
        )
    if not (math.isfinite(rope.base) and rope.base > 1):
        raise CorruptFileError(f"{key('rope.base')} is {rope.base}, expected above 1")
    for field in ("factor", "attention_factor", "beta_fast", "beta_slow"):
        value = getattr(rope, field)
        if not (math.isfinite(value) and value > 0):
            raise CorruptFileError(f"{key('rope.' + field)} is {value}, expected above 0")
    if rope.kind in NEEDS_ORIGINAL and rope.original_context < 2:
        raise CorruptFileError(
            f"{key('rope.original_context')} is {rope.original_context}, expected at least 2"
        )
    for field in ("divisors", "long_divisors", "short_divisors"):
        divisors = getattr(rope, field)
        wanted = field != "divisors" and rope.kind is RopeKind.LONGROPE
        if (divisors or wanted) and len(divisors) != rope.dim // 2:
            raise CorruptFileError(
                f"{key('rope.' + field)} has {len(divisors)} values, "
                f"expected one for each of {rope.dim // 2} pairs"
            )
        if not all(math.isfinite(d) and d > 0 for d in divisors):
            raise CorruptFileError(f"{key('rope.' + field)} has a value that is not above 0")


def period_pattern(period: int, layers: int, *, first: bool = False) -> tuple[bool, ...]:
    """Returns, per layer, whether it is *not* an n-th one: all for 0, none for 1.

    Of each n layers that is the last one, or the ``first``.
    """
    offset = 0 if first else 1
    return tuple(period == 0 or (i + offset) % period != 0 for i in range(layers))


def mixers_of(recurrent: Mixer, attends: Iterable[bool]) -> tuple[Mixer, ...]:
    """Returns, per layer, attention or the recurrence; nothing if all have attention."""
    mixers = tuple(Mixer.ATTENTION if here else recurrent for here in attends)
    return mixers if recurrent in mixers else ()


def default_attention_scale(
    arch: Architecture, *, layers: int, width: int, heads: int, head_dim: int
) -> float:
    """Returns what multiplies q.k where the file does not say."""
    if arch.attention_scale:
        return arch.attention_scale
    per_head = width / heads if arch.wide_scale_layers == layers else head_dim
    return 1.0 / math.sqrt(per_head)
