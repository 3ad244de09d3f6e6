"""Where models are: references, downloads, and what is on disk already.

A reference is, in this order: an existing path; a short name (``smollm2``);
``pypi:package[==version]``; ``ollama://name[:tag]``; ``lmstudio://publisher/model[:quant]``;
``org/repo[:QUANT]`` or ``hf://org/repo[:QUANT]``.
"""

from __future__ import annotations

from edgeinfer.store.library import Removed, list_models, locate, remove, resolve
from edgeinfer.store.model import Progress, StoredModel
from edgeinfer.store.pinned import short_names

__all__ = [
    "Progress",
    "Removed",
    "StoredModel",
    "list_models",
    "locate",
    "remove",
    "resolve",
    "short_names",
]
