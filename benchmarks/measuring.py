"""Cases in fresh processes: clocks, memory, machine and raw results.

A driver calls `run_worker(name, case)`, which starts `worker.py`: it imports
the benchmark `name`, calls its `work(case)` and prints the answer, a dict, as
one line of JSON. No case inherits another's memory, threads or compiled code.

Peak growth of a case is the greatest resident size of its process less the
resident size just before the first step, when weights and inputs exist. It
includes tracing and compiling.
"""

import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
WORKER = pathlib.Path(__file__).parent / "worker.py"
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
_RAISED = re.compile(r"[\w.]+(Error|Exception|Exit)\b")


class WorkerError(RuntimeError):
    """A worker ended without a result."""


# === Workers ===


def environment(allocator, threads, tree=None):
    """The worker's environment: the caller's, made the same for all.

    `tree` is the checkout whose package is measured; without one it is the
    caller's.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_")
    }
    if tree:
        others = filter(None, [inherited.get("PYTHONPATH")])
        inherited["PYTHONPATH"] = os.pathsep.join([str(tree), *others])
        inherited["MEASURED_TREE"] = str(tree)
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
    name,
    case,
    allocator="default",
    threads=None,
    timeout=None,
    tree=None,
    show_progress=False,
):
    """A benchmark's answer to a case, from a fresh process.

    With `show_progress` what it writes to stderr is seen as it comes.
    """
    threads = threads or num_cores()
    case = {**case, "threads": threads}
    try:
        process = subprocess.run(
            [sys.executable, str(WORKER), name, json.dumps(case)],
            env=environment(allocator, threads, tree),
            stdout=subprocess.PIPE,
            stderr=None if show_progress else subprocess.PIPE,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkerError(f"took longer than {timeout} s") from error
    if process.returncode:
        said = (process.stderr or "").strip().splitlines() or ["nothing said"]
        raised = [line for line in said if _RAISED.match(line)] or said
        raise WorkerError(f"exit {process.returncode}: {raised[-1][:300]}")
    return json.loads(process.stdout.splitlines()[-1])


def measure_all(name, cases, options, trees, label):
    """Records of all cases, in as many rounds as the options say.

    A round takes the cases in turn, so that a machine's bad minutes hit all
    alike, and each case in every tree; every other round begins with the
    last tree. A case that fails once is not tried again. Raw results are
    stored after every case.

    Args:
        name: str. The benchmark.
        cases: list of dicts.
        options: the shared options of `run.py`.
        trees: dict. Paths of checkouts by what they are called.
        label: callable. A case's name.
    """
    records, failed = [], set()
    for number, allocator, case in itertools.product(
        range(options.rounds), options.allocators, cases
    ):
        case = {**case, "allocator": allocator}
        for revision in list(trees)[:: -1 if number % 2 else 1]:
            title = label(case) + (f" [{revision}]" if len(trees) > 1 else "")
            if title in failed:
                continue
            try:
                found = run_worker(
                    name,
                    {**case, "repeats": options.repeats},
                    allocator,
                    options.threads,
                    options.timeout,
                    trees[revision],
                    options.show_progress,
                )
            except WorkerError as error:
                failed.add(title)
                print(f"{title} failed, {error}", flush=True)
                continue
            records.append(
                {
                    **case,
                    **found,
                    "found": list(found),
                    "revision": revision,
                    "note": options.note,
                }
            )
            print(f"{title}: {told(records[-1])}", flush=True)
            save_json(options.json, records)
    return records


# === Clocks and memory ===


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


# === The machine ===


def num_cores():
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


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


# === Records ===


def summarize(records):
    """Medians of the numbers that a case's records hold.

    Of a list, such as the seconds of steps, over the entries of all records.
    """
    summary = {}
    for name in records[0]["found"]:
        values = []
        for record in records:
            value = record[name]
            values += value if isinstance(value, list) else [value]
        if values and all(map(_is_number, values)):
            summary[name] = statistics.median(values)
    return summary


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def told(record):
    """A record's numbers in a line, and what did not hold."""
    said = [f"{name} {x:.4g}" for name, x in summarize([record]).items()]
    said += [f"not {name}" for name in record["found"] if record[name] is False]
    return ", ".join(said)


def grid(**values):
    """Cases of all combinations: the last value changes first."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def group(records, keys):
    """Summaries by the values of `keys`, in the order first met."""
    groups = {}
    for record in records:
        place = tuple(record.get(key) for key in keys)
        groups.setdefault(place, []).append(record)
    return {key: summarize(members) for key, members in groups.items()}


def nest(records, keys):
    """Summaries by all keys but the last, then by the last."""
    found = {}
    for (*place, last), summary in group(records, keys).items():
        found.setdefault(tuple(place), {})[last] = summary
    return found


def save_json(path, records):
    """Stores raw results, one a line, with the machine they come from."""
    if path:
        machine = json.dumps(describe_machine())
        lines = ",\n".join(map(json.dumps, records))
        path.write_text(f'{{"machine": {machine}, "records": [\n{lines}\n]}}\n')


def load_json(paths):
    """Records of stored results, or an empty list."""
    contents = [json.loads(path.read_text()) for path in paths or ()]
    return [record for content in contents for record in content["records"]]
