"""What a library is made for, in a few letters: the same for all models that it can run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeinfer.arch.config import ModelConfig
from edgeinfer.backends.mlc.parameters import Parameter

COMPILER = "apache-tvm"
_LETTERS = 16
_UNFELT = ("name", "pooling")  # numbers that change no code


def fingerprint(config: ModelConfig, parameters: Mapping[str, Parameter]) -> str:
    """Returns the letters: of the model's numbers and of the tensors that a library is given."""
    numbers = {name: value for name, value in asdict(config).items() if name not in _UNFELT}
    tensors = [[p.name, p.shape, p.dtype] for p in parameters.values()]
    text = json.dumps([numbers, tensors], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LETTERS]


@cache
def compiler_sources() -> str:
    """Returns the letters of our own compiler, whose libraries change with it."""
    digest = hashlib.sha256()
    for file in sorted((Path(__file__).parent / "compiler").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:_LETTERS]


def compiler_version() -> str:
    """The installed version of TVM, "" for none."""
    try:
        return version(COMPILER)
    except PackageNotFoundError:
        return ""
