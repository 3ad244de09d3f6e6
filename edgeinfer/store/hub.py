"""Models of the Hugging Face hub: ``org/repo[:QUANT]``, in the hub library's own cache.

HF_TOKEN, HF_HOME, HF_ENDPOINT and the others mean what they mean to huggingface_hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeinfer.errors import CheckFailedError, NotFoundError, UnsupportedError, UsageError
from edgeinfer.store.checksum import sha256_of
from edgeinfer.store.choose import choose, is_model_file, is_plain, parts_of, quant_of, quants
from edgeinfer.store.local import is_complete, size_of
from edgeinfer.store.model import Progress, StoredModel

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo
    from huggingface_hub.hf_api import ModelInfo

_REFERENCE = re.compile(
    r"(?:hf://)?(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<quant>[\w.-]+))?", re.ASCII
)
# What a checkpoint without a GGUF needs: weights, numbers, tokenizer, template. No pickles.
_CHECKPOINT = re.compile(r"[^/]+\.(safetensors|json|jinja|model|txt)")


class HubSource:
    """The hub, and what its cache holds."""

    name = "hf"

    def claims(self, reference: str) -> bool:
        """True for ``hf://...`` and for ``org/repo``."""
        return reference.startswith("hf://") or _REFERENCE.fullmatch(reference) is not None

    def locate(self, reference: str) -> StoredModel | None:
        """Finds it in the cache: the newest revision that was fetched."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        repo, quant = _parse(reference)
        try:
            folder = Path(snapshot_download(repo, local_files_only=True))
        except LocalEntryNotFoundError:
            return None
        return _in_folder(folder, repo, quant)

    def fetch(self, reference: str, progress: Progress | None) -> StoredModel:
        """Downloads the GGUF that is meant, or the checkpoint of a repository without any."""
        from huggingface_hub import HfApi

        repo, quant = _parse(reference)
        with _explained(repo):
            info = HfApi().model_info(repo, files_metadata=True)
            names = _wanted(info, repo, quant)
            folder = _download(info, repo, names, progress)
        model = _in_folder(folder, repo, quant)
        if model is None:
            raise CheckFailedError(
                f"{repo} was fetched, but files that its index names are missing"
            )
        return model

    def models(self) -> Iterator[StoredModel]:
        """Yields the GGUF files and the checkpoints of the cache."""
        cache = _scan()
        for repo in sorted(cache.repos if cache else (), key=lambda repo: repo.repo_id):
            if repo.repo_type != "model":
                continue
            newest = max(repo.revisions, key=lambda r: ("main" in r.refs, r.last_modified))
            names = [_name(file, newest) for file in newest.files]
            for name in sorted(filter(is_model_file, names)):
                model = _in_folder(newest.snapshot_path, repo.repo_id, Path(name).stem)
                if model is not None:
                    yield model
            if not any(map(is_model_file, names)) and is_complete(newest.snapshot_path):
                yield _checkpoint(newest.snapshot_path, repo.repo_id)

    def remove(self, reference: str) -> int:
        """Deletes the repository from the cache, or one GGUF of several."""
        repo_id, quant = _parse(reference)
        cache = _scan()
        repos = cache.repos if cache else ()
        repo = next((r for r in repos if (r.repo_id, r.repo_type) == (repo_id, "model")), None)
        if cache is None or repo is None:
            raise NotFoundError(f"{repo_id} is not in the Hugging Face cache")
        names = {_name(file, revision) for revision in repo.revisions for file in revision.files}
        if quant is not None:
            doomed = choose(sorted(names), quant)
            if doomed is None:
                raise NotFoundError(
                    f"{reference} is not in the Hugging Face cache",
                    hint=f"of {repo_id} there is {', '.join(quants(names))}",
                )
            if sum(map(is_model_file, names)) > 1:
                return _remove_files(repo, frozenset(parts_of(doomed)))
        strategy = cache.delete_revisions(*(revision.commit_hash for revision in repo.revisions))
        strategy.execute()
        return strategy.expected_freed_size


def listing(repo: str) -> tuple[str, dict[str, int]]:
    """Asks for the commit of a repository's main branch, and the size of each of its files.

    Raises:
        NotFoundError: it does not exist, or cannot be asked.
    """
    from huggingface_hub import HfApi

    with _explained(repo):
        info = HfApi().model_info(repo, files_metadata=True)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
    return info.sha or "main", sizes


def split_repo(reference: str) -> tuple[str, str | None] | None:
    """Returns (org/repo, quant or None), or None if the reference is of another form."""
    match = _REFERENCE.fullmatch(reference)
    if match is None or ".." in match["repo"] or "--" in match["repo"]:
        return None
    return match["repo"], match["quant"]


def _parse(reference: str) -> tuple[str, str | None]:
    found = split_repo(reference)
    if found is None:
        raise UsageError(f"{reference!r} is not of the form org/repo[:QUANT]")
    return found


def _wanted(info: ModelInfo, repo: str, quant: str | None) -> list[str]:
    """The files to fetch."""
    names = [sibling.rfilename for sibling in info.siblings or ()]
    unsafe = [name for name in names if not is_plain(name)]
    if unsafe:
        raise UnsupportedError(f"{repo} lists the unsafe file name {unsafe[0]!r}")
    file = choose(names, quant)
    if file is not None:
        return parts_of(file)
    offered = quants(names)
    if quant is not None:
        raise NotFoundError(
            f"{repo} has no {quant}",
            hint=f"it has {', '.join(offered)}" if offered else "it has no GGUF at all",
        )
    checkpoint = [name for name in names if _CHECKPOINT.fullmatch(name)]
    if "model.safetensors.index.json" in names or "model.safetensors" in names:
        # Some vendors publish the same weights a second time in their own layout.
        checkpoint = [name for name in checkpoint if not name.startswith("consolidated")]
    if not any(name.endswith(".safetensors") for name in checkpoint):
        raise NotFoundError(
            f"{repo} has neither GGUF nor safetensors files",
            hint="pickled weights (.bin, .pt) can run code and are never loaded",
        )
    return checkpoint


def _download(info: ModelInfo, repo: str, names: list[str], progress: Progress | None) -> Path:
    """Fetches files into the hub's cache and checks those whose hash the hub tells."""
    from huggingface_hub import hf_hub_download

    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    sizes = [siblings[name].size for name in names if name in siblings]
    total = sum(size or 0 for size in sizes) if all(sizes) else None
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    path = Path()
    for name in names:
        path = Path(hf_hub_download(repo, name, tqdm_class=_reporting_bar(report)))
        lfs = siblings[name].lfs if name in siblings else None
        if lfs is not None and sha256_of(path) != lfs.sha256:
            path.resolve().unlink()
            path.unlink()
            raise CheckFailedError(f"{repo}/{name} is not what the hub promised; it was removed")
    return path.parents[names[-1].count("/")]


def _reporting_bar(report: Any) -> Any:
    """A tqdm class that draws nothing and passes the counts on."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *_args: object, initial: int = 0, **_options: object) -> None:
            super().__init__(disable=True)
            report(initial)

        def update(self, n: float | None = 1) -> bool | None:
            report(int(n or 0))
            return None

    return Bar


def _in_folder(folder: Path, repo: str, quant: str | None) -> StoredModel | None:
    """The model of a snapshot that is meant, if all of it is there."""
    names = [str(p.relative_to(folder).as_posix()) for p in folder.rglob("*") if p.is_file()]
    file = choose(names, quant)
    if file is None:
        return _checkpoint(folder, repo) if quant is None and is_complete(folder) else None
    parts = [folder / part for part in parts_of(file)]
    if not all(part.is_file() for part in parts):
        return None
    tag = quant_of(file) or Path(file).stem
    return StoredModel(
        path=folder / file,
        format="gguf",
        reference=f"{repo}:{tag}",
        source="hf",
        bytes=sum(part.stat().st_size for part in parts),
        quant=quant_of(file),
    )


def _checkpoint(folder: Path, repo: str) -> StoredModel:
    return StoredModel(path=folder, format="hf", reference=repo, source="hf", bytes=size_of(folder))


def _scan() -> HFCacheInfo | None:
    """What is in the hub's cache; None if there is no cache."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        return scan_cache_dir()
    except CacheNotFound:
        return None


def _name(file: Any, revision: Any) -> str:
    return str(file.file_path.relative_to(revision.snapshot_path).as_posix())


def _remove_files(repo: Any, names: frozenset[str]) -> int:
    """Deletes files by name from every revision, and the blobs that nothing else uses."""
    freed = 0
    every = [(file, _name(file, r) in names) for r in repo.revisions for file in r.files]
    kept = {file.blob_path for file, doomed in every if not doomed}
    for file, doomed in every:
        if doomed:
            file.file_path.unlink(missing_ok=True)
            if file.blob_path not in kept and file.blob_path.exists():
                file.blob_path.unlink()
            freed += file.size_on_disk if file.blob_path not in kept else 0
    return freed


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turns the hub library's errors into ours."""
    import httpx2
    from huggingface_hub import errors

    token = "" if os.environ.get("HF_TOKEN") else "; if it is private, set HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError as error:
        raise NotFoundError(
            f"{repo} is gated",
            hint=f"accept its terms at huggingface.co/{repo}, then set HF_TOKEN",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NotFoundError(f"the hub has no {repo}", hint=f"check the name{token}") from error
    except errors.OfflineModeIsEnabled as error:
        raise NotFoundError(f"{repo} is not on this machine, and HF_HUB_OFFLINE is set") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise NotFoundError(
            f"cannot fetch {repo}: {str(error).splitlines()[0]}",
            hint="check the connection and run the same command again; it goes on where it stopped",
        ) from error
