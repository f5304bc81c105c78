"""One case of a benchmark in this process: what `measuring.run_worker` starts.

Prints the answer as its last line. A driver that measures several revisions
says in `MEASURED_TREE` which checkout's package must have been imported.
"""

import importlib
import json
import os
import pathlib
import sys


def check_tree(tree):
    """Raises an error if the package came from elsewhere."""
    package = sys.modules.get("keras_reformer")
    if tree and package:
        found = pathlib.Path(package.__file__).resolve()
        if not found.is_relative_to(pathlib.Path(tree).resolve()):
            raise RuntimeError(f"measured {found}, expected one in {tree}")


def main():
    name, case = sys.argv[1:]
    answer = importlib.import_module(name).work(json.loads(case))
    check_tree(os.environ.get("MEASURED_TREE"))
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
