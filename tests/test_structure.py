"""The rules that hold the tree together, each checked against the tree itself."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tables
from click.testing import CliRunner

import edgeinfer
from edgeinfer import cli, quant

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


def isa_objects() -> list[Path]:
    """The object file of each instruction set's kernels, from the newest build of the package."""
    builds = [path for pattern in ("dev", "cp*") for path in (ROOT / "build").glob(pattern)]
    newest = max(builds, key=lambda path: path.stat().st_mtime, default=ROOT / "build")
    return sorted(newest.glob("**/isa_*.cc.o"))


@pytest.mark.skipif(
    not isa_objects() or shutil.which("nm") is None, reason="needs a build folder and nm"
)
@pytest.mark.parametrize("object_file", isa_objects(), ids=lambda path: path.name)
def test_an_instruction_sets_kernels_export_only_their_own_names(object_file: Path) -> None:
    # A weak symbol is a function the linker takes from any unit. One compiled for AVX-512 under a
    # name that the baseline uses too would run on processors without it. Weak constants (V, u)
    # hold the same bytes wherever they come from.
    isa = object_file.name.removeprefix("isa_").removesuffix(".cc.o")
    listed = subprocess.run(
        ["nm", "--defined-only", object_file], check=True, capture_output=True, text=True
    ).stdout

    symbols = [line.split()[-2:] for line in listed.splitlines()]
    # "u" is left out: an inline constant, the same bytes wherever it comes from.
    shared = [name for kind, name in symbols if kind in "WVTDBRi" and isa not in name]

    assert symbols
    assert shared == []


PUBLIC = """
    ChatTemplate CheckFailedError ClosedError Completion ContextFullError CorruptFileError
    DoesNotFitError EdgeInferError FinishReason Message Model NotFoundError SamplingParams Session
    Timings TokenEvent TokenLogprob Tokenizer UnsupportedError UsageError convert load
    load_tokenizer
"""


def test_public_names_are_those_documented() -> None:
    assert sorted(edgeinfer.__all__) == PUBLIC.split()


@pytest.mark.parametrize("name", PUBLIC.split())
def test_public_name_has_a_docstring(name: str) -> None:
    value = getattr(edgeinfer, name)

    assert name == "Message" or value.__doc__  # Message is an alias of Mapping


VERBS = {"chat", "run", "pull", "list", "show", "rm", "convert", "plan", "device", "tokenize"}


def test_every_verb_exists() -> None:
    assert set(cli.verbs()) >= VERBS


@pytest.mark.parametrize("verb", cli.verbs())
def test_verb_explains_itself(verb: str) -> None:
    shown = CliRunner().invoke(cli.program, [verb, "--help"])

    assert shown.exit_code == 0, shown.output
    assert f"edgeinfer {verb}" in shown.output and "Options:" in shown.output


def declarations(stub: str) -> str:
    """A stub without comments, docstrings and layout, in which formatters differ."""
    tree = ast.parse(stub)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    tree.body = [node for node in tree.body if node not in imports]
    return ast.unparse(tree)


def test_committed_stub_is_the_extensions() -> None:
    from nanobind.stubgen import StubGen

    from edgeinfer import _native

    generator = StubGen(_native, quiet=True)
    generator.put(_native)

    committed = (ROOT / "edgeinfer" / "_native.pyi").read_text()

    assert declarations(committed) == declarations(generator.get())  # else: make stubs


def test_every_kind_of_addition_has_its_page() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "adding").glob("*.md")}

    assert pages >= {"architecture", "quant_type", "isa", "backend", "converter"}


def test_links_of_the_documents_lead_somewhere() -> None:
    documents = tracked("*.md")

    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text())
        if not (document.parent / target).exists()
    ]

    assert broken == []


def test_readme_names_every_family_and_quant_type() -> None:
    readme = (ROOT / "README.md").read_text()
    families = {
        path.stem for path in sources("edgeinfer/arch") if "ARCHITECTURE = " in path.read_text()
    }
    words = set(re.findall(r"\w+", readme))

    assert families and families - words == set()
    assert {quant_type.name for quant_type in quant.all_types()} - words == set()


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


def test_tables_of_quality_are_the_saved_results() -> None:
    text = tables.DOCUMENT.read_text()

    assert set(re.findall("<!-- table: (.+?) -->", text)) == set(tables.TABLES)
    assert tables.renewed(text) == text  # else: python benchmarks/tables.py
