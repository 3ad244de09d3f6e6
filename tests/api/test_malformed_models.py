"""Models that are wrong anywhere: each runs or ends in a typed error, none in a crash."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from support.malformed import Case, iter_malformed
from support.sandbox import Report, try_all
from support.whole_model import write_whole_model

SHARE = 5  # the fast suite takes every fifth file


def every_fifth(valid: bytes) -> Iterator[Case]:
    yield from islice(iter_malformed(valid), 0, None, SHARE)


def check(report: Report, at_least: int) -> None:
    assert report.crashed is None
    assert report.leaked == []
    assert report.slow == []
    assert report.total >= at_least
    assert report.read > 0
    assert report.refused["CorruptFileError"] > report.total // 2


def test_a_share_of_the_malformed_models(tmp_path: Path) -> None:
    valid = write_whole_model(tmp_path / "whole.gguf")
    (tmp_path / "cases").mkdir()

    check(
        try_all(
            "support.loaders:run_model",
            "api.test_malformed_models:every_fifth",
            valid,
            tmp_path / "cases",
        ),
        2000,
    )


@pytest.mark.slow
def test_all_malformed_models(tmp_path: Path) -> None:
    valid = write_whole_model(tmp_path / "whole.gguf")
    (tmp_path / "cases").mkdir()

    check(
        try_all(
            "support.loaders:run_model",
            "support.malformed:iter_malformed",
            valid,
            tmp_path / "cases",
        ),
        6000,
    )
