"""A Jinja environment in which a template can render, and nothing else.

Jinja's immutable sandbox keeps a template from reaching Python. It does not keep it from
running for ever or filling the memory, so the compiled code here also counts: every turn
of a loop, call of a macro, sum, product, comparison, method and piece of output is
weighed against a budget.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, TemplateReference, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from edgeinfer.tokenizer import guards
from edgeinfer.tokenizer.budget import LARGEST_INT_BITS, LimitError, budget

# Names that no template can write, because of the space.
_TICK, _CONCAT, _WEIGH = " tick", " concat", " weigh"
_BYTES_PER_ITEM = 64
_FORBIDDEN = (
    nodes.Extends,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.EvalContextModifier,
    nodes.ScopedEvalContextModifier,
)
_OWN_SCOPES = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)


class RaisedError(TemplateError):
    """The template's own ``raise_exception``."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates: transformers' globals and options, and limits."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            finalize=_written,
            # Constants would be folded while compiling, outside any budget.
            optimized=False,
        )
        filters: dict[str, Any] = {
            **guards.filters(),
            _TICK: _ticked,
            _CONCAT: _concatenated,
            _WEIGH: _weighed,
        }
        self.filters.clear()
        self.filters.update(filters)
        self.tests = guards.tests()
        del self.globals["lipsum"]
        self.globals["range"] = _range
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = _strftime_now
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Namespace

    def _generate(
        self,
        source: nodes.Template,
        name: str | None,
        filename: str | None,
        defer_init: bool = False,
    ) -> str:
        _instrument(source, self)
        return super()._generate(source, name, filename, defer_init)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a function, a macro or a method, and counts what it returns."""
        budget().tick()
        return budget().pay(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Weighs a sum, a product, a power or a formatting before it is done."""
        budget().tick(_size_of(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Looks up ``obj.attribute``; methods of text come with their weighing."""
        if isinstance(obj, _OPEN):
            return super().getattr(obj, attribute)
        if not hasattr(obj, attribute):
            return self._subscripted(obj, attribute)
        if isinstance(obj, str):
            method = getattr(obj, attribute)
            # The format methods look attributes up, which the sandbox must do for them.
            method = self.wrap_str_format(method) or method
            weighed = guards.text_method(obj, attribute, method)
            return weighed or self.unsafe_undefined(obj, attribute)
        if guards.allows(obj, attribute):
            return guards.container_method(obj, getattr(obj, attribute))
        return self.unsafe_undefined(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Looks up ``obj[argument]``, which may be a slice."""
        try:
            value = obj[argument]
        except (TypeError, LookupError):
            if isinstance(argument, str):
                return self.getattr(obj, str(argument))
            return self.undefined(obj=obj, name=argument)
        return budget().pay(value) if isinstance(argument, slice) else value

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Refuses at once; Jinja's own would be empty text until something is done with it."""
        raise SecurityError(f"it looks up {attribute!r:.40} of a {type(obj).__name__}")

    def _subscripted(self, obj: Any, attribute: str) -> Any:
        try:
            return obj[attribute]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=attribute)


class _Dict:
    """``dict``, without the class itself, whose attributes lead elsewhere."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return _counted(dict(*args, **kwargs))

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return _counted(dict.fromkeys(*args, **kwargs))


class _Namespace(Namespace):
    """``namespace``, which may hold itself, so that it has no text of its contents."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # Namespace's own signature: "self" may be one of the names.
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _Namespace._check(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"

    @staticmethod
    def _check(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"it names an attribute {name!r:.40}")


# Objects whose public attributes are harmless; of all others only what guards allow.
_OPEN = (Cycler, Joiner, LoopContext, Macro, Namespace, TemplateReference, Undefined, _Dict)


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant wrote; the text stays as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _raise(message: str) -> NoReturn:
    raise RaisedError(str(message)[:1000])


def _strftime_now(pattern: str) -> str:
    # The C library pads as far as a width says.
    if len(pattern) > 200 or re.search(r"%[^A-Za-z%]*\d", pattern):
        raise LimitError("it pads too far")
    return datetime.now().strftime(pattern)


def _range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > 100_000:
        raise LimitError("it counts too far")
    return numbers


@pass_context
def _written(context: Context, value: Any) -> Any:
    """Every value on its way into the output. Taking the context keeps it from folding."""
    budget().tick(budget().weigh(value))
    return value


def _concatenated(values: list[Any]) -> str:
    budget().tick(budget().weigh(values))
    return "".join(map(str, values))


def _weighed(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        budget().weigh(value)
    budget().tick()
    return value


def _counted(made: dict[Any, Any]) -> dict[Any, Any]:
    budget().pay(made)
    budget().weigh(made)
    return made


def _ticked(size: int) -> bool:
    budget().tick(size)
    return True


def _size_of(operator: str, left: Any, right: Any) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return _check_number(operator, left, right)
    weigh = budget().weigh
    match operator:
        case "*" if isinstance(right, int) and not isinstance(left, float):
            return weigh(left) * max(0, right)
        case "*" if isinstance(left, int) and not isinstance(right, float):
            return weigh(right) * max(0, left)
        case "%" if isinstance(left, str):
            return guards.percent(left, right)
        case "+" if isinstance(left, str) and isinstance(right, str):
            return guards.growth(left, right) * (weigh(left) + weigh(right))
        case "+" if isinstance(left, tuple) and isinstance(right, tuple):
            return weigh(left) + weigh(right)
        case "+" if isinstance(left, list) and isinstance(right, list):
            return 8 * (len(left) + len(right))
    return 0


def _check_number(operator: str, left: int, right: int) -> int:
    bits = left.bit_length() + right.bit_length()
    if operator == "**" and right > 0:
        bits = left.bit_length() * right
    if bits > LARGEST_INT_BITS:
        raise LimitError("it counts too high")
    return 0


def _instrument(template: nodes.Template, environment: Sandbox) -> None:
    """Writes the counting into a parsed template, before it is compiled."""
    for forbidden in template.find_all(_FORBIDDEN):
        raise SecurityError(f"it has a statement of type {type(forbidden).__name__}")
    scopes: list[Any] = list(template.find_all(_OWN_SCOPES))
    for scope in scopes:
        size = sum(_literal_bytes(statement) for statement in scope.body)
        scope.body.insert(0, nodes.ExprStmt(_filtered(nodes.Const(size), _TICK)))
        if isinstance(scope, nodes.For) and scope.test is not None:
            # A test that fails skips the body.
            scope.test = nodes.And(_filtered(nodes.Const(0), _TICK), scope.test)
    _replace(template, _guarded)
    template.set_environment(environment)


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None)


def _literal_bytes(node: nodes.Node) -> int:
    """Bytes that one run of a statement makes of what is written in it."""
    if isinstance(node, _OWN_SCOPES):
        return 0
    if isinstance(node, nodes.If):
        branches = (node.body, node.elif_, node.else_)
        return _literal_bytes(node.test) + max(
            sum(map(_literal_bytes, branch)) for branch in branches
        )
    own = len(node.data) * 4 if isinstance(node, nodes.TemplateData) else 0
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict):
        own = _BYTES_PER_ITEM * len(node.items)
    return own + sum(map(_literal_bytes, node.iter_child_nodes()))


def _guarded(node: nodes.Node) -> nodes.Node:
    if isinstance(node, nodes.Concat):
        return _filtered(nodes.List(node.nodes), _CONCAT)
    if isinstance(node, nodes.Compare):
        _guard_operands(node)
    if isinstance(node, nodes.List | nodes.Dict) or _is_made(node):
        # A list of lists of lists: weighed when made, so that none can be beyond use.
        return node if _is_constant(node) else _filtered(node, _WEIGH)
    return node


def _is_made(node: nodes.Node) -> bool:
    """Whether it is a tuple as a value; one that is assigned to only lists names."""
    return isinstance(node, nodes.Tuple) and node.ctx == "load"


def _guard_operands(node: nodes.Compare) -> None:
    """Has both sides weighed, unless one is a constant and so the comparison short."""
    sides = [node.expr, *(operand.expr for operand in node.ops)]
    if len(sides) == 2 and any(map(_is_constant, sides)) and not _searches(node):
        return
    node.expr = _filtered(node.expr, _WEIGH)
    for operand in node.ops:
        if not _is_constant(operand.expr):
            operand.expr = _filtered(operand.expr, _WEIGH)


def _searches(node: nodes.Compare) -> bool:
    """Whether it looks for something in what may be long."""
    return any(
        operand.op in ("in", "notin") and not _is_constant(operand.expr) for operand in node.ops
    )


def _is_constant(node: nodes.Node) -> bool:
    if isinstance(node, nodes.List | nodes.Tuple):
        return all(map(_is_constant, node.items))
    return isinstance(node, nodes.Const)


def _replace(node: nodes.Node, change: Callable[[nodes.Node], nodes.Node]) -> None:
    """Replaces every node below one by what ``change`` makes of it, leaves first."""
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            value[:] = [_replaced(item, change) for item in value]
        else:
            setattr(node, name, _replaced(value, change))


def _replaced(value: Any, change: Callable[[nodes.Node], nodes.Node]) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _replace(value, change)
    return change(value)
