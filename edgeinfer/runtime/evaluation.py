"""Perplexity and divergence of whole models: a text, and a reference that is computed once.

chunks = text_chunks(model.tokenizer, text)
reference = reference_logits(lambda: load("model-f16.gguf"), chunks, key)
print(evaluate(model, chunks, reference).kl_mean)
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeinfer.errors import CorruptFileError
from edgeinfer.evaluation.chunks import CONTEXT, Chunks, chunked
from edgeinfer.evaluation.compact import ReferenceLogits
from edgeinfer.evaluation.measures import Measures, measures
from edgeinfer.evaluation.run import Progress, record
from edgeinfer.evaluation.run import evaluate as score
from edgeinfer.store.home import home

if TYPE_CHECKING:
    from edgeinfer.runtime.model import Model
    from edgeinfer.tokenizer import Tokenizer

_log = logging.getLogger("edgeinfer")


def text_chunks(
    tokenizer: Tokenizer, text: str, *, context: int = CONTEXT, limit: int | None = None
) -> Chunks:
    """Cuts a text as llama.cpp's perplexity tool does.

    Args:
        tokenizer: the model's.
        text: names of special tokens in it are plain text.
        context: tokens a chunk.
        limit: at most so many chunks.

    Raises:
        UsageError: the text does not fill a chunk.
    """
    tokens = tokenizer.encode(text, parse_special=False)
    bos = tokenizer.bos_id if tokenizer.add_bos else None
    return chunked(tokens, context=context, bos=bos, limit=limit)


def evaluate(
    model: Model,
    chunks: Chunks,
    reference: ReferenceLogits | None = None,
    *,
    progress: Progress | None = None,
) -> Measures:
    """Measures a model on the chunks of a text; as ``edgeinfer.evaluation.run.evaluate``."""
    return measures(
        score(
            model.engine,
            chunks,
            batch=model.plan.batch,
            reference=reference,
            adapters=model.adapters,
            progress=progress,
        )
    )


def reference_logits(
    open_model: Callable[[], Model],
    chunks: Chunks,
    key: Mapping[str, Any],
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> ReferenceLogits:
    """What a model says of the chunks: from disk if it was computed before, else computed now.

    A file that is damaged is computed anew.

    Args:
        open_model: loads the model; only called if it has to run.
        chunks: of the text.
        key: all that the logits depend on beside the text: the file's hash, what runs it and
            how. The same key and text find the same file.
        folder: where the files are; by default in edgeinfer's own.
        progress: called after each chunk.

    Raises:
        EdgeInferError: the disk cannot take the file.
    """
    folder = folder or home() / "references"
    named = json.dumps([dict(key), chunks.digest()], sort_keys=True)
    path = folder / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}.logits"
    if path.exists():
        try:
            found = ReferenceLogits(path)
            found.check()
            return found
        except CorruptFileError as error:
            _log.warning("%s; it is computed anew", error.message)
    folder.mkdir(parents=True, exist_ok=True)
    with open_model() as model:
        batch = model.plan.batch
        return record(model.engine, chunks, path, batch=batch, about=key, progress=progress)


def evaluation_record(
    model: Model,
    found: Measures,
    chunks: Chunks,
    *,
    format: str,
    size: int,
    version: str,
    text: Mapping[str, Any],
    reference: Mapping[str, Any] | None,
    seconds: float,
) -> dict[str, Any]:
    """Returns what ``edgeinfer eval --json`` prints of a model.

    Args:
        model: that was measured.
        found: its measures.
        chunks: what it read.
        format: of its files.
        size: of its files, in bytes.
        version: of its backend.
        text: path, bytes and SHA-256 of the text.
        reference: what the reference is.
        seconds: that it took.
    """
    from edgeinfer import __version__
    from edgeinfer.device.detect import detect

    plan = model.plan
    return {
        "model": model.reference,
        "format": format,
        "quant": plan.quant,
        "file_bytes": size,
        "backend": plan.backend,
        "version": version,
        "threads": plan.batch_threads or plan.threads,
        "kv_type_k": plan.kv_type_k,
        "kv_type_v": plan.kv_type_v,
        "text": dict(text),
        "context": chunks.context,
        "chunks": len(chunks),
        "reference": reference and dict(reference),
        "machine": detect().cpu,
        "edgeinfer": __version__,
        "seconds": seconds,
        "tokens_per_second": chunks.tokens.size / seconds,
        **found.to_json(),
    }
