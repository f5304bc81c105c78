"""Cases in fresh processes: clocks, memory, machine and raw results.

A driver starts `worker.py` by `run_worker(name, case)`: that imports the
benchmark `name`, calls its `work(case)` and prints the answer, a dict, as its
last line, in JSON. No case inherits another's memory, threads or compiled code.

Peak growth of a case is the greatest resident size of its process less the
resident size just before the first step, when weights and inputs exist. It
includes tracing and compiling.
"""

import concurrent.futures
import ctypes
import gc
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
WORKER = pathlib.Path(__file__).parent / "worker.py"
PACKAGES = (
    *("keras-reformer", "keras", "tensorflow", "tensorflow-cpu"),
    *("torch", "transformers", "reformer-pytorch", "numpy"),
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


def environment(case, tree):
    """The worker's environment: the caller's, made the same for all.

    `tree` is the checkout whose package is measured.
    """
    names = (name for name in os.environ if not name.startswith("MALLOC_"))
    inherited = {name: os.environ[name] for name in names}
    path = [str(tree), *filter(None, [inherited.get("PYTHONPATH")])]
    threads = str(case["threads"])
    return {
        **inherited,
        **ALLOCATORS[case["allocator"]],
        "PYTHONPATH": os.pathsep.join(path),
        "MEASURED_TREE": str(tree),
        "OMP_NUM_THREADS": threads,
        # Threads of torch that spin at barriers lose most of their time
        # as soon as another process wants a core.
        "OMP_WAIT_POLICY": "passive",
        "TF_NUM_INTRAOP_THREADS": threads,
        "KERAS_BACKEND": "tensorflow",
        # All contenders on the processor: torch would stay there anyway.
        "CUDA_VISIBLE_DEVICES": "",
    }


def run_worker(name, case, tree=ROOT):
    """A benchmark's answer to a case, from a fresh process.

    Lines that it prints before the answer are printed here as they come.
    """
    command = [sys.executable, str(WORKER), name, json.dumps(case)]
    env = environment(case, tree)
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        answer = ""
        for line in process.stdout:
            print(answer, end="", flush=True)
            answer = line
        if not process.wait():
            return json.loads(answer)
        errors.seek(0)
        said = errors.read().strip().splitlines() or ["nothing said"]
    raised = [line for line in said if _RAISED.match(line)] or said
    raise WorkerError(f"exit {process.returncode}: {raised[-1][:300]}")


def call_elsewhere(function, *arguments):
    """What a function returns, called in a fresh process.

    For what this process should not import, or not hold afterwards.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def measure_all(name, cases, options, trees, label):
    """Records of all cases, in as many rounds as the options say.

    A round takes the cases in turn, so that a machine's bad minutes hit all
    alike, and each case in every tree; every other round begins with the
    last tree. A case that fails once is not tried again. Raw results are
    stored after every case. `trees` has paths of checkouts by what they are
    called; `label` makes a case's name.
    """
    records, failed = [], set()
    shared = {"threads": options.threads, "repeats": options.repeats}
    for number, allocator, case in itertools.product(
        range(options.rounds), options.allocators, cases
    ):
        case = {**case, **shared, "allocator": allocator}
        for revision in list(trees)[:: -1 if number % 2 else 1]:
            title = label(case) + (f" [{revision}]" if len(trees) > 1 else "")
            if title in failed:
                continue
            try:
                found = run_worker(name, case, trees[revision])
            except WorkerError as error:
                failed.add(title)
                print(f"{title} failed, {error}", flush=True)
                continue
            origin = {"revision": revision, "note": options.note}
            records.append({**case, **found, "found": list(found), **origin})
            print(f"{title}: {told(records[-1])}", flush=True)
            save_json(options.json, records)
    return records


# === Clocks and memory ===


def measure(step, repeats, needs=False):
    """A worker's answer about `step`; to be called once all inputs exist.

    With `needs` also what further steps need: the peak is that of them alone,
    without what tracing and compiling take and give back.
    """
    before = resident_memory()
    (first,) = time_steps(step, 1)
    peak = peak_memory()
    is_reset = needs and reset_peak()
    seconds = time_steps(step, repeats)
    later = peak_memory()
    peak = max(peak, later)
    found = {"first": first, "seconds": seconds, "growth": peak - before}
    if needs:
        # Not less the size between steps: TensorFlow's pool of large tensors
        # (oneDNN's allocator) keeps what the first step took.
        needed = (later if is_reset else peak) - before
        found |= {"peak": peak, "before": before}
        found |= {"needs": needed, "reset": is_reset}
    return found


def time_steps(step, repeats):
    """The seconds of each of so many calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def reset_peak():
    """Makes the peak the resident size of now; returns whether it did.

    Freed memory goes back to the system before, where the allocator can.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    # Some sandboxes take the number and do nothing.
    return peak_memory() < resident_memory() + 8


def peak_memory():
    """Greatest resident size of this process so far, in MiB."""
    return _status("VmHWM")


def resident_memory():
    """Resident size of this process now, in MiB."""
    return _status("VmRSS")


def _status(field):
    try:
        status = pathlib.Path("/proc/self/status").read_text()
        return int(re.search(rf"{field}:\s*(\d+)", status)[1]) / 2**10
    except (OSError, TypeError):
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
    installed = {
        each.name.lower().replace("_", "-"): each.version
        for each in importlib.metadata.distributions()
    }
    versions = [
        f"{name} {installed[name]}" for name in PACKAGES if name in installed
    ]
    python = platform.python_version()
    return (
        f"- {_processor()}, {num_cores()} cores, {memory:.0f} GiB\n"
        f"- {platform.system()} {platform.machine()}\n"
        f"- {', '.join([f'Python {python}', *versions])}"
    )


def _processor():
    try:
        about = pathlib.Path("/proc/cpuinfo").read_text()
        return re.search(r"model name\s*: (.*)", about)[1]
    except (OSError, TypeError):
        return platform.processor() or "unknown processor"


# === Records ===


def summarize(records):
    """Medians of the numbers that a case's records hold.

    Of a list, such as the seconds of steps, over the entries of all records.
    """
    summary = {}
    for name in records[0]["found"] if records else ():
        values = []
        for record in records:
            value = record[name]
            values += value if isinstance(value, list) else [value]
        if values and all(type(value) in (int, float) for value in values):
            summary[name] = statistics.median(values)
    return summary


def told(record):
    """A record's numbers in a line, and what did not hold."""
    said = [f"{name} {x:.4g}" for name, x in summarize([record]).items()]
    said += [f"not {name}" for name in record["found"] if record[name] is False]
    return ", ".join(said)


def grid(**values):
    """Cases of all combinations: the last value changes first."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def split(records, keys):
    """Records by their values of `keys`, in the order first met."""
    found = {}
    for record in records:
        place = tuple(record.get(key) for key in keys)
        found.setdefault(place, []).append(record)
    return found


def group(records, keys):
    """Summaries by the values of `keys`, in the order first met."""
    found = split(records, keys)
    return {place: summarize(members) for place, members in found.items()}


def medians(records, keys):
    """For all that agree in `keys` one record, in the order first met.

    It holds the first one's values and, of what was found, the medians.
    """
    found = split(records, keys).values()
    return [members[0] | summarize(members) for members in found]


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
