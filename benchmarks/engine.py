"""A train step on jax's engine beside TensorFlow's own under XLA.

    python benchmarks/run.py engine [--lengths 1024 4096] [--rounds 3]

Adam's step on the next-token loss of the language model of `model.py`, one
sequence, on one CPU device. Both are what `fit` calls for each batch, loss
and accuracy included; weights stay where they are in between. Processor time,
that of all threads, is what holds on a machine that others use too.
"""

import time

import contenders
import language_model
import measuring
import reporting
from contenders import Contender

ENGINE, TENSORFLOW = "JaxEngine", "TensorFlow, XLA"
KEYS = ("length", "depth", "contender")
QUICK = {"lengths": [128], "depths": [1]}


def make_step(case, on_engine):
    """A call of the function that `fit` calls for each batch."""
    import keras

    from keras_reformer.distribute import JaxEngine

    model = language_model.ours(case["depth"], case["length"])
    where = {"engine": JaxEngine()} if on_engine else {"jit_compile": True}
    model.compile(keras.optimizers.Adam(1e-3), metrics=["accuracy"], **where)
    tokens = language_model.draw_tokens(case["length"])
    model.make_train_function()

    def step():
        logs = model.train_function(iter([(tokens.astype("int32"),)]))
        return float(logs["loss"])

    return step


CONTENDERS = {
    ENGINE: Contender(
        lambda case: make_step(case, True), ("tensorflow", "jax")
    ),
    TENSORFLOW: Contender(lambda case: make_step(case, False)),
}
OPTIONS = {"lengths": [1024, 4096], "depths": [6]}


def cases(options):
    """Both side by side."""
    return measuring.grid(
        length=options.lengths,
        depth=options.depths,
        contender=list(CONTENDERS),
    )


def work(case):
    """A worker's answer, with the processor time of each step."""
    step = CONTENDERS[case["contender"]].make(case)
    processor = []

    def clocked():
        start = time.process_time()
        step()
        processor.append(time.process_time() - start)

    found = measuring.measure(clocked, case["repeats"])
    return found | {"processor": processor[1:]}


def tables(records, options):
    """A table for every shape, its title with the ratios."""
    columns = {**contenders.STEP_COLUMNS, "processor, s": "{processor:.3f}"}

    def note(found):
        ratios = (
            reporting.ratio(*(found[name].get(what) for name in CONTENDERS))
            for what in ("seconds", "processor")
        )
        times = "; engine / TensorFlow: time {}, processor time {}"
        return times.format(*ratios)

    title = "{length:,} tokens, {depth} blocks, {allocator} allocator"
    return contenders.tables(records, title, ENGINE, columns, note)
