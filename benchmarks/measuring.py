"""What the benchmarks share: fresh processes, clocks, memory, tables.

A driver calls `run_worker(script, case)`; the script, started anew with
`--worker CASE`, measures and prints one line of JSON. No case inherits
another's memory, threads or compiled code.

Peak growth of a case is the greatest resident size of its process less the
resident size just before the first step, when weights and inputs exist. It
includes tracing and compiling.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PACKAGES = (
    "keras-reformer",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "torch",
    "transformers",
    "reformer-pytorch",
    "numpy",
)
# "generous" keeps freed memory in the process: glibc else returns large
# blocks to the system at once, and every step faults them in again.
ALLOCATORS = {
    "default": {},
    "generous": {
        "MALLOC_MMAP_THRESHOLD_": str(2**33),
        "MALLOC_TRIM_THRESHOLD_": str(2**33),
        "MALLOC_TOP_PAD_": str(2**28),
    },
}


class WorkerError(RuntimeError):
    """A worker ended without a result."""


def environment(allocator, threads):
    """The worker's environment: the caller's, made the same for all."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_")
    }
    return {
        **inherited,
        **ALLOCATORS[allocator],
        "OMP_NUM_THREADS": str(threads),
        # Threads of torch that spin at barriers lose most of their time
        # as soon as another process wants a core.
        "OMP_WAIT_POLICY": "passive",
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "KERAS_BACKEND": "tensorflow",
        # All contenders on the processor: torch would stay there anyway.
        "CUDA_VISIBLE_DEVICES": "",
    }


def run_worker(
    script,
    case,
    allocator="default",
    threads=None,
    timeout=None,
    show_progress=False,
):
    """Runs a script's `--worker` in a fresh process; returns its answer.

    With `show_progress` what it writes to stderr is seen as it comes.
    """
    threads = threads or num_cores()
    case = {**case, "threads": threads}
    try:
        process = subprocess.run(
            [sys.executable, str(script), "--worker", json.dumps(case)],
            env=environment(allocator, threads),
            stdout=subprocess.PIPE,
            stderr=None if show_progress else subprocess.PIPE,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkerError(f"took longer than {timeout} s") from error
    if process.returncode:
        said = (process.stderr or "").strip().splitlines() or ["nothing said"]
        raise WorkerError(f"exit {process.returncode}: {said[-1][:200]}")
    return json.loads(process.stdout.splitlines()[-1])


def measure(step, repeats):
    """A worker's answer about `step`; to be called once all inputs exist."""
    before = resident_memory()
    first, seconds = time_steps(step, repeats)
    growth = peak_memory() - before
    return {"first": first, "seconds": seconds, "growth": growth}


def time_steps(step, repeats):
    """Seconds of the first call, and the list of those of `repeats` more."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1:]


def peak_memory():
    """Greatest resident size of this process so far, in MiB."""
    return _status("VmHWM")


def resident_memory():
    """Resident size of this process now, in MiB."""
    return _status("VmRSS")


def _status(field):
    try:
        with open("/proc/self/status") as lines:
            found = [line for line in lines if line.startswith(field)]
        return int(found[0].split()[1]) / 2**10
    except (OSError, IndexError):
        # No /proc: the peak so far stands for both. macOS counts in bytes.
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def num_cores():
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def installed(packages):
    """The names, of those with their packages, that can run here.

    Says what the others lack.
    """
    for name, needed in packages.items():
        missing = [
            each for each in needed if not importlib.util.find_spec(each)
        ]
        if missing:
            print(
                f"{name}: left out, no {missing[0]} here; "
                'pip install "keras-reformer[benchmarks]"'
            )
        else:
            yield name


def describe_machine():
    """Processor, memory and versions, as a Markdown list."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        versions.append(f"{package} {version}")
    return "\n".join(
        [
            f"- {_processor()}, {num_cores()} cores, {memory:.0f} GiB",
            f"- {platform.system()} {platform.machine()}",
            f"- {', '.join(versions)}",
        ]
    )


def _processor():
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def summarize(records):
    """Medians of one case's records, over the steps of all its rounds."""
    seconds = [value for record in records for value in record["seconds"]]
    return {
        "seconds": statistics.median(seconds),
        "first": statistics.median(record["first"] for record in records),
        "growth": statistics.median(record["growth"] for record in records),
    }


def group(records, keys):
    """Summaries by the values of `keys`, in the order first met."""
    groups = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return {key: summarize(members) for key, members in groups.items()}


def ratio(value, reference):
    """`value / reference` for a table; empty where there is no reference."""
    return f"{value / reference:.2f}" if reference else ""


def table(header, rows):
    """An aligned table as text: names to the left, numbers to the right."""
    cells = [list(map(str, row)) for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def markdown_table(header, rows):
    """The same table in Markdown."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    lines = [header, rule, *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def start_at_zero(panel):
    """Begins a panel's values at zero, and ends them above the highest.

    A line that is nearly flat would else lie on the upper edge.
    """
    panel.set_ylim(0, 1.15 * panel.dataLim.y1)


def add_options(parser, picture):
    """The options that all drivers have; those of `measure_all` included."""
    add = parser.add_argument
    add(
        "--allocators",
        nargs="+",
        choices=list(ALLOCATORS),
        default=["generous"],
    )
    add("--repeats", type=int, default=5, help="steps after the first")
    add("--rounds", type=int, default=1, help="fresh processes of each case")
    add("--threads", type=int, default=num_cores())
    add("--timeout", type=float, help="seconds that a process may take")
    add("--json", type=pathlib.Path, help="where to store raw results")
    add("--markdown", type=pathlib.Path, help="where to store the tables")
    add("--picture", type=pathlib.Path, default=picture)
    add(
        "--load",
        type=pathlib.Path,
        nargs="+",
        help="draw and print stored raw results, measure nothing",
    )
    add("--worker", type=json.loads, help=argparse.SUPPRESS)


def answer(result):
    """Ends a worker: what the driver reads is the last line."""
    print(json.dumps(result), flush=True)


def measure_all(script, cases, options, title):
    """Records of all cases, in as many rounds as the options say.

    A round takes the cases in turn, so that a machine's bad minutes hit all
    alike. A case that fails once is not tried again. Raw results are stored
    after every case.
    """
    records, failed = [], set()
    for number in range(options.rounds):
        for case in cases:
            name = title(case)
            if name in failed:
                continue
            try:
                found = run_worker(
                    script,
                    {**case, "repeats": options.repeats},
                    case["allocator"],
                    options.threads,
                    options.timeout,
                )
            except WorkerError as error:
                failed.add(name)
                print(f"{name} failed, {error}", flush=True)
                continue
            records.append({**case, **found, "round": number})
            print(f"{name} {_told(found)}", flush=True)
            save_json(options.json, records)
    return records


def _told(found):
    summary = summarize([found])
    return (
        f"{summary['seconds']:.4f} s, {summary['growth']:.0f} MiB, "
        f"first {summary['first']:.1f} s"
    )


def save_json(path, records):
    """Stores raw results with the machine they come from."""
    if path:
        content = {"machine": describe_machine(), "records": records}
        path.write_text(json.dumps(content, indent=1) + "\n")


def load_json(paths):
    """Records of stored results, or an empty list."""
    contents = [json.loads(path.read_text()) for path in paths or ()]
    return [record for content in contents for record in content["records"]]


def report(tables, markdown):
    """Prints titled tables, and stores them as Markdown if told where."""
    for title, header, rows in tables:
        print(f"\n{title}\n{table(header, rows)}", flush=True)
    if markdown:
        parts = [
            f"### {title}\n\n{markdown_table(header, rows)}\n"
            for title, header, rows in tables
        ]
        markdown.write_text("\n".join([describe_machine() + "\n", *parts]))
