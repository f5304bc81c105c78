"""Short names of operations in a SavedModel's functions.

Names of operations contain those of all enclosing layers and are repeated at
every use, which is more than half of the file. Functions, their arguments
and their results keep their names.
"""

import os

from tensorflow.core.protobuf import saved_model_pb2

# Error messages of bad requests contain the names of these operations.
_TELLING = ("Assert", "EnsureShape")
_COLOCATION = "_class"


def shorten_names(folder: str) -> None:
    """Renames the operations of all functions of a SavedModel, in place."""
    path = os.path.join(folder, "saved_model.pb")
    model = saved_model_pb2.SavedModel()
    with open(path, "rb") as file:
        model.ParseFromString(file.read())
    for graph in model.meta_graphs:
        for function in graph.graph_def.library.function:
            _shorten(function)
    with open(path, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))


def _shorten(function):
    taken = {argument.name for argument in function.signature.input_arg}
    taken |= {n.name for n in function.node_def if n.op in _TELLING}
    short = {}
    for node in function.node_def:
        if node.op not in _TELLING:
            name = f"n{len(short)}"
            short[node.name] = f"{name}_" if name in taken else name
    for node in function.node_def:
        node.name = short.get(node.name, node.name)
        node.input[:] = [_renamed(name, short) for name in node.input]
        node.attr.pop(_COLOCATION, None)
    for results in (function.ret, function.control_ret):
        for key, name in list(results.items()):
            results[key] = _renamed(name, short)


def _renamed(reference, short):
    """`name`, `name:output:0` or `^name`, by the new name."""
    prefix = "^" if reference.startswith("^") else ""
    name, colon, output = reference.removeprefix("^").partition(":")
    return f"{prefix}{short.get(name, name)}{colon}{output}"
