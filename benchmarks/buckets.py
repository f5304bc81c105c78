"""How many buckets our LSH attention takes, as `transformers` is to be told.

The rule lives in the package, which loads TensorFlow: neither a driver nor
torch's workers should carry that, so both ask a worker. A backbone's
configuration has the number that it chose.
"""

import measuring

CHUNK = 64


def work(case):
    """The number: an int, or a list of factors."""
    return {"num_buckets": resolve(case["length"], case["scope"])}


def resolve(length, scope="bucket"):
    """The number, in a process that has TensorFlow."""
    import keras_reformer

    backbone = keras_reformer.ReformerBackbone(
        vocabulary_size=2,
        num_layers=1,
        num_heads=1,
        hidden_dim=4,
        intermediate_dim=1,
        max_sequence_length=length,
        attention_layers=("lsh",),
        chunk_length=CHUNK,
        scope=scope,
    )
    found = backbone.get_config()["num_buckets"]
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def ask(length, scope="bucket"):
    """The number, in a process that should not load TensorFlow."""
    case = {"length": length, "scope": scope}
    return measuring.run_worker("buckets", case)["num_buckets"]
