"""The checks of `test_house.py`: source code in, a list of complaints out."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests import private_names

PACKAGE = "keras_reformer"
# Each rank may import from lower ones. Modules of one rank stand side by side.
RANKS = {
    "_requirements": 0,
    "data": 0,
    "files": 0,
    "ops": 0,
    "layers": 1,
    "generation": 2,
    "metrics": 2,
    "models": 3,
    "convert": 4,
    "distribute": 4,
    "export": 4,
    "planning": 4,
    "visualize": 4,
    "commands": 5,
    "cli": 6,
}
# The same for the rooms and single files of `ops/`.
OPS_RANKS = {
    "custom_vjp": 0,
    "replicas": 0,
    "tracing": 0,
    "vocabulary": 0,
    "loops": 1,
    "chunking": 2,
    "random": 2,
    "dropout": 3,
    "losses": 3,
    "attention": 4,
    "reversible": 4,
    "decoding": 5,
}
# Who may import what stands beside the ranks.
ONLY_FOR = {"data": {"data", "commands", "cli"}, "_requirements": set()}
TENSORFLOW_PLACES = (
    "keras_reformer/ops/",
    "keras_reformer/data/",
    "keras_reformer/models/engines.py",
    "keras_reformer/models/feeding.py",
    "keras_reformer/models/replicas.py",
    "keras_reformer/models/training.py",
    "keras_reformer/models/workers.py",
    "keras_reformer/export/",
    "keras_reformer/distribute/",
)
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
# A path on the machine of whoever wrote it. (Not in a longer word or URL.)
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:work|root|home)/")
# A line that hands on an argument under its own name.
HANDED_ON = re.compile(r"\s*(\w+)=\1,")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Import(NamedTuple):
    """One imported name, `module` and, after `from module import`, `name`."""

    module: str
    name: str | None
    line: int
    inside_function: bool

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def imports(tree: ast.Module, path: str) -> Iterator[Import]:
    """All imports of a file, relative ones resolved by its path."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, Function)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno, id(node) in inside)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, path)
            for alias in node.names:
                yield Import(
                    module, alias.name, node.lineno, id(node) in inside
                )


def _absolute(node: ast.ImportFrom, path: str) -> str:
    if not node.level:
        return node.module
    folders = path.split("/")[: -node.level]
    return ".".join(folders + ([node.module] if node.module else []))


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _part(dotted: str, depth: int = 1) -> str:
    """The part of the package: `ops` of `keras_reformer.ops.random`."""
    return (dotted.split(".") + [""] * depth)[depth]


def check_direction(tree: ast.Module, path: str) -> Iterator[str]:
    """Imports inside the package go from higher ranks to lower ones."""
    part = path.removesuffix(".py").split("/")[1]
    if part == "__init__":
        return
    if part not in RANKS:
        yield f"{path}: has no place in the order of imports (house.RANKS)"
        return
    for found in imports(tree, path):
        if not _is_in(found.module, PACKAGE):
            continue
        target = _part(found.path)
        if target not in RANKS:
            # A public name of the package itself, which imports all the rest.
            allowed = part in {"commands", "cli"}
        elif target in ONLY_FOR:
            allowed = part in ONLY_FOR[target]
        else:
            allowed = target in (part, "files") or (
                RANKS[target] < RANKS[part] and part != "data"
            )
        if not allowed:
            yield f"{path}:{found.line}: {part} imports {found.path}"


def check_rooms(tree: ast.Module, path: str) -> Iterator[str]:
    """Imports inside `ops/` go from higher rooms to lower ones."""
    folder, room, *_ = path.removesuffix(".py").split("/")[1:] + [""]
    if folder != "ops" or room == "__init__":
        return
    if room not in OPS_RANKS:
        yield f"{path}: has no place in the order of ops/ (house.OPS_RANKS)"
        return
    for found in imports(tree, path):
        target = _part(found.path, 2)
        if not _is_in(found.path, f"{PACKAGE}.ops") or target == room:
            continue
        if OPS_RANKS.get(target, 99) >= OPS_RANKS[room]:
            yield f"{path}:{found.line}: ops/{room} imports {found.path}"


def check_foreign_imports(tree: ast.Module, path: str) -> Iterator[str]:
    """TensorFlow, private Keras and matplotlib stay where they belong."""
    for found in imports(tree, path):
        where = f"{path}:{found.line}: imports {found.path}"
        if _is_in(found.path, "keras.src"):
            yield f"{where}, which is private"
        if not path.startswith(f"{PACKAGE}/"):
            continue
        if _is_in(found.module, "tensorflow") and not path.startswith(
            TENSORFLOW_PLACES
        ):
            yield f"{where} outside {', '.join(TENSORFLOW_PLACES)}"
        if _is_in(found.module, "matplotlib") and not found.inside_function:
            yield f"{where} outside a function"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "keras.src":
            yield f"{path}:{node.lineno}: uses keras.src, which is private"


def check_public_names(tree: ast.Module, path: str) -> Iterator[str]:
    """`__all__` of a package's `__init__.py` is sorted and complete."""
    listed, bound = None, set()
    for node in _top_level(tree):
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets]
            if names == ["__all__"]:
                listed = ast.literal_eval(node.value)
            bound.update(names)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name for alias in node.names]
            bound.update(name.split(".")[0] for name in names)
        elif isinstance(node, Function | ast.ClassDef):
            bound.add(node.name)
    public = {name for name in bound if not name.startswith("_")}
    public |= bound & {"__version__"}
    if listed is None:
        if public:
            yield f"{path}: has public names and no __all__"
        return
    if len(listed) != len(set(listed)):
        yield f"{path}: __all__ names something twice"
    for name in sorted(public ^ set(listed)):
        yield f"{path}: {name} is in only one of __all__ and the public names"


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements, also those that tell type checkers of lazy imports."""
    for node in tree.body:
        is_lazy = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(
            node.test
        )
        yield from node.body if is_lazy else [node]


def check_sizes(tree: ast.Module, path: str, source: str) -> Iterator[str]:
    """No file and no function's body (its docstring aside) is too long."""
    num_lines = len(source.splitlines())
    if num_lines > MAX_FILE_LINES:
        yield f"{path}: {num_lines} lines, more than {MAX_FILE_LINES}"
    for node in ast.walk(tree):
        if not isinstance(node, Function):
            continue
        # A long signature is a list of names, not a long way to read, and so
        # is a call that hands on arguments of these names.
        documented = ast.get_docstring(node, clean=False) is not None
        body = node.body[1:] if documented else node.body
        first = body[0].lineno - 1 if body else node.end_lineno
        lines = source.splitlines()[first : node.end_lineno]
        num_lines = sum(not HANDED_ON.fullmatch(line) for line in lines)
        if num_lines > MAX_FUNCTION_LINES:
            yield (
                f"{path}:{node.lineno}: {node.name} has {num_lines} lines, "
                f"more than {MAX_FUNCTION_LINES}"
            )


def check_machine_paths(path: str, text: str) -> Iterator[str]:
    """No text names an absolute path of one machine."""
    for number, line in enumerate(text.splitlines(), 1):
        if MACHINE_PATH.search(line):
            yield f"{path}:{number}: names one machine's path: {line.strip()}"


def check_test_imports(tree: ast.Module, path: str) -> Iterator[str]:
    """What tests share lives in `tests/support/`, not in another test."""
    for found in imports(tree, path):
        name = found.module.split(".")[-1]
        if _is_in(found.module, "tests") and name.startswith("test_"):
            yield f"{path}:{found.line}: imports the test {found.module}"


def check_package_file(path: str, source: str) -> list[str]:
    """All checks of a Python file of the package."""
    tree = ast.parse(source)
    complaints = [
        *check_direction(tree, path),
        *check_rooms(tree, path),
        *private_names.check(tree, path),
    ]
    if path.endswith("__init__.py"):
        complaints += check_public_names(tree, path)
    return complaints + check_any_file(path, source)


def check_any_file(path: str, source: str) -> list[str]:
    """The checks that hold for every Python file of the repository."""
    tree = ast.parse(source)
    return [
        *check_foreign_imports(tree, path),
        *check_test_imports(tree, path),
        *check_sizes(tree, path, source),
    ]
