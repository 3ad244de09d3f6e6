"""Keys about the model as a whole, and its chat templates."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest

from edgeinfer_converters.metadata import chat_templates, general, size_label


@pytest.mark.parametrize(
    ("parameters", "label"),
    [
        (134_515_008, "135M"),
        (1_235_814_400, "1.2B"),
        (999_700_000, "1.0B"),
        (8_030_261_248, "8.0B"),
        (70_553_706_496, "71B"),
        (1_044_992, "1.0M"),
        (400_000, "400.0K"),
    ],
)
def test_a_count_is_written_as_people_write_it(parameters: int, label: str) -> None:
    assert size_label(parameters) == label


def test_name_licence_tags_and_sampling_come_from_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "SmolLM2-135M"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\nlanguage: en\ntags: [chat, small]\n---\n# A model\n"
    )
    (folder / "generation_config.json").write_text('{"temperature": 1, "top_k": 20, "do": true}')

    keys = general(folder, 134_515_008)

    assert keys == {
        "general.type": "model",
        "general.name": "SmolLM2-135M",
        "general.size_label": "135M",
        "general.license": "apache-2.0",
        "general.languages": ["en"],
        "general.tags": ["chat", "small"],
        "general.sampling.temp": 1.0,
        "general.sampling.top_k": 20,
    }
    assert set(keys) <= set(vars(gguf.Keys.General).values())


@pytest.mark.parametrize("card", ["no front matter", "---\n: : [\n---\n", "---\n- a list\n---\n"])
def test_a_card_that_says_nothing_is_no_error(card: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card)

    assert "general.license" not in general(tmp_path, 1)


@pytest.mark.parametrize(
    "place", ["tokenizer_config.json", "chat_template.json", "chat_template.jinja"]
)
def test_a_template_is_found_wherever_transformers_kept_it(place: str, tmp_path: Path) -> None:
    text = "{{ messages }}"
    stored = text if place.endswith(".jinja") else json.dumps({"chat_template": text})
    (tmp_path / place).write_text(stored)

    assert chat_templates(tmp_path) == {"tokenizer.chat_template": text}


def test_a_file_of_its_own_counts_more(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    (tmp_path / "chat_template.jinja").write_text("new")

    assert chat_templates(tmp_path) == {"tokenizer.chat_template": "new"}


def test_named_templates_are_kept_under_their_names(tmp_path: Path) -> None:
    stated = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": stated}))
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("c")

    assert chat_templates(tmp_path) == {
        "tokenizer.chat_template": "a",
        "tokenizer.chat_template.tool_use": "b",
        "tokenizer.chat_template.rag": "c",
        "tokenizer.chat_templates": ["rag", "tool_use"],
    }


def test_no_template_is_no_key(tmp_path: Path) -> None:
    assert chat_templates(tmp_path) == {}
