"""Runs a benchmark: the tests of what it measures, then the clock.

    python benchmarks/run.py NAME [--quick] [--base REVISION] [...]
    python benchmarks/run.py NAME --help

No number is printed when a test fails. Each case runs in a process of its own
(see `measuring.py`). `--base` measures this checkout and another revision of
the package in turn, with the scripts of this checkout, and prints both and
their ratio; they use public names only, or say why not.

A benchmark is a module of this folder. Of its cases, dicts as JSON has them, it
says

    OPTIONS    what its command takes, as `add_own_options` says
    AXES       by key of a case, an option's name or a list; the cases are all
               combinations; by default of all options. Or `cases(options)`,
               which makes them
    KEYS       the keys that a case is called by
    work(case) in the worker: a dict of numbers and lists

and of its records, which are cases with what was found,

    TABLE      a title and columns, as `reporting.rows` takes them. Or
               `tables(records, options)`: triples of title, header and rows
    plot(records, options)     a figure, or None; may be absent

`DEFAULTS` are other defaults of the shared options, and `QUICK` what `--quick`
sets beside the quick settings in `OPTIONS`.
"""

import argparse
import contextlib
import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

import contenders
import measuring
import reporting

LSH = "tests/ops/attention/test_lsh.py::test_windows_of_other_widths"
LAYER = "tests/layers/test_lsh_self_attention.py::test_equals_the_equations"
GRADIENTS = "tests/layers/test_reversible_gradients.py"
# The tests of what a benchmark measures, as pytest names them.
TESTS = {
    "attention": (LSH, LAYER),
    "decoding": ("tests/generation/test_loop.py",),
    "engine": ("tests/distribute/test_optimizers.py",),
    "exactness": (GRADIENTS,),
    "half_million": ("tests/models/test_reformer_causal_lm.py",),
    "kills": ("tests/commands/test_checkpoints.py",),
    "limits": ("tests/ops/attention/test_hashing.py",),
    "memory": (GRADIENTS, "tests/ops/test_losses.py"),
    "model": ("tests/models/test_reformer_causal_lm.py",),
    "packed": ("tests/layers/test_packed.py", "tests/models/test_packed.py"),
    "published": ("tests/convert/test_goldens.py",),
    "recompute": ("tests/layers/test_recompute.py",),
    "rounds": (LSH, "tests/ops/attention/test_importance.py"),
    "scaling": ("tests/planning",),
    "scopes": ("tests/layers/test_decoding.py",),
    "soak": ("tests/export/test_endpoints.py",),
    "tpu": ("tests/ops/loops", "tests/ops/test_tracing.py"),
}
# What a benchmark cannot do without.
REQUIRES = {
    "engine": ("jax",),
    "published": ("torch", "transformers"),
    "tpu": ("jax", "libtpu"),
}


# === Options ===


def parse(arguments):
    """The benchmark's module, and its options and the shared ones."""
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    first = argparse.ArgumentParser(description=__doc__, **form)
    first.add_argument("name", metavar="NAME", choices=TESTS)
    name = first.parse_args(arguments[:1]).name
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SystemExit(missing(name, error.name)) from error
    parser = argparse.ArgumentParser(
        prog=f"run.py {name}",
        description=module.__doc__,
        parents=[shared_options()],
        **form,
    )
    quick = add_own_options(parser, getattr(module, "OPTIONS", {}))
    quick |= {"repeats": 1, "rounds": 1, **getattr(module, "QUICK", {})}
    parser.set_defaults(**getattr(module, "DEFAULTS", {}))
    chosen = parser.parse_args(arguments[1:])
    if chosen.quick:
        parser.set_defaults(**quick)
        chosen = parser.parse_args(arguments[1:])
    if chosen.base:
        chosen.rounds = max(chosen.rounds, 1 if chosen.quick else 3)
    elif not chosen.quick and not chosen.picture:
        chosen.picture = measuring.ROOT / "docs" / f"{name}.png"
    notes = ("a quick setting", chosen.quick), ("not tested", chosen.skip_tests)
    chosen.note = ", ".join(text for text, applies in notes if applies)
    return module, chosen


def add_own_options(parser, options):
    """Options by name: a default, or a type where nothing is the default.

    A list takes several values, a list of strings no others than these. With
    a help text it is a tuple, whose third entry is the quick setting. These
    are returned.
    """
    quick = {}
    for name, entry in options.items():
        default, *rest = entry if isinstance(entry, tuple) else (entry,)
        many = isinstance(default, list)
        first = default[0] if many else default
        has_default = not isinstance(first, type)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(first) if has_default else first,
            nargs="+" if many else None,
            default=default if has_default else None,
            choices=default if many and isinstance(first, str) else None,
            help=rest[0] if rest else "",
        )
        if len(rest) > 1:
            quick[name] = rest[1]
    return quick


def shared_options():
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    path = pathlib.Path
    add("--base", metavar="REVISION", help="measure this beside the checkout")
    add("--quick", action="store_true", help="show that it works; no result")
    add("--skip-tests", action="store_true", help="and say so in the tables")
    kinds = {"choices": list(measuring.ALLOCATORS), "default": ["generous"]}
    add("--allocators", nargs="+", **kinds)
    add("--repeats", type=int, default=5, help="steps after the first")
    add("--rounds", type=int, default=1, help="fresh processes of each case")
    add("--threads", type=int, default=measuring.num_cores())
    add("--json", type=path, help="where to store raw results")
    add("--markdown", type=path, help="where to store the tables")
    add("--picture", type=path, help="by default docs/NAME.png")
    load = "draw and print stored raw results, measure nothing"
    add("--load", type=path, nargs="+", help=load)
    return parser


# === Before the clock ===


def check_requirements(name, tests):
    """Ends with a hint where a package is missing."""
    for package in (*["pytest"] * tests, *REQUIRES.get(name, ())):
        if not importlib.util.find_spec(package):
            raise SystemExit(missing(name, package))


def missing(name, package):
    others = "tpu-compile" if name == "tpu" else "benchmarks"
    return f'no {package} here; pip install -e ".[cpu,dev,{others}]"'


def check_tests(name):
    """Ends without a number if a test of what is measured fails."""
    print(f"testing first: {' '.join(TESTS[name])}", flush=True)
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *TESTS[name]],
        cwd=measuring.ROOT,
        env=os.environ | {"PYTHONPATH": str(measuring.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if tests.returncode:
        said = "\n".join(tests.stdout.splitlines()[-20:])
        raise SystemExit(f"{said}\nThe tests of {name} fail: nothing measured.")
    print(tests.stdout.splitlines()[-1], flush=True)


@contextlib.contextmanager
def checkouts(base):
    """Paths of what is measured; a base gets a work tree while it is needed."""
    trees = {"ours": measuring.ROOT}
    if not base:
        yield trees
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "base"
        git("worktree", "add", "--quiet", "--detach", str(tree), base)
        try:
            yield trees | {"base": tree}
        finally:
            git("worktree", "remove", "--force", str(tree))


def git(*arguments):
    """What git prints, or an end with what it complains of."""
    run = subprocess.run(
        ["git", "-C", str(measuring.ROOT), *arguments],
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise SystemExit(f"git: {run.stderr.strip()}")
    return run.stdout.strip()


# === The run ===


def measure(name, module, options, label):
    """New records: nothing is measured where a test fails."""
    check_requirements(name, not options.skip_tests)
    cases = list(cases_of(module, options))
    if not options.skip_tests:
        check_tests(name)
    with checkouts(options.base) as trees:
        return measuring.measure_all(name, cases, options, trees, label)


def cases_of(module, options):
    """Those that a module makes, or all combinations along its axes."""
    if hasattr(module, "cases"):
        return module.cases(options)
    axes = {}
    own = {name: name for name in module.OPTIONS}
    for key, values in getattr(module, "AXES", own).items():
        if key == "contender":
            values = contenders.chosen(module.CONTENDERS, options)
        elif isinstance(values, str):
            values = getattr(options, values)
        axes[key] = values if isinstance(values, list) else [values]
    return measuring.grid(**axes)


def tables_of(module, records, options):
    """Those that a module makes, or the one of all its records."""
    if hasattr(module, "tables"):
        return module.tables(records, options)
    title, columns = module.TABLE
    return [(title, *reporting.rows(records, columns))]


def noted(tables, records):
    """The tables, their titles followed by the notes of the records."""
    notes = dict.fromkeys(each["note"] for each in records if each["note"])
    suffix = f" ({'; '.join(notes)})" if notes else ""
    for title, *rest in tables:
        yield title + suffix, *rest


def draw(module, records, options):
    """Saves the picture, if there is one and it is wanted."""
    if not options.picture or not hasattr(module, "plot"):
        return
    if not importlib.util.find_spec("matplotlib"):
        print("no picture: no matplotlib here; --load draws stored results")
        return
    figure = module.plot(records, options)
    if figure:
        figure.savefig(options.picture, dpi=120)
        print(f"picture: {options.picture}")


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    module, options = parse(arguments)
    print(measuring.describe_machine(), flush=True)
    if options.base:
        described = git("log", "-1", "--format=%h %s", options.base)
        print(f"- base {options.base}: {described}", flush=True)

    def label(case):
        return reporting.label(case, (*module.KEYS, "allocator"))

    records = measuring.load_json(options.load)
    if not options.load:
        records = measure(arguments[0], module, options, label)
    if not records:
        raise SystemExit("no case was measured")
    if any(record["revision"] == "base" for record in records):
        tables = [reporting.base_table(records, label)]
        options.picture = None
    else:
        tables = tables_of(module, records, options)
    reporting.report(noted(tables, records), options.markdown)
    draw(module, records, options)


if __name__ == "__main__":
    main()
