"""Which GGUF of several: names carry the quant type, and large models come in parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

# What to take when nobody said: small and good first, then the nearest on either side.
_PREFERENCE = (
    "Q4_K_M",
    "Q4_K_S",
    "Q4_K_L",
    "Q4_K_XL",
    "Q4_0",
    "Q4_1",
    "IQ4_XS",
    "IQ4_NL",
    "MXFP4",
    "Q5_K_M",
    "Q5_K_S",
    "Q5_0",
    "Q5_1",
    "Q6_K",
    "Q8_0",
    "Q3_K_M",
    "Q3_K_L",
    "Q3_K_S",
    "IQ3_M",
    "IQ3_S",
    "IQ3_XS",
    "IQ3_XXS",
    "Q2_K",
    "IQ2_M",
    "IQ2_S",
    "IQ2_XS",
    "IQ2_XXS",
    "TQ2_0",
    "TQ1_0",
    "IQ1_M",
    "IQ1_S",
    "BF16",
    "F16",
    "F32",
)
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])((?:I?Q|TQ)\d_(?:K(?:_(?:XS|S|M|L|XL))?|\d|XXS|XS|S|M|NL)|MXFP4|BF16|F16|FP16|F32)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
# Companions of a model that are none themselves: vision projectors, importance matrices.
_COMPANION = re.compile(r"(^|[-_.])(mmproj|imatrix)([-_.]|$)", re.IGNORECASE)


def is_model_file(name: str) -> bool:
    """True for a GGUF that one can load: no companion, and only the first of its parts."""
    base = PurePosixPath(name).name
    part = _PART.search(base)
    if not base.lower().endswith(".gguf") or _COMPANION.search(base):
        return False
    return part is None or int(part[1]) == 1


def parts_of(name: str) -> list[str]:
    """Returns all the files of a model whose first is ``name``."""
    part = _PART.search(name)
    if part is None:
        return [name]
    stem, count = name[: part.start()], int(part[2])
    return [f"{stem}-{number:05}-of-{part[2]}.gguf" for number in range(1, count + 1)]


def quant_of(name: str) -> str:
    """Returns the quant type in a file's name, upper case; "" if it says none."""
    found = _QUANT.findall(PurePosixPath(name).name)
    return str(found[-1]).upper().replace("FP16", "F16") if found else ""


def quants(names: Iterable[str]) -> list[str]:
    """Returns the quant types (or whole names, where they say none) to choose from."""
    return sorted({quant_of(name) or name for name in names if is_model_file(name)})


def choose(names: Sequence[str], quant: str | None = None) -> str | None:
    """Returns the model file of a listing that is meant.

    Args:
        names: all files, with "/" between folders.
        quant: a quant type in any case, or a file's name; None takes the usual one.

    Returns:
        The name (of the first part), or None if nothing matches.
    """
    models = sorted(name for name in names if is_model_file(name))
    if quant is not None:
        wanted = quant.upper().removesuffix(".GGUF")
        for name in models:
            stem = PurePosixPath(name).name.upper().removesuffix(".GGUF")
            if wanted in (quant_of(name), stem):
                return name
        return None

    def rank(name: str) -> int:
        found = quant_of(name)
        return _PREFERENCE.index(found) if found in _PREFERENCE else len(_PREFERENCE)

    return min(models, key=rank, default=None)


def is_plain(name: str) -> bool:
    """True if a name given by a server or an archive stays below the folder it is put in."""
    parts = PurePosixPath(name).parts
    outside = name.startswith("/") or any(part in ("..", "~") for part in parts)
    return bool(parts) and not outside and not set(name) & set("\\:\0")
