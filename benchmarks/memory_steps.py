"""What a worker of `memory.py` does: sizes, and steps that are measured.

Steps are those of a model, of its optimizer, of a layer, of the loss. Their
makers take a case and return a step, to be called without arguments once all
its inputs exist, and what else the driver wants to know.
"""

import ctypes
import gc
import pathlib

import language_model
import measuring
import steps

FURTHER_STEPS = 2
HASHES = 2
LAYER_WIDTH = 512
LAYER_HEADS = 8
CHUNK = 64
HEAD_WIDTH = 512
MIB = 2**20


# === Measuring ===


def measure(step):
    """Sizes of this process in MiB, before and during a few steps."""
    before = measuring.resident_memory()
    step()
    peak = measuring.peak_memory()
    release()
    is_reset = reset_peak()
    for _ in range(FURTHER_STEPS):
        step()
    later = measuring.peak_memory()
    peak = max(peak, later)
    # Not less the size between steps: TensorFlow's pool of large tensors
    # (oneDNN's allocator) keeps what the first step took.
    needs = (later if is_reset else peak) - before
    return {"peak": peak, "before": before, "needs": needs, "reset": is_reset}


def release():
    """Gives freed memory back to the system, where the allocator can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass


def reset_peak():
    """Makes the peak the resident size of now; returns whether it did."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    # Some sandboxes take the number and do nothing.
    return measuring.peak_memory() < measuring.resident_memory() + 8


# === Steps ===


def train_step(case):
    """A step of Adam's; says how many parameters a block has."""
    import keras
    import numpy as np

    model = _model(case)
    model.compile(keras.optimizers.Adam(), jit_compile=case["xla"])
    tokens = language_model.draw_tokens(case["length"])
    parameters = sum(
        int(np.prod(weight.shape))
        for weight in model.backbone.sequence.trainable_variables
    )
    return lambda: model.train_on_batch(tokens, tokens), {
        "block_parameters": parameters / case["blocks"]
    }


def optimizer_step(case):
    """Keras's Adam alone, on the variables of the model of `train_step`."""
    import keras
    import tensorflow as tf

    variables = _model(case).trainable_variables
    optimizer = keras.optimizers.Adam()
    optimizer.build(variables)

    def update(scale):
        # Cheap to compute.
        gradients = [scale * variable.value for variable in variables]
        optimizer.apply(gradients, variables)
        return variables[0].value

    return steps.compiled(update, [tf.constant(0.1)], case["xla"]), {}


def _model(case):
    return language_model.ours(
        case["blocks"],
        case["length"],
        hidden_dim=case["width"],
        intermediate_dim=2 * case["width"],
        num_hashes=HASHES,
        dropout=0.1,
        recompute=case["recompute"],
    )


def layer_step(case):
    """Forward and backward of one LSH layer."""
    import keras_reformer

    layer = keras_reformer.LSHSelfAttention(
        LAYER_HEADS,
        LAYER_WIDTH // LAYER_HEADS,
        num_hashes=case["rounds"],
        chunk_length=CHUNK,
        causal=True,
        seed=1,
    )
    shape = (1, case["length"], LAYER_WIDTH)
    layer.build(shape)
    return steps.layer(layer, shape, case["xla"]), {}


def loss_step(case):
    """The chunked cross-entropy of a head and all its gradients.

    No layer or model offers it without the pass before it, so this takes the
    function itself, which has had one place and name.
    """
    import tensorflow as tf

    from keras_reformer.ops.losses import chunked_cross_entropy

    length, vocabulary = case["tokens"], case["vocabulary"]

    def gradients(hidden, kernel, bias, labels):
        with tf.GradientTape() as tape:
            tape.watch((hidden, kernel, bias))
            _, nats, _ = chunked_cross_entropy(
                lambda chunk, weights: chunk @ weights[0] + weights[1],
                hidden,
                [kernel, bias],
                labels,
                vocabulary,
            )
            loss = tf.reduce_mean(nats)
        return loss, tape.gradient(loss, (hidden, kernel, bias))

    inputs = (
        tf.random.stateless_normal((1, length, HEAD_WIDTH), (1, 2)),
        tf.random.stateless_normal((HEAD_WIDTH, vocabulary), (3, 4)) * 0.02,
        tf.zeros(vocabulary),
        tf.random.stateless_uniform(
            (1, length), (5, 6), 0, vocabulary, tf.int32
        ),
    )
    elements = length * HEAD_WIDTH + HEAD_WIDTH * vocabulary + vocabulary
    step = steps.compiled(gradients, inputs, case["xla"])
    return step, {"less": 4 * elements / MIB}
