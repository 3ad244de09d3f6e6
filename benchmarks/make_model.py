"""Writes models of whole shapes and random weights, to time engines with.

Every matrix is of one quant type, the embedding too, but experts where the shape says so; the norms
are ones. A prime number of blocks is encoded once and repeated, so that gigabytes cost no encoding
and no two rows of a matrix begin alike. The weights are normal with a deviation of 0.02, roughly as
trained ones, so the logits stay near one. The vocabulary is made up, with as many merges as a real
one has.

    python benchmarks/make_model.py llama1b q4_0 llama1b-q4_0.gguf
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer import quant
from edgeinfer.arch import numbers_from_hf, to_gguf
from edgeinfer.arch.tensors import checkpoint_names, file_shape
from edgeinfer.formats.gguf_values import WritableValue
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.quant.assignment import has_choice
from edgeinfer.tokenizer.pieces import BYTE_OF

DEVIATION = 0.02
POOL_BLOCKS = {1: 2000003, 32: 65521, 256: 8191}  # primes, by block size: two million weights each
NORMAL, CONTROL = 1, 3  # token types of GGUF
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers of a model that exists, under GGUF's names."""

    architecture: str
    tokenizer: str
    layers: int
    width: int
    ff_width: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    rope_base: float
    norm_eps: float
    context: int
    head_norms: bool = False  # norms on each head's query and key
    experts: int = 0  # of ff_width
    experts_used: int = 0
    experts_type: str = ""  # theirs, where it is another
    untied: bool = False  # an output matrix
    window: int = 0
    sinks: bool = False  # as gpt-oss has them, and its biases

    def metadata(self) -> dict[str, WritableValue]:
        """The keys under the architecture's name."""
        values: dict[str, WritableValue] = {
            "block_count": self.layers,
            "context_length": self.context,
            "embedding_length": self.width,
            "feed_forward_length": self.ff_width,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
            "attention.layer_norm_rms_epsilon": self.norm_eps,
            "rope.dimension_count": self.head_dim,
            "rope.freq_base": self.rope_base,
            "vocab_size": self.vocabulary,
        }
        if self.experts:
            values |= {
                "expert_count": self.experts,
                "expert_used_count": self.experts_used,
                "expert_feed_forward_length": self.ff_width,
            }
        if self.window:
            values["attention.sliding_window"] = self.window
        return {f"{self.architecture}.{key}": value for key, value in values.items()}

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape in numpy's order."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocabulary, self.width)}
        for layer in range(self.layers):
            block: dict[str, tuple[int, ...]] = {
                "attn_norm": (self.width,),
                "attn_q": (queries, self.width),
                "attn_k": (keys, self.width),
                "attn_v": (keys, self.width),
                "attn_output": (self.width, queries),
                "ffn_norm": (self.width,),
                **self._feed_forward(),
            }
            if self.head_norms:
                block |= {"attn_q_norm": (self.head_dim,), "attn_k_norm": (self.head_dim,)}
            if self.sinks:
                block["attn_sinks"] = (self.heads,)
                block["post_attention_norm"] = block.pop("ffn_norm")
                biased = {name: shape for name, shape in block.items() if len(shape) > 1}
                shapes |= {f"blk.{layer}.{n}.bias": size[:-1] for n, size in biased.items()}
            shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
        shapes["output_norm.weight"] = (self.width,)
        if self.untied:
            shapes["output.weight"] = (self.vocabulary, self.width)
        return shapes

    def _feed_forward(self) -> dict[str, tuple[int, ...]]:
        up, down = (self.ff_width, self.width), (self.width, self.ff_width)
        if not self.experts:
            return {"ffn_gate": up, "ffn_up": up, "ffn_down": down}
        return {
            "ffn_gate_inp": (self.experts, self.width),
            "ffn_gate_exps": (self.experts, *up),
            "ffn_up_exps": (self.experts, *up),
            "ffn_down_exps": (self.experts, *down),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """The same of a model that has a config.json, written as our converter would."""

    tokenizer: str
    settings: Mapping[str, Any]
    experts_type: str = ""  # as Shape's

    @property
    def architecture(self) -> str:
        """General.architecture of the file."""
        return numbers_from_hf(self.settings)[0].name

    @property
    def vocabulary(self) -> int:
        """How many tokens."""
        return numbers_from_hf(self.settings)[1].vocab_size

    def metadata(self) -> dict[str, WritableValue]:
        """The keys under the architecture's name."""
        arch, numbers = numbers_from_hf(self.settings)
        keys = to_gguf.metadata(numbers, arch)
        del keys["general.architecture"]
        return {
            key: np.array(value, np.int32) if isinstance(value, tuple) else value
            for key, value in keys.items()
        }

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape in numpy's order."""
        arch, numbers = numbers_from_hf(self.settings)
        config = numbers.model_config(arch)
        return {
            name: file_shape(arch, config, name)
            for name in checkpoint_names(arch, config, self.settings)
        }


def bert(width: int) -> Stated:
    """BERT as BGE's models for English are: 12 layers, and 4 widths in a feed-forward's middle."""
    return Stated(
        tokenizer="llama-bpe",
        settings={
            "architectures": ["BertModel"],
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "layer_norm_eps": 1e-12,
        },
    )


SHAPES: Mapping[str, Shape | Stated] = {
    "bge-small": bert(384),
    "bge-base": bert(768),
    "lfm2-1.2b": Stated(  # LFM2 1.2B
        tokenizer="llama-bpe",
        settings={
            "architectures": ["Lfm2ForCausalLM"],
            "vocab_size": 65536,
            "hidden_size": 2048,
            "block_ff_dim": 12288,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 128000,
            "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        },
    ),
    "qwen3next-small": Stated(  # Qwen3-Next 80B A3B, 8 of its 48 layers and 64 of its 512 experts
        tokenizer="qwen2",
        settings={
            "architectures": ["Qwen3NextForCausalLM"],
            "vocab_size": 151936,
            "hidden_size": 2048,
            "num_hidden_layers": 8,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "num_experts": 64,
            "max_position_embeddings": 262144,
            "rope_theta": 1e7,
            "tie_word_embeddings": True,
        },
    ),
    "llama1b": Shape(  # Llama 3.2 1B
        architecture="llama",
        tokenizer="llama-bpe",
        layers=16,
        width=2048,
        ff_width=8192,
        heads=32,
        kv_heads=8,
        head_dim=64,
        vocabulary=128256,
        rope_base=500000.0,
        norm_eps=1e-5,
        context=131072,
    ),
    "smollm360m": Shape(  # SmolLM2 360M
        architecture="llama",
        tokenizer="smollm",
        layers=32,
        width=960,
        ff_width=2560,
        heads=15,
        kv_heads=5,
        head_dim=64,
        vocabulary=49152,
        rope_base=100000.0,
        norm_eps=1e-5,
        context=8192,
    ),
    "qwen0.6b": Shape(  # Qwen3 0.6B
        architecture="qwen3",
        tokenizer="qwen2",
        layers=28,
        width=1024,
        ff_width=3072,
        heads=16,
        kv_heads=8,
        head_dim=128,
        vocabulary=151936,
        rope_base=1e6,
        norm_eps=1e-6,
        context=40960,
        head_norms=True,
    ),
    "gemma1b": Shape(  # Gemma 3 1B's numbers in Llama's graph: a large vocabulary
        architecture="llama",
        tokenizer="llama-bpe",
        layers=26,
        width=1152,
        ff_width=6912,
        heads=4,
        kv_heads=1,
        head_dim=256,
        vocabulary=262144,
        rope_base=1e6,
        norm_eps=1e-6,
        context=32768,
    ),
    "qwen4b": Shape(  # Qwen3 4B
        architecture="qwen3",
        tokenizer="qwen2",
        layers=36,
        width=2560,
        ff_width=9728,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocabulary=151936,
        rope_base=1e6,
        norm_eps=1e-6,
        context=40960,
        head_norms=True,
    ),
    "qwen30b8": Shape(  # Qwen3 30B A3B, 8 of its 48 layers
        architecture="qwen3moe",
        tokenizer="qwen2",
        layers=8,
        width=2048,
        ff_width=768,
        heads=32,
        kv_heads=4,
        head_dim=128,
        vocabulary=151936,
        rope_base=1e6,
        norm_eps=1e-6,
        context=40960,
        head_norms=True,
        experts=128,
        experts_used=8,
    ),
    "gptoss20b4": Shape(  # gpt-oss 20B, 4 of its 24 layers
        architecture="gpt-oss",
        tokenizer="gpt-4o",
        layers=4,
        width=2880,
        ff_width=2880,
        heads=64,
        kv_heads=8,
        head_dim=64,
        vocabulary=201088,
        rope_base=150000.0,
        norm_eps=1e-5,
        context=131072,
        experts=32,
        experts_used=4,
        experts_type="mxfp4",
        untied=True,
        window=128,
        sinks=True,
    ),
    "tiny": Shape(  # as small as models that tell children's stories: overheads show
        architecture="llama",
        tokenizer="llama-bpe",
        layers=6,
        width=256,
        ff_width=768,
        heads=4,
        kv_heads=2,
        head_dim=64,
        vocabulary=32000,
        rope_base=10000.0,
        norm_eps=1e-5,
        context=2048,
    ),
}


def vocabulary(size: int) -> dict[str, WritableValue]:
    """A byte-level BPE vocabulary: the bytes, random merges of earlier tokens, an end token."""
    choose = random.Random(0)
    tokens, merges = list(BYTE_OF), []
    known = set(tokens)
    while len(tokens) < size - 1:
        left, right = choose.choice(tokens), choose.choice(tokens)
        if len(left + right) <= 12 and left + right not in known:
            merges.append(f"{left} {right}")
            tokens.append(left + right)
            known.add(left + right)
    tokens.append("<|end|>")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([NORMAL] * (size - 1) + [CONTROL], np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": size - 1,
        "tokenizer.ggml.eos_token_id": size - 1,
        "tokenizer.chat_template": TEMPLATE,
    }


class Weights:
    """An endless stream of encoded random blocks."""

    def __init__(self, quant_type: quant.QuantType) -> None:
        cols = POOL_BLOCKS[quant_type.block] * quant_type.block
        values = np.random.default_rng(0).standard_normal((1, cols), np.float32) * DEVIATION
        pool = quant.encode(quant_type, values).reshape(-1)
        # Twice, so that a whole pool can be taken from any place of it.
        self._pool: NDArray[np.uint8] = np.concatenate([pool, pool])
        self._period = len(pool)
        self._at = 0

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """The next bytes, at most a pool."""
        nbytes = min(nbytes, self._period)
        part = self._pool[self._at : self._at + nbytes]
        self._at = (self._at + nbytes) % self._period
        return part


def is_float(name: str, size: tuple[int, ...]) -> bool:
    """Whether a tensor is not quantised: a vector, or a matrix that recipes keep."""
    return not has_choice(name, size)


def write(shape: Shape | Stated, quant_type: quant.QuantType, path: Path) -> None:
    """Writes the model; the file appears when it is whole."""
    experts = quant.get(shape.experts_type) if shape.experts_type else quant_type
    types = {name: experts if "_exps." in name else quant_type for name in shape.tensors()}
    weights = {kind.name: Weights(kind) for kind in types.values()}
    floats = np.random.default_rng(1)
    with GGUFWriter(path) as writer:
        writer.add_metadata("general.architecture", shape.architecture)
        writer.add_metadata("general.name", f"random {shape.architecture}")
        keys = shape.metadata() | vocabulary(shape.vocabulary)
        for key, value in (keys | {"tokenizer.ggml.pre": shape.tokenizer}).items():
            writer.add_metadata(key, value)
        sizes = {
            name: writer.declare_tensor(
                name, "f32" if is_float(name, size) else types[name].name, size
            )
            for name, size in shape.tensors().items()
        }
        writer.begin()
        for name, nbytes in sizes.items():
            size = shape.tensors()[name]
            if is_float(name, size):
                values = np.ones(size) if len(size) == 1 else floats.standard_normal(size)
                if name.endswith("ssm_a"):
                    values *= -0.1  # forgets
                elif name.endswith(".bias"):
                    values = DEVIATION * floats.standard_normal(size)
                writer.write(name, values.astype(np.float32))
                continue
            while nbytes:
                part = weights[types[name].name].take(nbytes)
                writer.write(name, part)
                nbytes -= len(part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=[t.name for t in quant.all_types()])
    parser.add_argument("path", type=Path)
    options = parser.parse_args()
    write(SHAPES[options.shape], quant.get(options.type), options.path)
    print(f"{options.path}: {options.path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
