"""Every error edgeinfer raises on purpose: what is wrong, a hint, and an exit code."""

from __future__ import annotations

from collections.abc import Iterable


def known_names(given: str, known: Iterable[str], word: str = "known") -> str:
    """Returns the hint for a name that nothing has: those meant perhaps, then all there are.

    Args:
        given: the name that was asked for.
        known: all names, in the order to list them.
        word: what they are: known, installed.
    """
    import difflib  # only after a mistake: start-up is not to wait for it

    names = list(known)
    near = difflib.get_close_matches(given.lower(), names, n=3)
    listed = f"{word}: {', '.join(names) or 'none'}"
    return f"did you mean {' or '.join(near)}? {listed}" if near else listed


class EdgeInferError(Exception):
    """A problem the user can act on.

    Attributes:
        message: names the problem, and the place in a file where there is one.
        hint: what to do about it, or None.
        exit_code: the process exit code of the command line.
        code: the stable identifier used in JSON errors.
    """

    exit_code = 1
    code = "runtime_error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def to_json(self) -> dict[str, object]:
        """Returns the error as the ``{"error": ...}`` record that ``--json`` prints."""
        body: dict[str, object] = {"code": self.code, "message": self.message}
        if self.hint is not None:
            body["hint"] = self.hint
        return {"error": body}


class ClosedError(EdgeInferError):
    """A model, engine or sequence was used after it was closed."""

    code = "closed"


class ContextFullError(EdgeInferError):
    """The next token does not fit the context; nothing was cut."""

    code = "context_full"


class UsageError(EdgeInferError):
    """A parameter or option has a value that makes no sense."""

    exit_code = 2
    code = "usage"


class NotFoundError(EdgeInferError):
    """A model, file or backend does not exist or cannot be fetched."""

    exit_code = 3
    code = "not_found"


class DoesNotFitError(EdgeInferError):
    """The model does not fit the memory; raised before anything is allocated."""

    exit_code = 4
    code = "does_not_fit"

    def __init__(
        self, message: str, *, need_bytes: int, have_bytes: int, suggest: str | None
    ) -> None:
        super().__init__(message, hint=suggest)
        self.need_bytes = need_bytes
        self.have_bytes = have_bytes
        self.suggest = suggest

    def to_json(self) -> dict[str, object]:
        """Adds the byte counts and the suggestion to the JSON record."""
        body: dict[str, object] = {
            "code": self.code,
            "message": self.message,
            "need_bytes": self.need_bytes,
            "have_bytes": self.have_bytes,
            "suggest": self.suggest,
        }
        return {"error": body}


class UnsupportedError(EdgeInferError):
    """The file is well formed, but its architecture, type or tokenizer is not known."""

    exit_code = 5
    code = "unsupported"


class CorruptFileError(EdgeInferError):
    """A file is truncated, contradicts itself, or is unsafe to read."""

    exit_code = 6
    code = "corrupt_file"


class CheckFailedError(EdgeInferError):
    """A check that was asked for (hash, verify, eval limit) failed."""

    exit_code = 7
    code = "check_failed"
