"""Models of one shape that differ in how they attend at a distance.

| kind | in the place of the LSH layers |
|---|---|
| `lsh` | the library's LSH attention as it is by default |
| `lsh-chunk` | the same with `scope="chunk"`, as published |
| `exact` | the exact attention that LSH attention approximates |
| `local` | one more local layer |
| `linear` | linear attention, whose state does not grow with the length |

A number behind it, as in `lsh-2`, is that of rounds in training. Then may
follow `-uncentered` (`center_hashes=False`), `-unconvolved`
(`query_key_kernel_size=1`) and `-plain` (ordinary backpropagation,
`recompute=False`), in this order.

Embeddings, local layers, feed-forward, streams, head, loss and initial
distributions are the same.
"""

import ast
import functools
import re

import batches
import keras
import linear
import runs

import keras_reformer

KINDS = ("lsh", "lsh-chunk", "exact", "local", "linear")
# Without what makes LSH attention learn, to see what it is good for.
_WITHOUT = {
    "-uncentered": {"center_hashes": False},
    "-unconvolved": {"query_key_kernel_size": 1},
    "-plain": {"recompute": False},
}
OPTIONS = {
    "layers": (2, "reversible blocks"),
    "width": (64, "of embeddings and of each stream"),
    "heads": (2, "of attention"),
    "key_dim": (0, "of each head, 0 for the width over the heads"),
    "feed_forward": (0, "width inside, 0 for twice the width"),
    "attention": ("local,lsh", "in turn, over the blocks"),
    "chunk_length": (32, "tokens in a chunk of LSH attention"),
    "chunks_before": (1, "chunks before the own one, in view too"),
    "local_chunk_length": (16, "tokens in a chunk of local attention"),
    "num_hashes": (4, "rounds of hashing in training"),
    "duplicates": ("count", "how pairs that rounds share count"),
    # A model made for long texts spreads short ones over as many buckets.
    "buckets": ("model", "number for the model's, or each text's, length"),
    # Longer texts than those of training have no rows in a table.
    "position_embedding": (
        "local-rotary",
        "local-rotary: rotary, in local attention alone; none; or another "
        "one of ReformerBackbone",
    ),
    "position_bias": ("none", "alibi, relative or none"),
    "tie_embeddings": (
        False,
        "a language model's logits come from the table of token embeddings, "
        "and from the mean of the streams",
    ),
    "model": ("", "more of its arguments, as key=value;key=value"),
}


def parse_kind(kind):
    """`"lsh-chunk-2-plain"` as one of `KINDS` and arguments of a backbone."""
    pattern = rf"({'|'.join(sorted(KINDS, key=len, reverse=True))})"
    endings = "".join(f"({ending})?" for ending in _WITHOUT)
    found = re.fullmatch(rf"{pattern}(?:-(\d+))?{endings}", kind)
    if not found:
        raise ValueError(
            f"Expected one of {KINDS}, perhaps with a number of rounds and "
            f"of {tuple(_WITHOUT)} behind it. Received: kind={kind!r}"
        )
    base, rounds, *endings = found.groups()
    changes = {
        "lsh-chunk": {"scope": "chunk"},
        "local": {"attention_layers": ("local",)},
    }.get(base, {})
    if rounds:
        changes["num_hashes"] = int(rounds)
    for ending in filter(None, endings):
        changes |= _WITHOUT[ending]
    return base, changes


def arguments(kind, options, vocabulary_size, max_length, seed, **more):
    """What `ReformerBackbone` is made of."""
    given = options.position_embedding
    positions = given.removeprefix("local-")
    return {
        "vocabulary_size": vocabulary_size,
        "num_layers": options.layers,
        "num_heads": options.heads,
        "key_dim": options.key_dim or None,
        "hidden_dim": options.width,
        "intermediate_dim": options.feed_forward or 2 * options.width,
        "max_sequence_length": max_length,
        "attention_layers": tuple(options.attention.split(",")),
        "chunk_length": options.chunk_length,
        "lsh_num_chunks_before": options.chunks_before,
        "local_chunk_length": options.local_chunk_length,
        "num_hashes": options.num_hashes,
        "duplicates": options.duplicates,
        "position_embedding": _or_none(positions),
        "rotary_layers": "all" if positions == given else "local",
        "position_bias": _or_none(options.position_bias),
        # Both streams side by side would be too wide for the table.
        "merge": "mean" if options.tie_embeddings else "concat",
        "seed": seed,
        **more,
        **key_values(options.model),
        **parse_kind(kind)[1],
    }


def _or_none(name):
    return None if name == "none" else name


def key_values(text):
    """`"dropout=0.1;merge=mean"` as a dict, literals of Python as such."""
    found = {}
    for item in filter(None, text.split(";")):
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(
                "Arguments of the model are given as key=value;key=value. "
                f"Received: model={text!r}"
            )
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def backbone(kind, options, vocabulary_size, max_length, seed, **more):
    """A backbone of a kind, initialized from the seed.

    Args:
        kind: str, see above.
        options: with those of `OPTIONS`.
        vocabulary_size: int.
        max_length: int. Greatest length.
        seed: int.
        **more: further arguments of `ReformerBackbone`.
    """
    base, _ = parse_kind(kind)
    keras.utils.set_random_seed(seed)
    made = keras_reformer.ReformerBackbone(
        **arguments(kind, options, vocabulary_size, max_length, seed, **more)
    )
    for layer in made.lsh_layers().values():
        if options.buckets == "length":
            layer.num_buckets = None
    if base == "exact":
        attend(made, 0)
    return linear.LinearBackbone(made) if base == "linear" else made


def causal_lm(kind, options, *arguments, **more):
    """A `ReformerCausalLM` of the `backbone` of these arguments."""
    return keras_reformer.ReformerCausalLM(
        backbone=backbone(kind, options, *arguments, **more),
        tie_embeddings=options.tie_embeddings,
    )


def with_length(trained, kind, options, length, seed):
    """A trained model's weights in a model for another length."""
    size = trained.backbone.vocabulary_size
    model = causal_lm(kind, options, size, length, seed)
    model.set_weights(trained.get_weights())
    return model


def hashes(kind):
    """Whether a model of the kind was trained with LSH attention."""
    return kind.startswith("lsh")


def attend(backbone, rounds):
    """Sets how the LSH layers attend, of whatever kind the model was.

    Args:
        backbone: with `lsh_layers`.
        rounds: int. Rounds of hashing, or 0 for what they approximate.
    """
    for layer in backbone.lsh_layers().values():
        longest = backbone.max_sequence_length
        layer.exact_below = 0 if rounds else longest
        layer.num_hashes = rounds or layer.num_hashes


def evaluate_rounds(
    options,
    kind,
    seed,
    case,
    make_model,
    given,
    compiling=None,
    summarize=batches.mean,
    rounds=None,
):
    """Evaluates a run's trained weights at numbers of rounds of hashing.

    Args:
        options: with `folder`, `rounds` and `export`.
        kind, seed: of the run.
        case: dict, what else is evaluated, to tell results by.
        make_model: function of nothing to a model with the trained weights.
        given: `batches.Batches`.
        compiling: dict of arguments of `compile`. Defaults to accuracy as the
            only metric.
        summarize: function of the batches' results, dicts, and weights to a
            dict.
        rounds: ints, 0 for exact attention. Defaults to those of `options`
            where the kind hashes, else to 0.
    """
    make_model = functools.cache(make_model)
    folder = runs.run_folder(options, kind, seed)
    if rounds is None:
        rounds = options.rounds if hashes(kind) else [0]
    for number in rounds:
        attending = functools.partial(
            _attending,
            make_model,
            number,
            compiling or {"metrics": ["accuracy"]},
        )
        each = {**case, "rounds": number}
        if options.export:
            import programs

            programs.export_evaluation(
                attending(), given, folder, each, summarize
            )
        else:
            runs.evaluate(
                folder,
                each,
                lambda: evaluate(attending(), given, summarize),  # noqa: B023
            )


def _attending(make_model, rounds, compiling):
    model = make_model()
    if model.backbone is not None:
        attend(model.backbone, rounds)
    model.compile(**{"jit_compile": True, **compiling})
    return model


def evaluate(model, given, summarize=batches.mean):
    """What `summarize` makes of a compiled model's results on batches."""
    bar = keras.utils.Progbar(given.count)
    results, weights = [], []
    for index in range(given.count):
        batch = given.batch(index)
        model.reset_metrics()
        found = model.test_on_batch(*batch, return_dict=True)
        results.append({name: float(value) for name, value in found.items()})
        weights.append(batches.weight(batch))
        bar.update(index + 1)
    return summarize(results, weights)
