"""How near converted models are to the published one, over random cases.

    pip install -e ".[cpu,dev,benchmarks]"
    python benchmarks/run.py published [--cases 80] [--seed 0]

Draws configurations of transformers' Reformer with each head in turn, gives
both the same random weights and rotations, and computes both in float64.
Errors are relative to the largest magnitude, at valid positions; those of
gradients to each parameter's norm.
"""

import math
import unittest.mock

import keras
import measuring
import numpy as np
import tensorflow as tf
import torch
import transformers

from keras_reformer import convert

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
KEYS = ("kind", "seed")
OPTIONS = {"cases": (80, "", 4), "seed": 0}


def cases(options):
    """Of each kind every fourth."""
    for first, kind in enumerate(KINDS):
        indices = list(range(first, options.cases, len(KINDS)))
        if indices:
            yield {"kind": kind, "seed": options.seed, "indices": indices}


def work(case):
    found = {"outputs": [], "gradients": [], "activations": []}
    for index in case["indices"]:
        keras.utils.clear_session(free_memory=False)
        keras.config.set_dtype_policy("float64")
        config, error, gradient = compare(case["kind"], index, case["seed"])
        found["outputs"].append(error)
        found["gradients"].append(gradient)
        found["activations"].append(config["hidden_act"])
        print(
            f"case {index}: {case['kind']}, {'-'.join(config['attn_layers'])}: "
            f"outputs {error:.1e}, gradients {gradient:.1e}",
            flush=True,
        )
    return found | {"transformers": transformers.__version__}


# === A case ===


def draw_config(rng, kind):
    """The length of a model's inputs, and its configuration."""

    def draw(low, high):
        return int(rng.integers(low, high))

    causal = kind == "lm"
    lsh_chunk, local_chunk = (int(n) for n in rng.choice([2, 4, 6, 8], 2))
    length, dims = draw(2, 60), [draw(1, 9), draw(1, 9)]
    rows = -(-length // 4) + math.lcm(lsh_chunk, local_chunk) // 2
    buckets = [int(n) for n in rng.choice([2, 4, 6, 8, 12], 2)]
    config = {
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
    }
    return length, config


def compare(kind, index, seed):
    """A configuration, and the largest errors of outputs and gradients."""
    rng = np.random.default_rng([seed, index])
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
    return config, float(error), float(gradient)


def gradient_error(model, ours, tape, loss):
    """The largest error of a parameter's gradient, relative to its norm.

    Gradients take the places of our weights, so that the conversion says
    which published parameter each belongs to.
    """
    expected = {n: p.grad for n, p in model.named_parameters()}
    expected[BIAS] = expected.get(OWN_BIAS, expected.get(BIAS))
    variables = ours.trainable_variables
    found = tape.gradient(loss, [variable.value for variable in variables])
    for variable, gradient in zip(variables, found, strict=True):
        variable.assign(tf.convert_to_tensor(gradient))
    errors = []
    for name, gradient in convert.to_huggingface(ours)[1].items():
        theirs = expected[name].numpy()
        norm = max(np.linalg.norm(theirs), 1e-9)
        errors.append(np.linalg.norm(gradient - theirs) / norm)
    return max(errors)


# === The published model ===


def rotations_of(config, seed):
    """A `torch.randn` that LSH layers call in turn, and what it has drawn.

    Rotations are kept in the precision in which our layers hold them.
    """
    randn, generator = torch.randn, torch.Generator().manual_seed(seed)
    kinds = config["attn_layers"]
    layers = [i for i, kind in enumerate(kinds) if kind == "lsh"]
    drawn = {}

    def draw(shape, dtype, device):
        value = randn(shape, generator=generator)
        drawn[layers[len(drawn)]] = value.numpy()
        return value.to(dtype)

    return draw, drawn


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
    draw, drawn = rotations_of(config, seed)
    with unittest.mock.patch.object(torch, "randn", draw):
        outputs = model(
            torch.tensor(ids), attention_mask=torch.tensor(mask).long()
        )
    if kind == "qa":
        outputs = torch.stack([outputs.start_logits, outputs.end_logits], -1)
    else:
        outputs = outputs.logits
    weights = {n: p.detach().numpy() for n, p in model.state_dict().items()}
    if kind in ("lm", "mlm") and OWN_BIAS not in weights:
        # transformers 5.0 to 5.23 forgets it.
        outputs = outputs + model.lm_head.bias
    return model, outputs, weights, drawn


# === Table ===


def tables(records, options):
    """The worst of each activation: Keras's GELU is less exact."""
    lists = "activations", "outputs", "gradients"
    compared = [
        {
            "version": record["transformers"],
            **dict(zip(lists, row, strict=True)),
        }
        for record in records
        for row in zip(*(record[name] for name in lists), strict=True)
    ]
    header = ("transformers", "activation", "cases")
    header += ("outputs, largest error", "gradients, largest error")
    rows = []
    for key, members in measuring.split(
        compared, ["version", "activations"]
    ).items():
        worst = (max(each[name] for each in members) for name in lists[1:])
        rows.append((*key, len(members), *(f"{error:.1e}" for error in worst)))
    yield "converted models beside transformers'", header, rows
