"""JSON files of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeinfer.errors import CorruptFileError, NotFoundError
from edgeinfer.formats.untrusted_json import parse_json


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        NotFoundError: there is no such file.
        CorruptFileError: it is not JSON, or not an object.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(
            f"{path}: no such file", hint="a checkpoint is a folder with config.json in it"
        ) from None
    except ValueError as error:
        raise CorruptFileError(f"{path}: not valid JSON: {error}") from error
