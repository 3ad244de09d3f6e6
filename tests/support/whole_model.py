"""A complete GGUF model of a few kilobytes: header, vocabulary, template and weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from support.small_vocabulary import byte_level

WIDTH, HEADS, KV_HEADS, FF, LAYERS = 32, 4, 2, 64, 2
TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"


def write_whole_model(path: Path, *, merges: int | None = None) -> Path:
    """Writes a random Llama with the format's own package, with all or so many merges."""
    import gguf

    keys = byte_level()
    vocab = len(keys["tokenizer.ggml.tokens"])
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model(keys["tokenizer.ggml.model"])
    writer.add_tokenizer_pre(keys["tokenizer.ggml.pre"])
    writer.add_token_list(keys["tokenizer.ggml.tokens"])
    writer.add_token_types(keys["tokenizer.ggml.token_type"].tolist())
    writer.add_token_merges(keys["tokenizer.ggml.merges"][:merges])
    writer.add_bos_token_id(keys["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(keys["tokenizer.ggml.eos_token_id"])
    writer.add_chat_template(TEMPLATE)

    kv_width = WIDTH // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocab, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (WIDTH,),
            f"blk.{i}.attn_q.weight": (WIDTH, WIDTH),
            f"blk.{i}.attn_k.weight": (kv_width, WIDTH),
            f"blk.{i}.attn_v.weight": (kv_width, WIDTH),
            f"blk.{i}.attn_output.weight": (WIDTH, WIDTH),
            f"blk.{i}.ffn_norm.weight": (WIDTH,),
            f"blk.{i}.ffn_gate.weight": (FF, WIDTH),
            f"blk.{i}.ffn_up.weight": (FF, WIDTH),
            f"blk.{i}.ffn_down.weight": (WIDTH, FF),
        }
    random = np.random.default_rng(5)
    for name, shape in shapes.items():
        writer.add_tensor(name, random.standard_normal(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
