"""How near converted models are to the published one, over random cases.

    pip install -e ".[cpu,benchmarks]"
    python benchmarks/published.py [--cases 80] [--seed 0]

Draws configurations of transformers' Reformer (kinds of layers, chunks,
neighbours, buckets, rounds, activations, heads, lengths, padding) with each
head in turn, gives both the same random weights and rotations, and computes
both in float64, where transformers' arithmetic has no rounding faults. Prints
the largest error of each case, relative to the largest magnitude, at valid
positions; for gradients, of every parameter, relative to its norm.
"""

import argparse
import math
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
import torch
import transformers

from keras_reformer import convert
from keras_reformer.convert.huggingface import _expected

VOCABULARY = 23
LAYERS = ["lsh", "local"]
EXACT = {
    "vocab_size": VOCABULARY,
    "hidden_dropout_prob": 0.0,
    "lsh_attention_probs_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
    "use_cache": False,
}
KINDS = {
    "lm": transformers.ReformerModelWithLMHead,
    "mlm": transformers.ReformerForMaskedLM,
    "qa": transformers.ReformerForQuestionAnswering,
    "classifier": transformers.ReformerForSequenceClassification,
}


# Of transformers since 5.24, beside a bias that it does not use.
BIAS, OWN_BIAS = "lm_head.bias", "lm_head.decoder.bias"


def draw_config(rng, kind):
    """The length of a model's inputs, and its configuration."""

    def draw(low, high):
        return int(rng.integers(low, high))

    causal = kind == "lm"
    lsh_chunk, local_chunk = (int(n) for n in rng.choice([2, 4, 6, 8], 2))
    length, dims = draw(2, 60), [draw(1, 9), draw(1, 9)]
    rows = -(-length // 4) + math.lcm(lsh_chunk, local_chunk) // 2
    buckets = [int(n) for n in rng.choice([2, 4, 6, 8, 12], 2)]
    return (
        length,
        {
            **EXACT,
            "hidden_size": sum(dims),
            "axial_pos_embds_dim": dims,
            "axial_pos_shape": [rows, 4],
            "max_position_embeddings": rows * 4,
            "num_attention_heads": draw(1, 4),
            "attention_head_size": draw(2, 6),
            "feed_forward_size": draw(1, 20),
            "attn_layers": [str(k) for k in rng.choice(LAYERS, draw(1, 5))],
            "lsh_attn_chunk_length": lsh_chunk,
            "local_attn_chunk_length": local_chunk,
            "lsh_num_chunks_before": draw(0, 3),
            "lsh_num_chunks_after": 0 if causal else draw(0, 2),
            "local_num_chunks_before": draw(0, 3),
            "local_num_chunks_after": 0 if causal else draw(0, 2),
            "num_buckets": buckets if rng.random() < 0.5 else buckets[0],
            "num_hashes": draw(1, 5),
            "hidden_act": str(rng.choice(["relu", "gelu", "silu", "tanh"])),
            "is_decoder": causal,
            "num_labels": draw(2, 6) if kind == "classifier" else 2,
            "layer_norm_eps": float(rng.choice([1e-12, 1e-5])),
        },
    )


class Rotations:
    """Stands in for `torch.randn` while the published model hashes.

    Each LSH layer draws its rotations once; they are kept, in the precision
    in which our layers hold them.
    """

    def __init__(self, config, seed):
        self.generator = torch.Generator().manual_seed(seed)
        kinds = config["attn_layers"]
        self.layers = [i for i, kind in enumerate(kinds) if kind == "lsh"]
        self.drawn = {}

    def __call__(self, shape, **options):
        index = self.layers[len(self.drawn)]
        value = torch.randn(shape, generator=self.generator)
        self.drawn[index] = value.numpy()
        return value.to(options["dtype"])


def run_published(kind, config, ids, mask, seed):
    """Outputs and gradients of transformers' model, and what it drew."""
    torch.manual_seed(seed)
    model = KINDS[kind](transformers.ReformerConfig(**config)).double()
    # Blocks must be in training mode to have gradients; these two would then
    # take whole chunks, or full tables, only.
    model.reformer.training = False
    model.reformer.embeddings.position_embeddings.training = False
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    rotations = Rotations(config, seed)
    module = transformers.models.reformer.modeling_reformer
    original, module.torch = module.torch, _Replaced(module.torch, rotations)
    try:
        outputs = model(
            torch.tensor(ids), attention_mask=torch.tensor(mask).long()
        )
    finally:
        module.torch = original
    if kind == "qa":
        outputs = torch.stack([outputs.start_logits, outputs.end_logits], -1)
    else:
        outputs = outputs.logits
    weights = {n: p.detach().numpy() for n, p in model.state_dict().items()}
    if kind in ("lm", "mlm") and OWN_BIAS not in weights:
        # transformers 5.0 to 5.23 forgets it.
        outputs = outputs + model.lm_head.bias
    return model, outputs, weights, rotations.drawn


class _Replaced:
    """A module with another `randn`."""

    def __init__(self, module, randn):
        self._module = module
        self.randn = randn

    def __getattr__(self, name):
        return getattr(self._module, name)


def compare(index, seed):
    """Largest errors of a case's outputs and gradients."""
    rng = np.random.default_rng([seed, index])
    kind = list(KINDS)[index % len(KINDS)]
    length, config = draw_config(rng, kind)
    ids = rng.integers(0, VOCABULARY, (2, length)).astype("int32")
    mask = np.ones((2, length), bool)
    if rng.random() < 0.5:
        mask[1, rng.integers(1, length + 1) :] = False
    model, theirs, weights, rotations = run_published(
        kind, config, ids, mask, index
    )
    if OWN_BIAS in weights:
        del weights[BIAS]
    ours_model = convert.from_huggingface(config, weights, rotations)
    # A classifier has one output a row, and every row is valid.
    valid = np.ones(2, bool) if kind == "classifier" else mask
    upstream = rng.normal(size=theirs.shape) * valid[..., None]
    with tf.GradientTape() as tape:
        ours = ours_model({"token_ids": ids, "padding_mask": mask})
        if kind == "qa":
            ours = tf.stack([ours["start"], ours["end"]], -1)
        loss = tf.reduce_sum(ours * upstream)
    (theirs * torch.tensor(upstream)).sum().backward()
    theirs = theirs.detach().numpy()[valid]
    error = np.abs(ours.numpy()[valid] - theirs).max() / np.abs(theirs).max()
    gradient = gradient_error(model, ours_model, tape, loss)
    return config | {"kind": kind, "length": length}, error, gradient


def gradient_error(model, ours, tape, loss):
    """The largest error of a parameter's gradient, relative to its norm."""
    expected = {n: p.grad for n, p in model.named_parameters()}
    expected[BIAS] = expected.get(OWN_BIAS, expected.get(BIAS))
    weights = _expected(ours, "reformer.")
    found = tape.gradient(loss, [weight.variable.value for weight in weights])
    errors = []
    for weight, gradient in zip(weights, found, strict=True):
        theirs = expected[weight.name].numpy()
        gradient = tf.convert_to_tensor(gradient).numpy()
        gradient = gradient.T if weight.transposed else gradient
        difference = gradient.reshape(theirs.shape) - theirs
        norm = max(np.linalg.norm(theirs), 1e-9)
        errors.append(np.linalg.norm(difference) / norm)
    return max(errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    worst_error, worst_gradient = 0.0, 0.0
    for index in range(chosen.cases):
        keras.utils.clear_session(free_memory=False)
        keras.config.set_dtype_policy("float64")
        config, error, gradient = compare(index, chosen.seed)
        worst_error = max(worst_error, error)
        worst_gradient = max(worst_gradient, gradient)
        print(
            f"case {index}: {config['kind']}, length {config['length']}, "
            f"{'-'.join(config['attn_layers'])}: outputs {error:.1e}, "
            f"gradients {gradient:.1e}",
            flush=True,
        )
    print(
        f"transformers {transformers.__version__}, worst of {chosen.cases} "
        f"cases: outputs {worst_error:.1e}, gradients {worst_gradient:.1e}"
    )


if __name__ == "__main__":
    main()
