"""Which tokens end an answer, and which others are control tokens by their text alone.

A file names one end-of-sequence token, but chat models end a turn with another one
(``<|im_end|>``, ``<|eot_id|>``, ...), which is known by its text only. The texts are
those that llama.cpp knows.
"""

from __future__ import annotations

from collections.abc import Mapping

_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",  # noqa: RUF001
    "[e~[",
)
# Fill-in-the-middle: a model that writes one of these has left its file.
_FILE_ENDS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# In these vocabularies an "end" text ends a message or a document, not the answer.
_NOT_ENDS = (
    ({"<|return|>", "<|call|>", "<|end|>"}, "<|end|>"),
    ({"<|calls|>", "<|flush|>", "<|end|>"}, "<|end|>"),
    ({"<|tool_response>", "</s>"}, "</s>"),
)
# Part of the answer's own syntax (harmony format), whatever the file says.
SYNTAX = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


def end_ids(ids: Mapping[str, int], specials: Mapping[str, int]) -> frozenset[int]:
    """Returns every id that ends a generation.

    Args:
        ids: the id of each token that may be one.
        specials: ids the file names, by their name: ``eos``, ``eot``, ``fim_pad``, ...
    """
    ends = {ids[text] for text in _ENDS if text in ids}
    for name, texts in _FILE_ENDS.items():
        known = [specials[name]] if name in specials else [ids[t] for t in texts if t in ids]
        ends.update(known[:1])
    ends.update(specials[name] for name in ("eos", "eot", "eom") if name in specials)
    for together, exempt in _NOT_ENDS:
        if together <= ids.keys() and all(ids[text] in ends for text in together):
            ends.discard(ids[exempt])
    return frozenset(ends)
