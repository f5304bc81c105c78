"""How many buckets our LSH attention takes, as `transformers` is to be told.

A script of its own: the rule lives in the package, which loads TensorFlow,
and neither a driver nor torch's workers should carry that.
"""

import json
import sys

import measuring

CHUNK = 64


def num_buckets(lengths):
    """The number for each length: an int, or a list of factors."""
    found = measuring.run_worker(__file__, {"lengths": list(lengths)})
    return dict(zip(lengths, found, strict=True))


def main():
    from keras_reformer.ops.attention import hashing

    found = [
        hashing.resolve_num_buckets(length, CHUNK, "bucket")
        for length in json.loads(sys.argv[-1])["lengths"]
    ]
    measuring.answer([each[0] if len(each) == 1 else each for each in found])


if __name__ == "__main__":
    main()
