"""The float32 forward that quantised engines are measured against: transformers' own Llama."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from requantize import Model
from transformers import LlamaConfig, LlamaForCausalLM


def _halves(w: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undoes the row order that GGUF gives to llama's queries and keys."""
    rows, cols = w.shape
    return w.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


class FloatReference:
    """A llama model of plain float32 weights."""

    def __init__(self, model: Model) -> None:
        heads, kv_heads = model["attention.head_count"], model["attention.head_count_kv"]
        config = LlamaConfig(
            vocab_size=model.tensors["token_embd.weight"].shape[0],
            hidden_size=model["embedding_length"],
            intermediate_size=model["feed_forward_length"],
            num_hidden_layers=model["block_count"],
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            rms_norm_eps=model["attention.layer_norm_rms_epsilon"],
            rope_parameters={"rope_type": "default", "rope_theta": model["rope.freq_base"]},
            max_position_embeddings=model["context_length"],
            tie_word_embeddings=True,
        )
        names = {
            "token_embd.weight": "model.embed_tokens.weight",
            "output_norm.weight": "model.norm.weight",
        }
        parts = {
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "attn_norm": "input_layernorm",
            "ffn_norm": "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        }
        for layer in range(config.num_hidden_layers):
            for ours, theirs in parts.items():
                names[f"blk.{layer}.{ours}.weight"] = f"model.layers.{layer}.{theirs}.weight"
        state = {}
        for name, tensor in model.tensors.items():
            if ".attn_q." in name:
                tensor = _halves(tensor, heads)
            if ".attn_k." in name:
                tensor = _halves(tensor, kv_heads)
            state[names[name]] = torch.from_numpy(np.array(tensor, dtype=np.float32))
        self._model = LlamaForCausalLM(config).eval()
        missing, unexpected = self._model.load_state_dict(state, strict=False)
        assert not unexpected and missing == ["lm_head.weight"], (missing, unexpected)

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits float32 (len(tokens), vocab)."""
        return self._model(torch.tensor([list(tokens)])).logits[0].numpy()
