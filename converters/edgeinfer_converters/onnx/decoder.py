"""The decoder as an ONNX graph, drawn from a model's numbers and the tensors it has.

Inputs and outputs have the names that onnxruntime-genai gives them. One input more need not be
given: ``num_logits``, after how many of the last tokens logits are wanted (1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeinfer.arch.config import Activation, ModelConfig, QkNorm, RopeStyle, RopeTable
from edgeinfer_converters.onnx.forms import FLOAT
from edgeinfer_converters.onnx.graph import MICROSOFT, Graph
from edgeinfer_converters.onnx.weights import Weights, same_form

if TYPE_CHECKING:
    import onnx_ir as ir

_ACCURACY = 4  # of MatMulNBits: activations are quantised to 8 bits, which is the fast way
_TOTAL = "total_sequence_length"
_FAR = np.iinfo(np.int64).max


def draw(graph: Graph, config: ModelConfig, weights: Weights, context: int) -> None:
    """Draws the decoder for up to ``context`` tokens, and declares the weights it takes."""
    _Decoder(graph, config, weights, context).draw()


class _Decoder:
    def __init__(self, graph: Graph, config: ModelConfig, weights: Weights, context: int) -> None:
        self.graph, self.config, self.weights = graph, config, weights
        self.context = context
        self.stream: ir.Value  # the residual stream, (batch, tokens, width)
        self.pending: ir.Value | None = None  # a block's output, not yet added to it

    def draw(self) -> None:
        graph, config = self.graph, self.config
        tokens = graph.input("input_ids", "int64", ["batch_size", "sequence_length"])
        mask = graph.input("attention_mask", "int64", ["batch_size", _TOTAL])
        self.lengths = self._lengths(mask)
        self.ropes = [
            self._rope(number, table)
            for number, table in enumerate(config.rope_tables)
            if number in config.layer_rope
        ]
        past = [
            [self._cache("past_key_values", i, part) for part in ("key", "value")]
            for i in range(config.layers)
        ]
        wanted = graph.option("num_logits", 1)
        self.stream = self._scaled(self._embedded(tokens), config.embedding_scale)
        present = []
        for i in range(config.layers):
            attended, *caches = self._attention(i, past[i])
            present.append(caches)
            self._block_output(attended, f"blk.{i}.post_attention_norm.weight")
            self._block_output(self._feed_forward(i), f"blk.{i}.post_ffw_norm.weight")
        hidden = self._last(self._normed("output_norm.weight"), wanted)
        logits = self._logits(hidden)
        # Declared as for the default; more rows come when more are wanted.
        graph.output(logits, "logits", "float", ["batch_size", 1, config.vocab_size])
        for i, caches in enumerate(present):
            for part, value in zip(("key", "value"), caches, strict=True):
                shape = _shape(
                    "batch_size", config.kv_heads, "total_sequence_length", config.head_dim
                )
                graph.output(value, f"present.{i}.{part}", "float", shape)
        graph.output(hidden, "hidden_states", "float", ["batch_size", 1, config.width])

    # ---- the ends ------------------------------------------------------------------------

    def _lengths(self, mask: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The place of each sequence's last token, and the longest length."""
        graph = self.graph
        axis, one = graph.constant([1], "int64"), graph.constant(1, "int64")
        last = graph.node("Sub", graph.node("ReduceSum", mask, axis, keepdims=0), one)
        longest = graph.node("Gather", graph.node("Shape", mask), one, axis=0)
        int32 = 6  # of onnx.TensorProto.DataType
        return graph.node("Cast", last, to=int32), graph.node("Cast", longest, to=int32)

    def _rope(self, number: int, table: RopeTable) -> tuple[ir.Value, ir.Value]:
        """Cosines and sines, (context, lanes / 2) each."""
        angles = np.outer(np.arange(self.context), np.asarray(table.inverse_frequencies))
        names = ((f"rope.{number}.cos", np.cos), (f"rope.{number}.sin", np.sin))
        cos, sin = (
            self.graph.weight(
                self.weights.given(name, (table.magnitude * wave(angles)).astype(np.float32))
            )
            for name, wave in names
        )
        return cos, sin

    def _cache(self, kind: str, layer: int, part: str) -> ir.Value:
        config = self.config
        shape = _shape("batch_size", config.kv_heads, "past_sequence_length", config.head_dim)
        return self.graph.input(f"{kind}.{layer}.{part}", "float", shape)

    def _embedded(self, tokens: ir.Value) -> ir.Value:
        graph, matrix = self.graph, self.weights.matrix("token_embd.weight")
        values = graph.weight(matrix.values)
        if matrix.scales is None:
            out: ir.Value = graph.node("Gather", values, tokens, axis=0)
            return out
        out = graph.node(
            "GatherBlockQuantized",
            values,
            tokens,
            graph.weight(matrix.scales),
            domain=MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            block_size=matrix.form.block,
            bits=matrix.form.bits,
        )
        return out

    def _last(self, hidden: ir.Value, wanted: ir.Value) -> ir.Value:
        """The hidden states of the last tokens."""
        graph = self.graph
        length = graph.node("Shape", hidden, start=1, end=2)
        out: ir.Value = graph.node(
            "Slice",
            hidden,
            graph.node("Sub", length, wanted),
            graph.constant([int(_FAR)], "int64"),
            graph.constant([1], "int64"),
        )
        return out

    def _logits(self, hidden: ir.Value) -> ir.Value:
        graph, cap = self.graph, self.config.output_softcap
        tied = self.config.tied_output
        logits = self._product(hidden, "token_embd.weight" if tied else "output.weight")
        logits = self._scaled(logits, self.config.output_scale)
        if cap:
            capped = graph.node("Tanh", graph.node("Div", logits, graph.constant(cap)))
            logits = graph.node("Mul", capped, graph.constant(cap))
        return logits

    # ---- blocks --------------------------------------------------------------------------

    def _attention(self, i: int, past: list[ir.Value]) -> list[ir.Value]:
        """Returns the attention's output, and the caches with its keys and values."""
        graph, config = self.graph, self.config
        inputs = self._normed(f"blk.{i}.attn_norm.weight")
        names = [f"blk.{i}.attn_{part}.weight" for part in "qkv"]
        queries: ir.Value
        keys: ir.Value | None = None
        values: ir.Value | None = None
        if config.qk_norm is QkNorm.NONE and same_form(self.weights, names):
            queries = self._product(inputs, *names)
        else:
            queries, keys, values = (self._product(inputs, name) for name in names)
            queries = self._head_norm(queries, f"blk.{i}.attn_q_norm.weight")
            keys = self._head_norm(keys, f"blk.{i}.attn_k_norm.weight")
        rope = config.layer_rope[i]
        cos, sin = self._ropes_of(rope)
        attended, *caches = graph.node(
            "GroupQueryAttention",
            queries,
            keys,
            values,
            *past,
            *self.lengths,
            cos,
            sin,
            domain=MICROSOFT,
            outputs=3,
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
            scale=config.attention_scale,
            softcap=config.attention_softcap,
            local_window_size=config.layer_window[i] or -1,
            do_rotary=int(rope >= 0),
            rotary_interleaved=int(config.rope_style is RopeStyle.NEIGHBOURS),
        )
        return [self._product(attended, f"blk.{i}.attn_output.weight"), *caches]

    def _ropes_of(self, number: int) -> tuple[ir.Value | None, ir.Value | None]:
        if number < 0:
            return None, None
        used = sorted(set(self.config.layer_rope) - {-1})
        return self.ropes[used.index(number)]

    def _feed_forward(self, i: int) -> ir.Value:
        graph = self.graph
        inputs = self._normed(f"blk.{i}.ffn_norm.weight")
        gate = self._product(inputs, f"blk.{i}.ffn_gate.weight")
        up = self._product(inputs, f"blk.{i}.ffn_up.weight")
        if self.config.activation is Activation.SILU:
            gate = graph.node("QuickGelu", gate, domain=MICROSOFT, alpha=1.0)
        else:
            gate = graph.node("FastGelu", gate, domain=MICROSOFT)
        return self._product(graph.node("Mul", gate, up), f"blk.{i}.ffn_down.weight")

    def _block_output(self, output: ir.Value, norm: str) -> None:
        """Takes a block's output, to be added to the stream by whoever reads that next."""
        if norm in self.weights:
            output = self._norm(output, norm)
        if self.pending is not None:  # nobody read it between: no norm before the block
            self.stream = self.graph.node("Add", self.stream, self.pending)
        self.pending = self._scaled(output, self.config.residual_scale)

    # ---- parts ---------------------------------------------------------------------------

    def _normed(self, norm: str) -> ir.Value:
        """The stream, all blocks added, and normed if there is such a norm."""
        graph = self.graph
        if norm not in self.weights:
            if self.pending is not None:
                self.stream, self.pending = graph.node("Add", self.stream, self.pending), None
            return self.stream
        if self.pending is None:
            return self._norm(self.stream, norm)
        gamma = graph.weight(self.weights.vector(norm))
        normed, _, _, self.stream = graph.node(
            "SkipSimplifiedLayerNormalization",
            self.stream,
            self.pending,
            gamma,
            domain=MICROSOFT,
            outputs=4,
            epsilon=self.config.norm_eps,
        )
        self.pending = None
        out: ir.Value = normed
        return out

    def _norm(self, value: ir.Value, norm: str) -> ir.Value:
        gamma = self.graph.weight(self.weights.vector(norm))
        out: ir.Value = self.graph.node(
            "SimplifiedLayerNormalization", value, gamma, axis=-1, epsilon=self.config.norm_eps
        )
        return out

    def _head_norm(self, value: ir.Value, norm: str) -> ir.Value:
        """Norms queries or keys: each head, or the whole projection, or not at all."""
        graph, config = self.graph, self.config
        if norm not in self.weights:
            return value
        if config.qk_norm is QkNorm.FULL:
            return self._norm(value, norm)
        shape = graph.node("Shape", value)
        heads = graph.node("Reshape", value, graph.constant([0, -1, config.head_dim], "int64"))
        out: ir.Value = graph.node("Reshape", self._norm(heads, norm), shape)
        return out

    def _scaled(self, value: ir.Value, scale: float) -> ir.Value:
        if scale == 1.0:
            return value
        out: ir.Value = self.graph.node("Mul", value, self.graph.constant(scale))
        return out

    def _product(self, inputs: ir.Value, *names: str) -> ir.Value:
        """Inputs times a matrix, or several stored as one, with their biases."""
        graph, matrix = self.graph, self.weights.matrix(*names)
        biases = [name.replace(".weight", ".bias") for name in names]
        bias = None
        if biases[0] in self.weights:
            bias = graph.weight(self.weights.vector(*biases))
        if matrix.form == FLOAT:
            product: ir.Value = graph.node(
                "FusedMatMul", inputs, graph.weight(matrix.values), domain=MICROSOFT, transB=1
            )
            return product if bias is None else graph.node("Add", product, bias)
        form = matrix.form
        assert matrix.scales is not None
        blocks = matrix.columns // form.block
        shape = (matrix.rows, blocks, form.block * form.bits // 8)
        product = graph.node(
            "MatMulNBits",
            inputs,
            # The same bytes have two shapes where they are the embedding as well.
            graph.weight(matrix.values, shape, f"{matrix.values.name}.blocks"),
            graph.weight(matrix.scales),
            None,
            None,
            bias,
            domain=MICROSOFT,
            K=matrix.columns,
            N=matrix.rows,
            bits=form.bits,
            block_size=form.block,
            accuracy_level=_ACCURACY,
        )
        return product


def _shape(*dimensions: int | str) -> list[int | str]:
    return list(dimensions)
