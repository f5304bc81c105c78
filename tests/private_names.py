"""Which private names a file of the package may use, told from its source.

- `self._name`, `cls._name` and `super()._name` in a class: those that the
  class or one of its bases in the package defines, in its body or by setting
  `self._name`. A mixin that borrows names of its neighbours is refused, and
  so is what Keras's own bases keep to themselves.
- `x._name` of anything else: those that some class or module of the package
  defines, unless Keras's models, layers or variables have such a name.
- A class that inherits from Keras does not define, and so replace, a private
  name of theirs.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras

PACKAGE = Path(__file__).parent.parent / "keras_reformer"
# Names that begin with an underscore and are public all the same.
NAMED_TUPLE = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class OwnNames(NamedTuple):
    """Private names of a class of the package: its own, and its bases."""

    bases: frozenset[str]
    names: frozenset[str]


def check(tree: ast.Module, path: str) -> Iterator[str]:
    """Complaints about private names of others.

    Args:
        tree: a file of the package.
        path: its path, for complaints.
    """
    classes = {**package_classes(), **_classes_of(tree)}
    anywhere = package_private_names() | _module_names(tree)
    anywhere = anywhere.union(*(own.names for own in classes.values()))
    for node, owner in _owned_attributes(tree, None):
        name, where = node.attr, f"{path}:{node.lineno}: {ast.unparse(node)}"
        if not _is_private(name) or name in NAMED_TUPLE:
            continue
        if owner is not None and _is_own(node.value):
            if name not in _names_of(owner, classes):
                yield f"{where} is private to no class that {owner} is"
        elif name not in anywhere or name in keras_private_names():
            yield f"{where} is private elsewhere"
    for name in _classes_of(tree):
        if _is_of_keras(name, classes):
            taken = classes[name].names & keras_private_names()
            for each in sorted(taken.difference(NAMED_TUPLE)):
                yield f"{path}: {name} replaces Keras's private {each}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_own(value: ast.expr) -> bool:
    """Whether it is `self`, `cls` or `super()`."""
    if isinstance(value, ast.Call):
        value = value.func
        return isinstance(value, ast.Name) and value.id == "super"
    return isinstance(value, ast.Name) and value.id in {"self", "cls"}


def _owned_attributes(node: ast.AST, owner: str | None):
    """All attributes, each with the innermost class that it is in."""
    if isinstance(node, ast.ClassDef):
        owner = node.name
    if isinstance(node, ast.Attribute):
        yield node, owner
    for child in ast.iter_child_nodes(node):
        yield from _owned_attributes(child, owner)


def _classes_of(tree: ast.Module) -> dict[str, OwnNames]:
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names = {
                attribute.attr
                for attribute, owner in _owned_attributes(node, None)
                if owner == node.name
                and isinstance(attribute.ctx, ast.Store)
                and _is_own(attribute.value)
            }
            bases = map(ast.unparse, node.bases)
            found[node.name] = OwnNames(
                frozenset(bases), frozenset(names | _bound_in(node.body))
            )
    return found


def _module_names(tree: ast.Module) -> frozenset[str]:
    return frozenset(filter(_is_private, _bound_in(tree.body)))


def _bound_in(body: list[ast.stmt]) -> set[str]:
    """Names that a class's or a module's own statements bind."""
    names = set()
    for node in body:
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = getattr(node, "targets", None) or [node.target]
            names |= {x.id for x in targets if isinstance(x, ast.Name)}
    return names


def _lineage(owner: str, classes: dict[str, OwnNames]) -> set[str]:
    """A class of the package, its bases, and theirs."""
    found, waiting = set(), [owner]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            own = classes.get(name.split(".")[-1])
            waiting += () if own is None or "keras." in name else own.bases
    return found


def _names_of(owner: str, classes: dict[str, OwnNames]) -> set[str]:
    lineage = _lineage(owner, classes) & set(classes)
    return set().union(*(classes[name].names for name in lineage))


def _is_of_keras(owner: str, classes: dict[str, OwnNames]) -> bool:
    return any(base.startswith("keras.") for base in _lineage(owner, classes))


def _package_trees() -> Iterator[ast.Module]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ast.parse(path.read_text())


@functools.cache
def package_classes() -> dict[str, OwnNames]:
    """All classes of the package, by name."""
    found = {}
    for tree in _package_trees():
        found.update(_classes_of(tree))
    return found


@functools.cache
def package_private_names() -> frozenset[str]:
    """Private names of all modules of the package."""
    return frozenset().union(*map(_module_names, _package_trees()))


@functools.cache
def keras_private_names() -> frozenset[str]:
    """What Keras's models, layers and variables keep to themselves."""
    layer = keras.layers.Layer(name="layer")
    model = keras.Sequential([keras.Input((1,)), layer], name="model")
    variable = keras.Variable(0.0, name="variable")
    objects = [layer, model, variable, keras.optimizers.SGD()]
    kinds = [keras.Model, *map(type, objects)]
    names = {name for kind in kinds for name in dir(kind)}
    names |= {name for each in objects for name in vars(each)}
    return frozenset(filter(_is_private, names))
