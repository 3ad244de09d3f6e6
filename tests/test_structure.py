"""The rules that hold the tree together, each checked against the tree itself."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = {".py", ".pyi", ".cc", ".h", ".inl", ".cmake"}


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows or would add, so that a new file is judged before its commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    return [ROOT / name for name in sorted(set(listed)) if name and (ROOT / name).is_file()]


def sources(*folders: str) -> list[Path]:
    return [path for path in tracked(*folders) if path.suffix in CODE]


def relative(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_no_tracked_file_is_over_one_megabyte() -> None:
    assert relative([path for path in tracked() if path.stat().st_size > 1_000_000]) == []


def test_no_source_file_is_over_five_hundred_lines() -> None:
    long = [path for path in sources() if len(path.read_text().splitlines()) > 500]

    assert relative([path for path in long if path.name != "_native.pyi"]) == []


FORBIDDEN = {
    # A template is untrusted: only the sandbox may compile it.
    r"jinja2\.Environment\(": ("edgeinfer", "converters"),
    r"from jinja2 import (.*\b)?Environment\b": ("edgeinfer", "converters"),
    # A pickle runs code: checkpoints are safetensors or GGUF.
    r"torch\.load|\bpickle\b|trust_remote_code": ("edgeinfer", "converters"),
    # The build must run on a machine other than the one that compiled it.
    r"march=native": ("native", "pyproject.toml"),
    # Some compilers answer 0 for everything; core/cpu_features.h asks the processor.
    r"__builtin_cpu_supports": ("native",),
    # Recursive, and overflows the stack on long input.
    r"std::regex|#include <regex>": ("native",),
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_forbidden_construct_is_absent(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked(*FORBIDDEN[pattern])
        if path.suffix in CODE | {".toml"} or path.name == "CMakeLists.txt"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        # A comment may say why a construct is not used.
        if re.search(pattern, re.sub(r"(//|#(?!include)).*", "", line))
    ]

    assert found == []


def imports(path: Path) -> set[str]:
    return set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE))


def test_shipped_code_never_imports_torch_or_transformers() -> None:
    guilty = [
        p for p in sources("edgeinfer", "converters") if imports(p) & {"torch", "transformers"}
    ]

    assert relative(guilty) == []


@pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None, reason="import-linter is in the dev extra"
)
def test_imports_follow_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlinter.cli import lint_imports

    monkeypatch.chdir(ROOT)

    assert lint_imports(no_cache=True) == 0


def test_make_targets_named_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *tracked("docs/*.md")]

    named = {
        (document.name, target)
        for document in documents
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", document.read_text(), re.MULTILINE)
    }

    assert named  # the README names at least `make chat` and `make test`
    assert {(document, target) for document, target in named if target not in targets} == set()
