"""Perplexity beside llama.cpp's own logits, put through the steps of its perplexity tool."""

from __future__ import annotations

import numpy as np
import pytest

from support.whole_model import write_whole_model

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("context", [32, 48])
def test_the_same_file_has_the_same_perplexity(context, tmp_path):
    import torch
    from llamacpp_peer import LlamaCpp

    import edgeinfer
    from edgeinfer.runtime.evaluation import evaluate, text_chunks

    path = write_whole_model(tmp_path / "model.gguf")
    text = "hello, hell: what is the bell that fell in the well? " * 6
    peer = LlamaCpp(path, context=64, batch=64, threads=1)
    tokens = peer.tokenize(text)
    nll = []
    for start in range(0, len(tokens) - context + 1, context):
        chunk = tokens[start : start + context]
        peer.clear()
        logits = torch.tensor(np.array(peer.step(chunk, wants_logits=context))).double()
        first = context // 2
        nll += torch.nn.functional.cross_entropy(
            logits[first : context - 1], torch.tensor(chunk[first + 1 :]), reduction="none"
        ).tolist()
    peer.close()

    for backend, close in (("llamacpp", 1e-5), ("native", 3e-4)):
        with edgeinfer.load(path, context=context, backend=backend) as model:
            found = evaluate(model, text_chunks(model.tokenizer, text, context=context))
        assert found.tokens == len(nll)
        assert found.nll == pytest.approx(np.mean(nll), rel=close)
