"""What `keras-reformer plan` predicts, beside what steps take.

    python benchmarks/run.py scaling [--platform tpu cpu] [--cases held-out]

A case is a train step of `ReformerCausalLM` with dropout: compiled for a v5e
without having one (needs the `tpu-compile` extra), where arguments and
temporaries of the compiler's plan count, or run on this machine's processor
under XLA, where the peak of a fresh process does.

`fitted` cases are those that the shares in `keras_reformer.planning` were
fitted to; `held-out` ones test them. With all the fitted cases of a platform
measured, the shares that fit them best are printed.
"""

import reporting

MIB = 2**20
TOPOLOGY = "v5e:1x1"
BASE = {
    "vocabulary_size": 258,
    "num_layers": 2,
    "num_heads": 4,
    "key_dim": 64,
    "hidden_dim": 256,
    "intermediate_dim": 512,
    "max_sequence_length": 8192,
    "num_hashes": 4,
    "chunk_length": 64,
    "dropout": 0.1,
}
# By name, what differs from `BASE`, and the step's own options.
FITTED = {
    "base": {},
    "width 512": {"hidden_dim": 512},
    "8 heads": {"num_heads": 8},
    "2 heads of 128": {"num_heads": 2, "key_dim": 128},
    "8 rounds": {"num_hashes": 8, "max_sequence_length": 32768},
    "32,768 tokens": {"max_sequence_length": 32768},
    "feed-forward 2,048": {"intermediate_dim": 2048},
    "32,000 symbols": {"vocabulary_size": 32000},
    "6 blocks": {"num_layers": 6},
    "4 sequences": {"batch_size": 4, "max_sequence_length": 2048},
    "64 global tokens": {"num_global_tokens": 64, "max_sequence_length": 32768},
    # What a round results in no longer fits a v5e's chip.
    "65,536 tokens": {"max_sequence_length": 65536, "num_hashes": 2},
    "131,072 tokens": {"max_sequence_length": 131072, "num_hashes": 2},
}
HELD_OUT = {
    "wide": {
        "hidden_dim": 768,
        "num_heads": 6,
        "key_dim": 128,
        "intermediate_dim": 3072,
        "max_sequence_length": 4096,
    },
    "long": {"max_sequence_length": 65536, "num_hashes": 2, "num_heads": 2},
    "subwords": {
        "vocabulary_size": 16000,
        "hidden_dim": 384,
        "num_heads": 6,
        "max_sequence_length": 16384,
    },
    "a batch": {"batch_size": 8, "num_hashes": 2},
    "deep": {"num_layers": 4, "hidden_dim": 512, "num_heads": 8},
    "one round": {"num_hashes": 1, "max_sequence_length": 49152},
    "32 global tokens": {"num_global_tokens": 32, "max_sequence_length": 16384},
    "long and wide": {
        "hidden_dim": 512,
        "num_heads": 8,
        "max_sequence_length": 65536,
    },
    "16 sequences": {
        "num_layers": 4,
        "num_heads": 8,
        "intermediate_dim": 1024,
        "max_sequence_length": 4096,
        "batch_size": 16,
    },
}
SETS = {"fitted": FITTED, "held-out": HELD_OUT}
# About what lies on a chip.
TPU_ALONE = (
    *("65,536 tokens", "131,072 tokens"),
    *("long and wide", "16 sequences"),
)
KEYS = ("platform", "cases", "name")
DEFAULTS = {"allocators": ["default"]}
QUICK = {"platform": ["cpu"], "cases": ["fitted"], "names": ["base"]}
OPTIONS = {
    "platform": ["tpu", "cpu"],
    "cases": list(SETS),
    "names": ([str], "of cases; default: all"),
}
SHOWN = "measured", "predicted"


def cases(options):
    for platform in options.platform:
        for kind in options.cases:
            for name, changes in cases_on(platform, kind).items():
                if not options.names or name in options.names:
                    model = {**BASE, **changes}
                    yield {
                        "platform": platform,
                        "cases": kind,
                        "name": name,
                        "batch_size": model.pop("batch_size", 1),
                        "model": model,
                    }


def cases_on(platform, kind):
    """Cases of a set by name."""
    return {
        name: changes
        for name, changes in SETS[kind].items()
        if platform == "tpu" or name not in TPU_ALONE
    }


# === Measuring ===


def work(case):
    measure = {"tpu": compiled_for_a_tpu, "cpu": run_here}[case["platform"]]
    return {"measured": measure(case), "predicted": plan(case).total / MIB}


def plan(case):
    from keras_reformer.planning import plan_training

    device = {"tpu": "v5e", "cpu": "cpu"}[case["platform"]]
    return plan_training(
        batch_size=case["batch_size"], device=device, **case["model"]
    )


def compiled_for_a_tpu(case):
    """MiB of arguments and temporaries of a step, by the compiler's plan."""
    # It sets the environment that the others read.
    import tpu_compiler  # isort: split

    import tpu

    module = tpu.lower(case["model"], case["batch_size"])
    compiled = tpu_compiler.compile_module(module, TOPOLOGY)
    found = tpu_compiler.describe(compiled, TOPOLOGY)
    return found["arguments"] + found["temporaries"]


def run_here(case):
    """MiB of a process at its greatest, of some steps under XLA."""
    import keras
    import measuring
    import numpy as np

    import keras_reformer

    model = keras_reformer.ReformerCausalLM(**case["model"], seed=0)
    model.compile(keras.optimizers.Adam(), jit_compile=True)
    shape = case["batch_size"], case["model"]["max_sequence_length"]
    symbols = case["model"]["vocabulary_size"]
    tokens = np.random.default_rng(0).integers(symbols, size=shape)
    measuring.time_steps(lambda: model.train_on_batch(tokens), 3)
    return measuring.peak_memory()


# === Fitting ===


def fit(records, platform):
    """Shares that predict the measured sizes best, relative to these.

    Least squares with shares that are not negative, by coordinate descent.
    """
    import numpy as np

    from keras_reformer.planning import memory

    names = memory.Usage._fields
    mine = [each for each in records if each["platform"] == platform]
    tensors = [part_sizes(each, memory) for each in mine]
    measured = np.array([each["measured"] for each in mine])
    known = np.array(
        [each["variables"] + each["optimizer"] for each in tensors]
    )
    matrix = np.array([[each[name] for name in names] for each in tensors])
    least = np.zeros(len(names))
    if platform == "tpu":
        matrix[:, names.index("code")] = 0
        # What lies on the chip is not in the compiler's plan.
        least[names.index("runtime")] = -np.inf
    # Relative errors, of what the shares do not know already.
    matrix, wanted = matrix / measured[:, None], 1 - known / measured
    shares = np.ones(len(names))
    for _ in range(20000):
        for index, column in enumerate(matrix.T):
            scale = column @ column
            rest = wanted - matrix @ shares + column * shares[index]
            share = column @ rest / scale if scale else 0
            shares[index] = max(share, least[index])
    return dict(zip(names, shares.tolist(), strict=True))


def part_sizes(record, memory):
    """MiB of each kind of tensor, once."""
    step = memory.TrainStep(
        config=memory.resolve(record["model"]), batch_size=record["batch_size"]
    )
    sizes = memory.tensor_sizes(step, plan(record).device)
    return {name: size / MIB for name, size in sizes.items()}


# === Tables and picture ===


def tables(records, options):
    columns = {
        "platform": "{platform}",
        "step": "{name}",
        "measured, MiB": "{measured:.0f}",
        "predicted, MiB": "{predicted:.0f}",
        "predicted / measured": "{ratio:.2f}",
    }
    for kind in SETS:
        shown = [
            {**each, "ratio": each["predicted"] / each["measured"]}
            for each in records
            if each["cases"] == kind
        ]
        if shown:
            yield (
                f"Peak of a train step, {kind}",
                *reporting.rows(shown, columns),
            )
    fitted = [each for each in records if each["cases"] == "fitted"]
    for platform in options.platform:
        count = sum(each["platform"] == platform for each in fitted)
        if count >= len(cases_on(platform, "fitted")):
            shares = fit(fitted, platform)
            rows = [(name, f"{value:.2f}") for name, value in shares.items()]
            yield f"Shares that fit best, {platform}", ("part", "share"), rows


def plot(records, options):
    """Predicted against measured sizes."""
    figure, panels = reporting.make_panels(1, 1, 6, 5)
    lines = {
        f"{platform}, {kind}": [
            (each["measured"], each["predicted"])
            for each in records
            if (each["platform"], each["cases"]) == (platform, kind)
        ]
        for platform in options.platform
        for kind in SETS
    }
    ends = [each[name] for each in records for name in SHOWN]
    exact = [(min(ends), min(ends)), (max(ends), max(ends))]
    lines = {name: points for name, points in lines.items() if points}
    styles = {name: {"linestyle": ""} for name in lines}
    reporting.draw_lines(
        panels[0, 0],
        {**lines, "exact": exact},
        styles | {"exact": {"marker": "", "color": "gray"}},
        "xy",
        xlabel="measured, MiB",
        ylabel="predicted, MiB",
        title="Peak memory of a train step",
    )
    panels[0, 0].legend()
    return figure
