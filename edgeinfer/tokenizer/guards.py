"""Filters, tests and methods that a template may use, weighed before they run.

What is not in a table here does not exist for a template. An entry says how many bytes
the result may have; most results are no larger than what they are made from.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sized
from itertools import islice
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.tests import TESTS
from markupsafe import Markup

from edgeinfer.tokenizer.budget import LimitError, budget

Estimate = Callable[..., int]

LONGEST_ROW = 10_000  # columns of padding, items of a batch
_MOST_ITEMS = 200_000
_ESCAPED = 6  # "&" becomes "&amp;"
_ITEM = 64  # bytes of a small object and the reference to it
_WIDE = re.compile(r"\d{5,}|\*")
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_SPACES = " \t\x1f\xa0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def _all(names: str, estimate: Estimate) -> dict[str, Estimate]:
    return dict.fromkeys(names.split(), estimate)


def growth(*values: Any) -> int:
    """How much longer text may get when it meets Markup, which escapes it."""
    return _ESCAPED if any(isinstance(value, Markup) for value in values) else 1


def _bounded(*numbers: Any) -> int:
    """Checks widths and counts, which may be given as anything."""
    total = 0
    for number in numbers:
        if isinstance(number, int | float):
            if not abs(number) <= LONGEST_ROW:
                raise LimitError("it pads too far")
            total += int(abs(number))
        elif isinstance(number, str):
            total += sys.getsizeof(number)
    return total


def _weigh(value: Any, *others: Any) -> int:
    weigh = budget().weigh
    return weigh(value) + sum(weigh(other) for other in others)


def _same(text: Any, *_: Any, **__: Any) -> int:
    return 4 * _weigh(text) * growth(text)


def _nothing(*_: Any, **__: Any) -> int:
    return 0


def _look(value: Any, *_: Any, **__: Any) -> int:
    """For what reads a whole value, but makes little of it."""
    if not callable(getattr(value, "__next__", None)):
        _weigh(value)
    return 0


def _items(value: Any, *_: Any, **__: Any) -> int:
    if isinstance(value, str | list | tuple | dict):
        _weigh(value)
    return _ITEM * len(value) if isinstance(value, Sized) else 0


def _padded(text: Any, width: Any = 80, *_: Any) -> int:
    return 4 * (_weigh(text) + _bounded(width))


def _replaced(text: Any, old: Any, new: Any, *_: Any, **__: Any) -> int:
    times: int = str(text).count(str(old))
    return growth(text, new) * (_weigh(text) + times * _weigh(str(new)))


def _joined(separator: Any, parts: Any) -> int:
    length: int = len(parts)
    return growth(separator, *parts) * (_weigh(parts) + length * _weigh(separator))


def _split(text: str, separator: Any = None, most: Any = -1) -> int:
    pieces = (
        sum(map(text.count, _SPACES + _LINE_ENDS)) if separator is None else text.count(separator)
    )
    return _weigh(text) + _ITEM * (min(pieces, most) if most >= 0 else pieces)


def _lines(text: str, *_: Any, **__: Any) -> int:
    return _weigh(text) + _ITEM * sum(map(text.count, _LINE_ENDS))


def percent(text: str, values: Any) -> int:
    """Bytes of ``text % values``."""
    if _WIDE.search(text):
        raise LimitError("it pads too far")
    return _weigh(text) + text.count("%") * (LONGEST_ROW + _weigh(values)) * growth(text)


def _format(text: str, *args: Any, **kwargs: Any) -> int:
    fields = text.replace("{{", "").replace("}}", "")
    if _WIDE.search(fields) or re.search(r"\{[^}]*\{", fields):
        raise LimitError("it pads too far")
    return _weigh(text) + fields.count("{") * (LONGEST_ROW + _weigh(args, kwargs)) * growth(text)


def _expanded(text: str, width: Any = 8) -> int:
    return 4 * (_weigh(text) + text.count("\t") * _bounded(width))


# Methods of text. encode, translate and maketrans make what no table here weighs.
_TEXT_METHODS: Mapping[str, Estimate] = {
    **_all(
        "strip lstrip rstrip lower upper title capitalize swapcase casefold partition "
        "rpartition removeprefix removesuffix",
        _same,
    ),
    **_all(
        "startswith endswith find rfind index rindex count isalnum isalpha isascii "
        "isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle "
        "isupper",
        _nothing,
    ),
    "split": lambda text, sep=None, maxsplit=-1: _split(text, sep, maxsplit),
    "rsplit": lambda text, sep=None, maxsplit=-1: _split(text, sep, maxsplit),
    "splitlines": _lines,
    "replace": _replaced,
    "center": _padded,
    "ljust": _padded,
    "rjust": _padded,
    "zfill": _padded,
    "expandtabs": _expanded,
    "format": _format,
}
_METHODS: Mapping[type, frozenset[str]] = {
    dict: frozenset({"get", "items", "keys", "values", "copy"}),
    list: frozenset({"index", "count", "copy"}),
    tuple: frozenset({"index", "count"}),
}


def allows(value: Any, name: str) -> bool:
    """Says whether a template may use a method of a list, a tuple or a dict."""
    return any(isinstance(value, kind) and name in names for kind, names in _METHODS.items())


def container_method(value: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method of a container that may be long or deep, with its weighing."""

    def weighed(*args: Any) -> Any:
        if isinstance(value, list | tuple):
            _weigh(value)
        _weigh(args)
        return method(*args)

    return weighed


def text_method(text: str, name: str, method: Callable[..., Any]) -> Callable[..., Any] | None:
    """Returns a text's method with its weighing, or None if templates may not use it."""
    if name == "join":

        def join(parts: Any) -> Any:
            parts = list(islice(parts, _MOST_ITEMS))
            budget().tick(_joined(text, parts))
            return method(parts)

        return join
    estimate = _TEXT_METHODS.get(name)
    if estimate is None:
        return None

    def weighed(*args: Any, **kwargs: Any) -> Any:
        budget().tick(estimate(text, *args, **kwargs))
        return method(*args, **kwargs)

    return weighed


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The ``tojson`` of chat templates: plain JSON, with nothing escaped for HTML."""
    size = 6 * _weigh(value)
    if indent is not None:
        size += size // 64 * _bounded(indent) * 4
    budget().tick(size)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _join_filter(value: Any, d: Any = "", attribute: Any = None) -> int:
    return _joined(d, value) if attribute is None else _joined(d, value) + _look(value)


def _sum(value: Any, attribute: Any = None, start: Any = 0) -> int:
    if not isinstance(start, int | float):
        raise SecurityError("it sums what are no numbers")
    return 0


def _indented(s: Any, width: Any = 4, first: Any = False, blank: Any = False) -> int:
    text = str(s) if _weigh(s) else ""
    return growth(text) * (_weigh(text) + (_ITEM + 4 * _bounded(width)) * (1 + _lines_in(text)))


def _lines_in(text: str) -> int:
    return sum(map(text.count, _LINE_ENDS))


_FILTER_ESTIMATES: Mapping[str, Estimate] = {
    **_all(
        "abs count d default first float int items last length map reject rejectattr safe "
        "select selectattr",
        _nothing,
    ),
    **_all(
        "capitalize lower string trim truncate upper reverse",
        _same,
    ),
    **_all("e escape forceescape", lambda text: _ESCAPED * _weigh(text)),
    "title": lambda text: _ITEM * _weigh(text),
    **_all("dictsort list sort unique groupby", _items),
    **_all("max min", _look),
    "batch": lambda value, n, fill=None: _items(value) + _bounded(n),
    "slice": lambda value, n, fill=None: _items(value) + _ITEM * _bounded(n),
    "round": lambda value, precision=0, method="common": _bounded(precision),
    "center": _padded,
    "indent": _indented,
    "join": _join_filter,
    "replace": lambda s, old, new, count=None: _replaced(s, old, new),
    "format": lambda value, *args, **kwargs: percent(str(value), kwargs or args),
    "sum": _sum,
}
# Written-out values never come near these.
_TEST_ESTIMATES: Mapping[str, Estimate] = {
    **_all("lower upper", _look),
    **_all(
        "eq equalto ne gt greaterthan ge lt lessthan le in",
        lambda value, other: _comparable(value) + _comparable(other),
    ),
}


def _comparable(value: Any) -> int:
    if isinstance(value, list | tuple | dict):
        _weigh(value)
    return 0


def _guard(function: Any, estimate: Estimate) -> Callable[..., Any]:
    """Wraps a filter or a test; some get the environment or context before the value."""
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0
    materialises = estimate is _join_filter

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if materialises:
            args = (*args[:skipped], list(islice(args[skipped], _MOST_ITEMS)), *args[skipped + 1 :])
        budget().tick(estimate(*args[skipped:], **kwargs))
        return budget().pay(function(*args, **kwargs))

    return guarded


def filters() -> dict[str, Any]:
    """Returns the filters that a template has."""
    every: Mapping[str, Any] = FILTERS
    found = {name: _guard(every[name], estimate) for name, estimate in _FILTER_ESTIMATES.items()}
    return {**found, "tojson": to_json}


def tests() -> dict[str, Any]:
    """Returns the tests that a template has."""
    return {
        name: _guard(test, _TEST_ESTIMATES[name]) if name in _TEST_ESTIMATES else test
        for name, test in TESTS.items()
    }
