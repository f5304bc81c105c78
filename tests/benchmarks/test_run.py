"""Every benchmark runs in its quick setting, and the runner keeps its word."""

import importlib
import json
import pathlib
import re
import shlex
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

# ruff: noqa: E402
import contenders
import language_model
import measuring
import reporting
import run
import worker


@pytest.fixture
def in_process(monkeypatch):
    """Workers answer here, which saves the imports of a process."""

    def run_worker(name, case, tree):
        module = importlib.import_module(name)
        answer = module.work({**case, "threads": 1})
        return json.loads(json.dumps(answer))

    monkeypatch.setattr(measuring, "run_worker", run_worker)


# === Every benchmark ===

# What takes long to trace or to compile, made less in every run of the tests.
LESS = {
    "attention": ["--contenders", "ours, no XLA", "--modes", "forward"],
    "decoding": ["--contenders", "ours", "--depth", "1"],
    "exactness": ["--depths", "1"],
    "memory": ["--sweep", "rounds", "vocabulary"],
    "model": ["--contenders", "ours, no XLA", "--depths", "1"],
}
SLOW = set(run.TESTS) - {"attention"}
QUICK = [
    pytest.param(name, more, marks=[pytest.mark.slow] * slow, id=f"{name}-{i}")
    for name in run.TESTS
    for i, (more, slow) in enumerate(
        [(LESS.get(name, []), name in SLOW)] + [([], True)] * (name in LESS)
    )
]


@pytest.mark.parametrize("name, more", QUICK)
def test_quick_setting(name, more, tmp_path, in_process):
    for package in run.REQUIRES.get(name, ()):
        pytest.importorskip(package)
    module = importlib.import_module(name)
    stored, tables = tmp_path / "raw.json", tmp_path / "tables.md"
    picture = tmp_path / "picture.png"
    arguments = [name, "--skip-tests", "--markdown", str(tables)]
    arguments += ["--picture", str(picture), *more]
    run.main([*arguments, "--quick", "--json", str(stored)])
    assert picture.exists() == hasattr(module, "plot")
    first = tables.read_text()
    assert "(a quick setting, not tested)" in first
    run.main([*arguments, "--load", str(stored)])
    assert tables.read_text() == first


def test_what_is_measured_has_its_tests():
    for test in {test for tests in run.TESTS.values() for test in tests}:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists(), test
        assert not name or f"def {name}(" in (ROOT / path).read_text(), test


def documented_commands():
    text = (ROOT / "docs" / "benchmarks.md").read_text().replace("\\\n", " ")
    return re.findall(r"^python benchmarks/run\.py (.*)", text, re.MULTILINE)


@pytest.mark.parametrize("command", documented_commands())
def test_commands_of_the_documents_name_options_that_exist(command):
    arguments = shlex.split(command)
    for package in run.REQUIRES.get(arguments[0], ()):
        pytest.importorskip(package)
    run.parse(arguments)


def test_a_course_too_short_for_a_slope_is_refused():
    module, options = run.parse(["soak", "--requests", "19"])
    with pytest.raises(SystemExit, match="at least 20. Received: 19"):
        module.cases(options)


# === The gate ===


def test_no_number_where_a_test_fails(tmp_path, monkeypatch):
    failing = tmp_path / "test_failing.py"
    failing.write_text("def test_it():\n    assert 1 == 2\n")
    monkeypatch.setitem(run.TESTS, "limits", (str(failing),))
    monkeypatch.setattr(measuring, "measure_all", None)
    with pytest.raises(SystemExit, match="nothing measured"):
        run.main(["limits", "--quick"])


def test_tables_say_nothing_where_tests_passed(tmp_path, monkeypatch, capsys):
    passing = tmp_path / "test_passing.py"
    passing.write_text("def test_it():\n    pass\n")
    monkeypatch.setitem(run.TESTS, "limits", (str(passing),))
    monkeypatch.setattr(measuring, "run_worker", lambda *_, **__: {"rate": 1.0})
    picture = str(tmp_path / "picture.png")
    run.main(["limits", "--names", "copy", "--picture", picture])
    assert "\nrates\n" in capsys.readouterr().out


# === Two revisions ===


def test_a_base_is_measured_in_turn(monkeypatch, capsys):
    trees = []

    def run_worker(name, case, tree):
        assert (tree / "keras_reformer" / "__init__.py").exists()
        trees.append(tree)
        return {"rate": 2.0 if tree == ROOT else 4.0}

    monkeypatch.setattr(measuring, "run_worker", run_worker)
    options = ["--rounds", "3", "--names", "copy", "--skip-tests"]
    run.main(["limits", *options, "--base", "HEAD"])
    assert [tree == ROOT for tree in trees] == [True, False, False, True] + [
        True,
        False,
    ]
    assert not trees[1].exists()
    listed = subprocess.run(
        ["git", "-C", ROOT, "worktree", "list"], capture_output=True, text=True
    )
    assert str(trees[1]) not in listed.stdout
    printed = capsys.readouterr().out
    assert "medians (not tested)" in printed
    row = printed.splitlines()[-1].split()
    assert row[-4:] == ["rate", "2", "4", "0.50"]


def test_a_base_that_does_not_exist():
    with pytest.raises(SystemExit, match="no-such-revision"):
        run.main(["limits", "--skip-tests", "--base", "no-such-revision"])


def test_only_ours_is_measured_beside_a_base(monkeypatch):
    module, options = run.parse(["attention", "--base", "HEAD"])
    names = {case["contender"] for case in module.cases(options)}
    assert names == {
        name for name, each in module.CONTENDERS.items() if each.ours
    }


def test_a_worker_refuses_another_checkout(tmp_path):
    importlib.import_module("keras_reformer")
    worker.check_tree(ROOT)
    with pytest.raises(RuntimeError, match="expected one in"):
        worker.check_tree(tmp_path)


def test_what_is_compiled_for_a_tpu_is_traced_for_one(monkeypatch):
    tpu = importlib.import_module("tpu")
    for_tpu = importlib.import_module("keras_reformer.ops.tracing").for_tpu
    compiler = types.SimpleNamespace(lower=lambda *step: for_tpu())
    monkeypatch.setitem(sys.modules, "tpu_compiler", compiler)
    monkeypatch.setattr(tpu, "train_step", lambda *model: ())
    assert tpu.lower({})
    assert not for_tpu()


# === Processes and tables ===


CASE = {"allocator": "default", "threads": 1}


@pytest.mark.slow
def test_a_fresh_process_answers():
    buckets = measuring.call_elsewhere(language_model.num_buckets, 16384)
    assert buckets == [16, 16]


def test_a_worker_that_fails_says_why():
    with pytest.raises(measuring.WorkerError, match="ModuleNotFoundError"):
        measuring.run_worker("no_such_benchmark", CASE)


def test_progress_is_printed_before_the_answer(tmp_path, monkeypatch, capfd):
    script = tmp_path / "worker.py"
    script.write_text("print('half')\nprint('all')\nprint('{\"rate\": 1.0}')\n")
    monkeypatch.setattr(measuring, "WORKER", script)
    assert measuring.run_worker("any", CASE) == {"rate": 1.0}
    assert capfd.readouterr().out == "half\nall\n"


def record(name, seconds, growth):
    found = {"seconds": seconds, "growth": growth, "reset": False}
    return {"contender": name, **found, "found": list(found)}


def test_medians_are_over_the_steps_of_all_rounds():
    records = [record("a", [1.0, 5.0], 10), record("a", [3.0], 20)]
    medians = {"seconds": 3.0, "growth": 15.0}
    assert measuring.group(records, ("contender",)) == {("a",): medians}
    assert measuring.medians(records, ("contender",)) == [records[0] | medians]
    assert measuring.told(records[1]) == "seconds 3, growth 20, not reset"


def test_contenders_stand_beside_ours():
    records = [record("ours", [2.0], 10), record("theirs", [5.0], 40)]
    records = [{**each, "length": 100} for each in records]
    columns = {"us/token": "{us:.0f}", "tokens/s": "{rate:.0f}"}
    ((title, header, rows),) = contenders.tables(
        records, "{length:,} tokens", "ours", columns, lambda found: "!"
    )
    assert title == "100 tokens!"
    assert header == ["contender", *columns, "time / ours", "memory / ours"]
    assert rows[1] == ["theirs", "50000", "20", "2.50", "4.00"]


def test_a_table_of_formats():
    records = [{"a": 1, "b": None, "of": [4, 6]}, {"a": 2, "b": 3.0, "of": [5]}]
    columns = {"a": "{a:,}", "b": "{b:.1f}", "to": "{a/}", "first": "{of[0]}"}
    header, rows = reporting.rows(records, columns, records[0])
    assert header == list(columns)
    assert rows == [["1", "", "1.00", "4"], ["2", "3.0", "2.00", "5"]]
    assert reporting.rows(records, {"to": "{a/}"})[1] == [[""], [""]]


def test_titles_part_records_by_what_they_name():
    records = [{"a": a, "b": b} for a in (1000, 2) for b in "xy"]
    assert list(reporting.titled(records, "{a:,} of each")) == [
        ("1,000 of each", records[:2]),
        ("2 of each", records[2:]),
    ]


def test_cases_are_all_combinations_along_the_axes():
    axes = {"scope": ["a", "b"], "depth": "depths", "length": "length"}
    settings = {"depths": [1, 2], "length": 8}
    module = types.SimpleNamespace(AXES=axes, OPTIONS=settings)
    options = types.SimpleNamespace(**settings)
    cases = list(run.cases_of(module, options))
    assert cases[1] == {"scope": "a", "depth": 2, "length": 8}
    assert len(cases) == 4
    del module.AXES
    assert list(run.cases_of(module, options)) == [
        {"depths": 1, "length": 8},
        {"depths": 2, "length": 8},
    ]


def test_a_third_entry_of_an_option_is_its_quick_setting():
    _, options = run.parse(["exactness", "--quick"])
    assert (options.depths, options.length) == ([2], 67)
    _, options = run.parse(["exactness", "--quick", "--length", "9"])
    assert (options.depths, options.length) == ([2], 9)
