"""The rules of the house, and proof that each can be broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).parent.parent
# What builds, environments and commands leave behind is not the repository.
GENERATED = {"__pycache__", "build", "dist", "runs", "shared", "node_modules"}


def repository_files():
    """Every file of the repository, as a path relative to its root."""
    for folder, folders, names in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not is_generated(name, here)]
        # In a worktree, `.git` is a file that names its repository.
        yield from (here / name for name in sorted(names) if name != ".git")


def is_generated(name, here):
    return (
        name in GENERATED
        or (name.startswith(".") and name not in {".ci", ".github"})
        or name.endswith(".egg-info")
        or here.name == "saved_models"
    )


FILES = list(repository_files())
PYTHON_FILES = [path.as_posix() for path in FILES if path.suffix == ".py"]


def test_the_walk_finds_the_house():
    assert "tests/test_house.py" in PYTHON_FILES
    assert "keras_reformer/data/__init__.py" in PYTHON_FILES
    assert Path(".ci/run") in FILES
    assert not [path for path in PYTHON_FILES if "site-packages" in path]


@pytest.mark.parametrize("path", PYTHON_FILES)
def test_python_file(path):
    source = (ROOT / path).read_text()
    in_package = path.startswith(house.PACKAGE + "/")
    check = house.check_package_file if in_package else house.check_any_file
    assert check(path, source) == []


def test_no_text_names_a_path_of_one_machine():
    complaints = []
    for path in FILES:
        content = (ROOT / path).read_bytes()
        if b"\0" not in content:
            text = content.decode(errors="replace")
            complaints += house.check_machine_paths(path.as_posix(), text)
    assert complaints == []


def test_public_names_exist_and_importing_is_light():
    code = (
        "import sys, keras\n"
        "before = set(sys.modules)\n"
        "import keras_reformer as package\n"
        "missing = [n for n in package.__all__ if not hasattr(package, n)]\n"
        "assert not missing, missing\n"
        "heavy = {'matplotlib', 'tensorflow_datasets'} & set(sys.modules)\n"
        "heavy -= before\n"
        "assert not heavy, heavy\n"
        "assert set(package.__all__) <= set(dir(package))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_importing_the_package_brings_little_that_keras_does_not():
    code = (
        "import sys, keras\n"
        "before = set(sys.modules)\n"
        "import keras_reformer\n"
        "new = set(sys.modules) - before\n"
        "others = {name.partition('.')[0] for name in new}\n"
        "others -= set(sys.stdlib_module_names)\n"
        "assert others <= {'keras_reformer'}, others\n"
        "rooms = {'convert', 'export', 'data', 'commands', 'visualize'}\n"
        "early = {f'keras_reformer.{room}' for room in rooms} & new\n"
        "assert not early, early\n"
        "keras_reformer.convert.load_huggingface\n"
        "assert 'keras_reformer.export' not in sys.modules\n"
        "keras_reformer.export_saved_model\n"
        "try:\n"
        "    keras_reformer.nothing\n"
        "except AttributeError as error:\n"
        "    assert 'nothing' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


GOOD = {
    "keras_reformer/layers/feed_forward.py": (
        "import keras\nfrom keras_reformer.ops import dropout\n"
    ),
    "keras_reformer/layers/alibi_bias.py": (
        "import keras\n"
        "from keras_reformer.layers.attention_layer import AttentionLayer\n"
        "class A(AttentionLayer):\n"
        "    def __init__(self):\n        self._own, self._its = 1, 2\n"
        "    def f(self, other):\n"
        "        super()._split_heads(self._own)\n"
        "        return other._own + self._its + self.pair._replace(x=1)\n"
    ),
    "keras_reformer/ops/attention/lsh.py": (
        "import tensorflow as tf\n"
        "from keras_reformer.ops import dropout\n"
        "from keras_reformer.ops.attention import kernel\n"
        "from keras_reformer.ops.loops.shapes import size\n"
    ),
    "keras_reformer/models/training.py": "import tensorflow as tf\n",
    "keras_reformer/commands/train.py": (
        "from keras_reformer import ReformerCausalLM, data, models\n"
        "def f():\n    import matplotlib.pyplot as plt\n"
    ),
    "keras_reformer/visualize/lsh.py": "def f():\n    import matplotlib\n",
    "keras_reformer/cli.py": "from keras_reformer.commands import train\n",
    "keras_reformer/__init__.py": (
        "from keras_reformer import convert\n"
        "from keras_reformer._requirements import check as _check\n"
        "if _typing.TYPE_CHECKING:\n    from keras_reformer import data\n"
        "__version__ = '1'\n__all__ = ['__version__', 'convert', 'data']\n"
    ),
    "keras_reformer/ops/dropout.py": (
        "def f(a):\n    g(\n" + "        a=a,\n" * 60 + "    )\n"
    ),
    "keras_reformer/ops/random.py": (
        'def f():\n    """' + "Long.\n" * 60 + '"""\n' + "    x = 1\n" * 39
    ),
}


@pytest.mark.parametrize("path", GOOD)
def test_good_code_passes(path):
    assert house.check_package_file(path, GOOD[path]) == []


BAD = [
    ("ops/random.py", "from keras_reformer.layers import x", "ops imports"),
    ("ops/random.py", "from keras_reformer import layers", "ops imports"),
    ("ops/random.py", "from .. import layers", "ops imports"),
    ("ops/random.py", "from ..layers.b import c", "ops imports"),
    ("ops/random.py", "import keras_reformer.models", "ops imports"),
    ("ops/random.py", "def f():\n    import keras_reformer.cli", "ops imports"),
    ("layers/a.py", "from keras_reformer import Dropout", "layers imports"),
    ("layers/a.py", "from keras_reformer.generation import x", "imports"),
    ("generation.py", "import keras_reformer.models.x", "generation imports"),
    ("models/a.py", "from keras_reformer import data", "models imports"),
    ("data/a.py", "from keras_reformer.ops import random", "data imports"),
    ("export/a.py", "from keras_reformer import distribute", "export imports"),
    ("export/a.py", "from keras_reformer import commands", "export imports"),
    ("commands/a.py", "from keras_reformer import cli", "commands imports"),
    ("helpers.py", "", "no place in the order"),
    ("ops/a.py", "", "no place in the order of ops/"),
    (
        "ops/loops/a.py",
        "from keras_reformer.ops.attention import kernel",
        "ops/loops imports",
    ),
    (
        "ops/reversible/a.py",
        "from keras_reformer.ops.attention.kernel import x",
        "ops/reversible imports",
    ),
    (
        "ops/attention/a.py",
        "from keras_reformer.ops import decoding",
        "ops/attention imports",
    ),
    ("layers/a.py", "import tensorflow as tf", "outside keras_reformer/ops/"),
    ("models/a.py", "from tensorflow import raw_ops", "outside"),
    ("__init__.py", "import tensorflow as _tf", "outside"),
    ("ops/random.py", "import keras.src", "private"),
    ("ops/random.py", "from keras.src import ops", "private"),
    ("ops/random.py", "from keras import src", "private"),
    ("ops/random.py", "import keras\nkeras.src.backend.x()", "private"),
    ("layers/a.py", "import matplotlib.pyplot", "outside a function"),
    ("ops/__init__.py", "from keras_reformer.ops.a import b", "no __all__"),
    ("ops/__init__.py", "import os\n__all__ = []", "os is in only one"),
    ("ops/__init__.py", "__all__ = ['x']", "x is in only one"),
    ("ops/__init__.py", "x = 1\n__all__ = ['x', 'x']", "twice"),
    ("layers/a.py", "f(layer)._flatten_layers()", "is private elsewhere"),
    # What a class of the package has is Keras's all the same.
    ("layers/a.py", "model._layers", "is private elsewhere"),
    (
        "layers/a.py",
        "class A(keras.Model):\n    def f(self):\n        self._flatten_x()",
        "is private to no class that A is",
    ),
    (
        "layers/a.py",
        "class A(B):\n    def f(self):\n        super()._split_heads(1)",
        "is private to no class that A is",
    ),
    (
        "layers/a.py",
        "class A(PreNormalization):\n    def f(self): self._losses = 1",
        "A replaces Keras's private _losses",
    ),
    ("ops/random.py", "x = 1\n" * 401, "401 lines"),
    ("ops/random.py", "def f():\n" + "    x = 1\n" * 41, "f has 41 lines"),
    (
        "ops/random.py",
        "def f(a):\n    g(\n" + "        a=b,\n" * 41 + "    )\n",
        "f has 43 lines",
    ),
]


@pytest.mark.parametrize("path, source, complaint", BAD)
def test_bad_code_fails(path, source, complaint):
    complaints = house.check_package_file(f"keras_reformer/{path}", source)
    assert len(complaints) == 1
    assert complaint in complaints[0]


def test_private_keras_is_refused_everywhere():
    assert house.check_any_file("tests/test_a.py", "import keras.src.testing")


def test_tests_do_not_import_tests():
    for bad in ("tests.ops.test_b import x", "tests.test_b import x"):
        assert house.check_any_file("tests/ops/test_a.py", f"from {bad}")
    good = "from tests.support.stacks import x"
    assert house.check_any_file("tests/ops/test_a.py", good) == []


@pytest.mark.parametrize("place", ["work", "root", "home"])
def test_machine_paths(place):
    bad = f"see /{place}/someone/file"
    assert list(house.check_machine_paths("a.md", f"fine\n{bad}")) == [
        f"a.md:2: names one machine's path: {bad}"
    ]
    for good in [f"frame/{place}/x", f"https://a.org/{place}/x", f"/{place}"]:
        assert not list(house.check_machine_paths("a.md", good))
