"""How exact training and inference are: the numbers of the README.

    python benchmarks/run.py exactness

Prints, for a stack of local and LSH blocks with dropout 0.1 everywhere,

- the largest relative difference between gradients of the reversible stack
  and of plain backpropagation, over the input and all variables;
- the largest difference between logits of a prefix on its own and within a
  longer sequence, relative to the largest logit.
"""

KEYS = ("depth", "length")
QUICK = {"depths": [2], "length": 67}


def add_options(add):
    add("--depths", type=int, nargs="+", default=[2, 6, 12])
    add("--length", type=int, default=1021)


def cases(options):
    for depth in options.depths:
        yield {"depth": depth, "length": options.length}


def work(case):
    depth, length = case["depth"], case["length"]
    return {
        "gradients": gradient_difference(depth, length),
        "prefixes": prefix_difference(depth, length),
    }


def stack(depth, recompute):
    """A stack whose every layer draws from a seed that depends on `depth`."""
    import keras_reformer

    kinds = (
        keras_reformer.LocalSelfAttention,
        keras_reformer.LSHSelfAttention,
    )
    options = {"num_heads": 2, "key_dim": 16, "causal": True, "dropout": 0.1}
    blocks = [
        keras_reformer.ReversibleBlock(
            keras_reformer.PreNormalization(
                kinds[index % 2](seed=index, **options),
                dropout=0.1,
                seed=100 + index,
            ),
            keras_reformer.PreNormalization(
                keras_reformer.FeedForward(64, dropout=0.1, seed=index),
                dropout=0.1,
                seed=200 + index,
            ),
        )
        for index in range(depth)
    ]
    return keras_reformer.ReversibleSequence(blocks, recompute=recompute)


def gradients(layer, inputs):
    """Gradients by the input and by each variable, compiled."""
    import tensorflow as tf

    @tf.function(autograph=False, jit_compile=True)
    def compute(inputs):
        values = [variable.value for variable in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(tf.sin(layer(inputs, training=True)))
        return tape.gradient(loss, [inputs, *values])

    return compute(inputs)


def gradient_difference(depth, length):
    """Largest relative difference of reversible and plain gradients."""
    import keras
    import tensorflow as tf

    reversible, plain = stack(depth, True), stack(depth, False)
    inputs = keras.random.normal((1, length, 32), seed=0)
    for layer in (reversible, plain):
        layer.build(inputs.shape)
    plain.set_weights(reversible.get_weights())
    pairs = zip(
        gradients(reversible, inputs), gradients(plain, inputs), strict=True
    )
    return max(float(tf.norm(a - b) / tf.norm(b)) for a, b in pairs)


def prefix_difference(depth, length):
    """Largest relative difference of a prefix's logits."""
    import numpy as np

    import keras_reformer

    model = keras_reformer.ReformerCausalLM(
        vocabulary_size=258,
        num_layers=depth,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=length,
        seed=0,
    )
    token_ids = np.random.default_rng(0).integers(258, size=(1, length))
    whole = model.predict(token_ids, verbose=0)
    worst = 0.0
    for end in (1, 63, 64, 65, 500, length - 1):
        prefix = model.predict(token_ids[:, :end], verbose=0)
        worst = max(worst, np.abs(prefix - whole[:, :end]).max())
    return float(worst / np.abs(whole).max())


def tables(records, options):
    yield (
        "largest relative differences, float32",
        ("blocks", "gradients", "prefixes"),
        [
            (
                record["depth"],
                f"{record['gradients']:.1e}",
                f"{record['prefixes']:.1e}",
            )
            for record in records
        ],
    )
