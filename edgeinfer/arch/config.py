"""ModelConfig: one model's numbers, resolved, the same fields in Python and C++.

Everything a family leaves to convention (which layers have a window, how RoPE is scaled,
what the attention scale is) is resolved here into plain numbers per layer, so that the
engines have no branch on a family's name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum


class Activation(str, Enum):
    """The nonlinearity of the feed-forward block."""

    SILU = "silu"
    GELU_TANH = "gelu_tanh"
    GELU_ERF = "gelu_erf"
    CLAMPED_SWIGLU = "clamped_swiglu"  # gate and up within limits, and one added to up


class Norm(str, Enum):
    """What a norm is: by the root mean square, or by mean and variance and with a bias."""

    RMS = "rms"
    LAYER = "layer"


class NormPlacement(str, Enum):
    """Where the norms of a block sit: before it, after it, both, or on what it is added to.

    ``SUM`` is how transformers began: x = norm(x + block(x)).
    """

    PRE = "pre"
    POST = "post"
    SANDWICH = "sandwich"
    SUM = "sum"


class QkNorm(str, Enum):
    """RMS norm on queries and keys: none, over each head, or over the whole projection."""

    NONE = "none"
    HEAD = "head"
    FULL = "full"


class RopeStyle(str, Enum):
    """Which pairs of lanes the rotary embedding turns.

    ``NEIGHBOURS`` pairs (2i, 2i+1), ``HALVES`` pairs (i, i + rope_dim/2).
    """

    HALVES = "halves"
    NEIGHBOURS = "neighbours"


class Pooling(str, Enum):
    """How the hidden states of a text's tokens become one vector."""

    MEAN = "mean"
    FIRST = "first"
    LAST = "last"


class Router(str, Enum):
    """How the scores of experts become weights.

    ``SIGMOID`` takes each score by itself, and chooses by the weight and a bias of the expert.
    """

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


class Mixer(str, Enum):
    """What mixes the tokens of a layer: attention to a cache, or a recurrence with a state."""

    ATTENTION = "attention"
    SHORT_CONV = "short_conv"
    DELTA_NET = "delta_net"


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeTable:
    """One rotary embedding: angle = position * inverse_frequencies[i].

    ``magnitude`` multiplies sine and cosine (YaRN's and LongRoPE's attention factor).
    """

    inverse_frequencies: tuple[float, ...]  # (rope_dim / 2,)
    magnitude: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A transformer, as numbers."""

    architecture: str  # general.architecture of the GGUF
    name: str = ""
    vocab_size: int
    context: int  # tokens the model was trained for
    positions: int = 0  # rows of a learned position table, 0 for none
    token_types: int = 0  # rows of a table whose first is added to every token, 0 for none
    # Tokens see those before them; else all of their text, and there are no logits.
    causal: bool = True
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff_width: int  # of each expert where there are experts
    experts: int = 0  # feed-forward blocks to choose from; 0 for one that all tokens take
    experts_used: int = 0  # how many a token takes
    router: Router = Router.SOFTMAX
    expert_weights_norm: bool = True  # their weights add up to 1
    expert_weights_scale: float = 1.0  # multiplies them
    dense_layers: int = 0  # the first layers, which have one block in place of experts
    norm_eps: float
    norm: Norm = Norm.RMS
    gated: bool = True  # feed-forward: activation(gate) * up, else activation(up)
    activation: Activation = Activation.SILU
    norm_placement: NormPlacement = NormPlacement.PRE
    qk_norm: QkNorm = QkNorm.NONE
    rope_style: RopeStyle = RopeStyle.HALVES
    rope_tables: tuple[RopeTable, ...] = ()
    layer_rope: tuple[int, ...] = ()  # per layer: index into rope_tables, -1 for none
    layer_window: tuple[int, ...] = ()  # per layer: sliding window in tokens, 0 for none
    layer_mixer: tuple[Mixer, ...] = ()  # per layer; empty: attention in all
    conv_taps: int = 0  # of the causal convolution of recurrent layers
    delta_heads: int = 0  # of values, in gated delta nets
    delta_key_heads: int = 0  # each serves delta_heads / delta_key_heads of them
    delta_dim: int = 0  # of a head's keys and values
    delta_tiled: bool = False  # value head h has key head h % delta_key_heads, else neighbours do
    attention_gate: bool = False  # beside each head's query there is a gate of its output
    shared_expert: bool = False  # one that all tokens take, weighted by a gate of its own
    # Of a block that all tokens take: in the first ``dense_layers``, or beside the experts of all
    # if there are no such layers; 0 for none.
    dense_ff_width: int = 0
    # Where layers differ, each one's; the numbers above are the largest then. Empty: all alike.
    layer_head_dim: tuple[int, ...] = ()
    layer_kv_heads: tuple[int, ...] = ()
    layer_ff_width: tuple[int, ...] = ()
    # Per layer, the one whose keys and values it reads; empty: each its own.
    layer_kv: tuple[int, ...] = ()
    # Per layer, whether its keys are its values, too, each with a norm of its own.
    layer_key_is_value: tuple[bool, ...] = ()
    value_norm: bool = False  # RMS norm of each head's values, without weights
    per_layer_width: int = 0  # of the inputs that each layer has of every token, 0 for none
    streams: int = 1  # residual streams, of which layers compute the first and predict all (AltUp)
    laurel_rank: int = 0  # of what layers add beside attention (LAuReL), 0 for nothing
    # Per layer, the standard deviations above the mean from which on gates count; -inf: all do.
    layer_cutoff: tuple[float, ...] = ()
    attention_scale: float  # multiplies q.k; 1/sqrt(head_dim) unless the family says else
    attention_softcap: float = 0.0  # 0 is off
    output_softcap: float = 0.0  # 0 is off
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    output_scale: float = 1.0  # multiplies the logits
    tied_output: bool = False
    pooling: Pooling = Pooling.MEAN

    def __post_init__(self) -> None:
        assert len(self.layer_rope) == self.layers
        assert len(self.layer_window) == self.layers
        assert len(self.layer_mixer) in (0, self.layers)
        for values in (
            *(self.layer_head_dim, self.layer_kv_heads, self.layer_ff_width),
            *(self.layer_kv, self.layer_key_is_value, self.layer_cutoff),
        ):
            assert len(values) in (0, self.layers)

    def at(self, layer: int) -> ModelConfig:
        """The numbers as a layer has them, where layers differ."""
        if layer < self.dense_layers:
            return replace(
                self,
                experts=0,
                experts_used=0,
                dense_layers=0,
                ff_width=self.dense_ff_width,
                dense_ff_width=0,
            )
        if not (self.layer_head_dim or self.layer_kv_heads or self.layer_ff_width):
            return self
        return replace(
            self,
            head_dim=self.layer_head_dim[layer] if self.layer_head_dim else self.head_dim,
            kv_heads=self.layer_kv_heads[layer] if self.layer_kv_heads else self.kv_heads,
            ff_width=self.layer_ff_width[layer] if self.layer_ff_width else self.ff_width,
        )

    @property
    def has_beside(self) -> bool:
        """Whether all tokens take a block beside the experts."""
        return self.dense_ff_width > 0 and not self.dense_layers

    def has_kv(self, layer: int) -> bool:
        """Whether a layer has keys and values of its own."""
        if self.mixer(layer) is not Mixer.ATTENTION:
            return False
        return not self.layer_kv or self.layer_kv[layer] == layer

    @property
    def has_sparse_gates(self) -> bool:
        """Whether some layers keep only the largest gates."""
        return any(cutoff > -math.inf for cutoff in self.layer_cutoff)

    def key_is_value(self, layer: int) -> bool:
        """Whether a layer's keys are its values, too."""
        return bool(self.layer_key_is_value) and self.layer_key_is_value[layer]

    @property
    def kv_width(self) -> int:
        """A token's keys in a layer, at most."""
        each = (self.at(layer) for layer in range(self.layers))
        return max(numbers.kv_heads * numbers.head_dim for numbers in each)

    def mixer(self, layer: int) -> Mixer:
        """What mixes the tokens of a layer."""
        return self.layer_mixer[layer] if self.layer_mixer else Mixer.ATTENTION

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """That of every layer."""
        return self.layer_mixer or (Mixer.ATTENTION,) * self.layers

    def conv_width(self, mixer: Mixer) -> int:
        """Channels that the causal convolution of a recurrent layer runs over."""
        if mixer is Mixer.DELTA_NET:
            return (2 * self.delta_key_heads + self.delta_heads) * self.delta_dim
        return self.width if mixer is Mixer.SHORT_CONV else 0

    @property
    def projected_width(self) -> int:
        """What the first projection of recurrent layers, or of gated queries, makes, at most."""
        return max(
            3 * self.width if Mixer.SHORT_CONV in self.layer_mixer else 0,
            self.conv_width(Mixer.DELTA_NET) if Mixer.DELTA_NET in self.layer_mixer else 0,
            2 * self.heads * self.head_dim if self.attention_gate else 0,
        )

    @property
    def mixed_width(self) -> int:
        """What a layer's mixer hands to its output projection, at most."""
        widths = {
            Mixer.ATTENTION: self.heads * self.head_dim,
            Mixer.SHORT_CONV: self.width,
            Mixer.DELTA_NET: self.delta_heads * self.delta_dim,
        }
        return max(widths[mixer] for mixer in {Mixer.ATTENTION, *self.layer_mixer})

    @property
    def is_recurrent(self) -> bool:
        """Some layers have a running state, which cannot be cut back to any length."""
        return any(mixer is not Mixer.ATTENTION for mixer in self.layer_mixer)
