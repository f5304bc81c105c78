"""Every table and picture of the documents, from made-up answers."""

import importlib
import itertools
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

# ruff: noqa: E402
import measuring
import run

WAYS = ("count", "discount", "importance")


def steps(case):
    size = case["length"] * case.get("depth", 1)
    return {"first": 9.0, "seconds": [size / 1e4, 1.0], "growth": size / 100}


def memory(case):
    return {
        "peak": 1000.0 + 10 * case.get("blocks", 1),
        "before": 500.0,
        "growth": 500.0,
        "needs": 300.0 + case.get("length", 1) / 100,
        "reset": True,
        "block_parameters": 1e5,
    }


def rounds(case):
    if case["part"] == "errors":
        ways = itertools.product(WAYS, case["hashes"])
        return {f"{way} {number}": [1 / number, 2.0] for way, number in ways}
    return {name: [1.0, 2.0] for name in (*WAYS, "wall", "processor")}


def soak(case):
    log = [[100 * i + 1, 700.0 + i, 91, 1.0 + i] for i in range(11)]
    return {"log": log}


def tpu(case):
    sizes = {"temporaries": 270.0, "arguments": 25.0}
    costs = {"flops": 1e9, "bytes": None, "milliseconds": None}
    counts = {"gathered": 1000, "sorts": 4}
    return {**sizes, **costs, **counts, "lowering": 1.0, "compiling": 2.0}


def kills(case):
    names = ("kill", "moment", "after s", "killed", "half a file left")
    row = dict.fromkeys((*names, "resumed at step", "equal end"), "yes")
    return {"undisturbed": 9.0, "rows": [row]}


ANSWERS = {
    "attention": steps,
    "decoding": steps,
    "kills": kills,
    "limits": lambda case: {"rate": 50.0},
    "memory": memory,
    "model": steps,
    "rounds": rounds,
    "soak": soak,
    "tpu": tpu,
}
MORE = {
    "memory": ["--sweep", "depth", "optimizer", "rounds", "vocabulary"],
    "model": ["--depths", "3", "6"],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_tables_are_those_of_the_documents(name, tmp_path, monkeypatch):
    monkeypatch.setattr(
        measuring, "run_worker", lambda name, case, _: ANSWERS[name](case)
    )
    find = importlib.util.find_spec
    # No contender is left out: none is imported.
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda package: find(package) or find("os")
    )
    tables, picture = tmp_path / "tables.md", tmp_path / "picture.png"
    arguments = [name, "--skip-tests", "--picture", str(picture)]
    run.main([*arguments, "--markdown", str(tables), *MORE.get(name, [])])
    assert picture.exists() == hasattr(importlib.import_module(name), "plot")
    lines = tables.read_text().splitlines()
    headers = {
        line
        for line, rule in zip(lines, lines[1:], strict=False)
        if rule.startswith("| ---")
    }
    shown = (ROOT / "docs" / "benchmarks.md").read_text().splitlines()
    assert headers - set(shown) == set()
