"""The forms a model can be run in: the files of a repository, or what a conversion would write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.errors import (
    CheckFailedError,
    CorruptFileError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from edgeinfer.formats import onnx_folder
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.formats.mlc import folder as mlc_folder
from edgeinfer.formats.safetensors import open_checkpoint
from edgeinfer.formats.untrusted_json import parse_json
from edgeinfer.planner import mlc, onnxruntime
from edgeinfer.planner.outline import Outline
from edgeinfer.quant.assignment import assign
from edgeinfer.quant.recipes import RECIPES, Recipe, get_recipe
from edgeinfer.store.choose import quant_of
from edgeinfer.store.model import StoredModel
from edgeinfer.store.peek import RemoteModel

# What a conversion is worth planning for; the others differ little from one of these.
WORTHWHILE = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "q3_k_m", "q2_k")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A form of the model.

    Attributes:
        outline: the model as it is in this form.
        how: the command that makes it or fetches it, or the file that it is.
        is_exact: False if only the file's size is known, and its types are guessed by name.
    """

    outline: Outline
    how: str
    is_exact: bool = True


def _onnx(path: Path) -> Outline:
    return onnxruntime.outline(onnx_folder.read(path))


def _mlc(path: Path) -> Outline:
    return mlc.outline(mlc_folder.read(path))


# Folders that are run as they are: format -> what is planned for.
_FOLDERS: Mapping[str, Callable[[Path], Outline]] = {"onnx": _onnx, "mlc": _mlc}


def stored_variants(model: StoredModel, quant: str | None = None) -> list[Variant]:
    """The forms of a model on disk: the file, or what its checkpoint can be converted to.

    Raises:
        UsageError: the quant type is not known, or not the file's.
        UnsupportedError, CorruptFileError: the model cannot be read.
    """
    if model.format == "gguf":
        with open_gguf(model.path) as file:
            outline = Outline.of_gguf(file)
        if quant is not None and quant.lower() != outline.quant:
            raise UsageError(f"{model.path} is {outline.quant}, not {quant}")
        return [Variant(outline=outline, how=str(model.path))]
    if model.format in _FOLDERS:
        return [Variant(outline=_FOLDERS[model.format](model.path), how=str(model.path))]
    if model.format != "hf":
        raise UnsupportedError(
            f"{model.path} is a {model.format!r} model, which cannot be planned for yet"
        )
    config = model.path / "config.json"
    try:
        settings = parse_json(config.read_bytes())
    except ValueError as error:
        raise CorruptFileError(f"{config}: not valid: {error}") from None
    with open_checkpoint(model.path) as checkpoint:
        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    return list(_converted(Outline.of_checkpoint(settings, shapes), str(model.path), quant))


def remote_variants(model: RemoteModel, quant: str | None = None) -> list[Variant]:
    """The forms of a model on the hub, from headers and file sizes alone.

    One header is fetched whole, of the file that would be downloaded. The other files have the
    same tensors: what their types' recipe does not explain of their size is counted as weights.

    Raises:
        NotFoundError: the quant type is not there, or something cannot be fetched.
        UnsupportedError, CorruptFileError: the model cannot be read.
    """
    asked = quant or model.quant
    usual = model.usual_gguf()
    if usual is None:
        shapes = {name: tensor.shape for name, tensor in model.checkpoint_tensors().items()}
        outline = Outline.of_checkpoint(model.settings(), shapes)
        return list(_converted(outline, model.repo, asked))
    names = [usual] if model.quant else list(model.gguf_files)
    if quant is not None:
        names = [name for name in names if quant_of(name) == quant.upper()]
        if not names:
            raise NotFoundError(f"{model.repo} has no {quant}")
        usual = usual if usual in names else names[0]
    header = model.gguf_header(usual)
    outline = Outline.of_gguf(header)
    overhead = model.bytes_of(usual) - outline.file_bytes
    found = []
    for name in names:
        how = f"edgeinfer pull {model.repo}:{quant_of(name) or Path(name).stem}"
        if name == usual:
            found.append(Variant(outline=outline, how=how))
            continue
        other = _sized(outline, quant_of(name), model.bytes_of(name) - overhead)
        found.append(Variant(outline=other, how=how, is_exact=False))
    return found


def _converted(outline: Outline, source: str, quant: str | None) -> Iterator[Variant]:
    names = WORTHWHILE if quant is None else (quant,)
    for name in names:
        recipe = get_recipe(name)
        calibrate = " --calibrate" if recipe.needs_importance else ""
        how = f"edgeinfer convert {source} --to gguf -q {recipe.name}{calibrate} -o OUT.gguf"
        yield Variant(outline=_by_recipe(outline, recipe), how=how)


def _by_recipe(outline: Outline, recipe: Recipe) -> Outline:
    shapes = {name: tensor.shape for name, tensor in outline.tensors.items()}
    choices = assign(recipe, shapes, outline.config, weighted=recipe.needs_importance)
    return outline.retyped(recipe.name, {name: made.type.name for name, made in choices.items()})


def _sized(outline: Outline, quant: str, nbytes: int) -> Outline:
    """The model in a type known by name, with tensors of so many bytes in all."""
    if nbytes <= 0:
        raise CheckFailedError(f"the file of {quant} is too small for the model")
    recipe = RECIPES.get(quant.lower())
    if recipe is None:  # a vendor's mix: the recipe whose size is nearest
        every = (_by_recipe(outline, known) for known in RECIPES.values())
        made = min(every, key=lambda one: abs(one.file_bytes - nbytes))
    else:
        made = _by_recipe(outline, recipe)
    types = {name: tensor.type for name, tensor in made.tensors.items()}
    return made.retyped(quant.lower(), types, surplus_bytes=nbytes - made.file_bytes)
