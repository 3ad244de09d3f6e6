"""XLM-RoBERTa and the models for embeddings made of it (multilingual E5, BGE-M3): BERT's graph.

A token that fills a text up has number 1, and positions count from the one after it: the first two
rows of a checkpoint's table of positions are no token's, and a GGUF leaves them out.
"""

from dataclasses import replace

from edgeinfer.arch import bert

ARCHITECTURE = replace(
    bert.ARCHITECTURE,
    hf_classes=("XLMRobertaModel", "XLMRobertaForMaskedLM"),
    variant_of="bert",
    first_position=2,
    hf_defaults={
        **bert.ARCHITECTURE.hf_defaults,
        "type_vocab_size": 2,
        "pad_token_id": 1,
    },
    hf_required={**bert.ARCHITECTURE.hf_required, "pad_token_id": 1},
    transforms={"position_embd.weight": "after_two"},
    prefixes={"roberta.": ""},
    skipped=("pooler.", "lm_head."),
)
