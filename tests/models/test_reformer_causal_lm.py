import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.generation import RandomSampler
from keras_reformer.models import ReformerCausalLM
from tests.support import tiny

IDS = tiny.make_ids()
MASK = tiny.make_mask(IDS)
MASKED = {"token_ids": IDS, "padding_mask": MASK}


def predict(model, inputs):
    return model.predict(inputs, verbose=0)


def logits(model, ids, mask=None):
    return model({"token_ids": ids, "padding_mask": mask}).numpy()


def assert_equal(ones, others):
    for a, b in zip(ones, others, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def model():
    return tiny.make_spread_model()


@pytest.fixture(scope="module")
def trained():
    """A model with dropout after some steps, so that all state has moved."""
    model = tiny.make_model(dropout=0.1)
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    model.fit(MASKED, epochs=2, batch_size=3, shuffle=False, verbose=0)
    return model


# --- Inputs ---


def test_bare_ids_dict_and_full_mask_are_the_same(model):
    expected = predict(model, IDS)
    assert expected.shape == (*IDS.shape, tiny.VOCABULARY)
    full = np.ones_like(MASK)
    for inputs in (
        {"token_ids": IDS},
        {"token_ids": IDS, "padding_mask": full},
    ):
        np.testing.assert_allclose(predict(model, inputs), expected, atol=1e-5)
    np.testing.assert_allclose(model(IDS), expected, atol=1e-5)
    np.testing.assert_allclose(logits(model, IDS), expected, atol=1e-5)


def test_symbolic_call_leaves_batch_and_length_open(model):
    outputs = model(keras.Input((None,), dtype="int32"))
    assert outputs.shape == (None, None, tiny.VOCABULARY)
    assert outputs.dtype == "float32"


@pytest.mark.parametrize("shape", [(5,), (2, 5, 1)])
def test_wrong_rank(model, shape):
    with pytest.raises(ValueError, match="must have two axes"):
        model(np.zeros(shape, "int32"))


@pytest.mark.parametrize(
    "inputs",
    [
        {"token_ids": IDS, "mask": MASK},
        {"padding_mask": MASK},
        {"ids": IDS},
    ],
)
def test_unknown_inputs(model, inputs):
    with pytest.raises(ValueError, match="inputs that the model does not"):
        model(inputs)


@pytest.mark.parametrize("options", [{}, {"position_embedding": None}])
def test_too_long(options):
    model = tiny.make_model(**options)
    logits(model, tiny.make_ids(1, tiny.LONGEST))
    # The position table has more places than that.
    for call in (model, model.backbone, lambda x: predict(model, x)):
        with pytest.raises(ValueError, match="max_sequence_length=100"):
            call(tiny.make_ids(1, tiny.LONGEST + 1))


# --- Arguments ---


@pytest.mark.parametrize("name", list(tiny.SIZES)[:6])
def test_missing_sizes(name):
    sizes = {k: v for k, v in tiny.SIZES.items() if k != name}
    with pytest.raises(ValueError, match=f"Missing: .*{name}"):
        ReformerCausalLM(**sizes)


@pytest.mark.parametrize("extra", [{"num_layers": 2}, {"chunk_length": 8}])
def test_backbone_and_sizes(extra):
    with pytest.raises(ValueError, match="not both"):
        ReformerCausalLM(backbone=tiny.make_backbone(), **extra)


def test_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="must divide"):
        tiny.make_model(num_heads=3)


def test_bidirectional_backbone():
    with pytest.raises(ValueError, match="causal"):
        ReformerCausalLM(backbone=tiny.make_backbone(causal=False))
    with pytest.raises(ValueError, match="causal"):
        tiny.make_model(causal=False)


# --- What a token sees ---

CHUNK = tiny.SIZES["chunk_length"]


@pytest.fixture(scope="module")
def whole(model):
    ids = tiny.make_ids(2, tiny.LONGEST)
    return ids, logits(model, ids)


@pytest.mark.parametrize(
    "length",
    [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 23, 2 * CHUNK + 1, 61, 99, 100],
)
def test_prefix_alone_padded_and_in_the_whole(model, whole, length):
    ids, expected = whole
    expected = expected[:, :length]
    alone = logits(model, ids[:, :length])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    padded = np.where(np.arange(tiny.LONGEST) < length, ids, 0)
    padded = padded[:, : length + 11]
    mask = np.broadcast_to(np.arange(padded.shape[1]) < length, padded.shape)
    outputs = logits(model, padded, mask)[:, :length]
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_earlier_tokens_matter(model, whole):
    ids, expected = whole
    changed = ids.copy()
    changed[:, 50] = (changed[:, 50] + 1) % tiny.VOCABULARY
    difference = np.abs(logits(model, changed) - expected).max(axis=(0, 2))
    assert difference[:50].max() < 1e-5
    assert (difference[50:60] > 1e-3).all()


def test_content_of_masked_tokens_does_not_matter(model):
    changed = np.where(MASK, IDS, (IDS + 1) % tiny.VOCABULARY)
    np.testing.assert_allclose(
        logits(model, IDS, MASK)[MASK],
        logits(model, changed, MASK)[MASK],
        atol=1e-6,
    )


def test_equal_requests_get_equal_answers(model):
    assert_equal(predict(model, MASKED), predict(model, MASKED))


# --- Copies ---


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_files(trained, tmp_path, suffix):
    path = str(tmp_path / f"model{suffix}")
    if suffix == ".keras":
        trained.save(path)
        other = keras.models.load_model(path)
        assert isinstance(other, ReformerCausalLM)
        assert other.get_config() == trained.get_config()
        np.testing.assert_array_equal(
            predict(other, MASKED), predict(trained, MASKED)
        )
    else:
        trained.save_weights(path)
        other = tiny.make_model(dropout=0.1, seed=1)
        assert not np.array_equal(logits(other, IDS), logits(trained, IDS))
        other.load_weights(path)
    assert_equal(logits(other, IDS, MASK), logits(trained, IDS, MASK))
    assert_equal(tiny.values(other), tiny.values(trained))


def test_training_goes_on_after_loading_bit_for_bit(tmp_path):
    model = tiny.make_model(dropout=0.1)
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    options = {"batch_size": 3, "shuffle": False, "verbose": 0}
    model.fit(MASKED, **options)
    path = str(tmp_path / "model.keras")
    model.save(path)
    other = keras.models.load_model(path)
    assert other.optimizer.iterations.numpy() == 2
    for each in (model, other):
        each.fit(MASKED, **options)
    assert_equal(tiny.values(other), tiny.values(model))
    slots, expected = other.optimizer.variables, model.optimizer.variables
    assert_equal([v.numpy() for v in slots], [v.numpy() for v in expected])


def test_metrics_are_saved_too(tmp_path):
    model = tiny.make_model(**tiny.SMALLEST)
    model.compile("sgd", metrics=["accuracy"], run_eagerly=True)
    model.fit(IDS, verbose=0)
    path = str(tmp_path / "model.keras")
    model.save(path)
    other = keras.models.load_model(path)
    results = other.evaluate(IDS, verbose=0, return_dict=True)
    assert results == model.evaluate(IDS, verbose=0, return_dict=True)
    assert set(results) == {"loss", "accuracy"}


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_file_of_another_configuration(trained, tmp_path):
    path = str(tmp_path / "model.weights.h5")
    trained.save_weights(path)
    with pytest.raises(ValueError):
        tiny.make_model(hidden_dim=8).load_weights(path)


def test_config(trained):
    other = ReformerCausalLM.from_config(trained.get_config())
    assert other.get_config() == trained.get_config()
    assert other.name == trained.name
    other.set_weights(trained.get_weights())
    assert_equal(logits(other, IDS, MASK), logits(trained, IDS, MASK))


def test_model_of_a_backbone():
    backbone = tiny.make_backbone()
    model = ReformerCausalLM(backbone=backbone, name="small")
    assert model.backbone is backbone
    assert model.name == "small"
    assert logits(model, IDS).shape == (*IDS.shape, tiny.VOCABULARY)


def test_clone(trained):
    # Keras clones any Functional model as a plain one, without options that
    # are ours: it takes both inputs, in a dict.
    clone = keras.models.clone_model(trained)
    clone.set_weights(trained.get_weights())
    assert_equal(logits(clone, IDS, MASK), logits(trained, IDS, MASK))
    assert not set(map(id, clone.variables)) & set(map(id, trained.variables))


@pytest.mark.slow
def test_plain_export(model, tmp_path):
    model.export(str(tmp_path), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    for batch, length in [(1, 1), (2, 13), (3, 61)]:
        ids = tiny.make_ids(batch, length)
        mask = np.ones(ids.shape, bool)
        mask[-1, 5:] = False
        served = loaded.serve({"token_ids": ids, "padding_mask": mask})
        np.testing.assert_allclose(served, logits(model, ids, mask), atol=1e-5)
    again = loaded.serve({"token_ids": ids, "padding_mask": mask})
    assert_equal(served.numpy(), again.numpy())


# --- Text ---


def test_text_fills_the_longest_sequence(model):
    (text,) = model.generate(tiny.make_ids(1, 98), tiny.LONGEST)
    assert len(text) == tiny.LONGEST


def test_seeds_of_text(model):
    prompts = tiny.make_ids(2, 3)

    def generate(seed=None):
        texts = model.generate(
            prompts, 24, sampler=RandomSampler(temperature=9.0), seed=seed
        )
        assert_equal([text[:3] for text in texts], prompts)
        return [tuple(text.tolist()) for text in texts]

    assert generate(1) == generate(1)
    # The global seed has no part in it.
    keras.utils.set_random_seed(0)
    drawn = generate()
    keras.utils.set_random_seed(0)
    texts = [*generate(1), *generate(2), *generate(), *drawn]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    "prompts, length, match",
    [
        ([[]], 5, "at least one token"),
        ([[1] * 6], 5, "no more than"),
        ([[1, tiny.VOCABULARY]], 5, "outside the vocabulary"),
        ([[1, -1]], 5, "outside the vocabulary"),
        ([[1]], tiny.LONGEST + 1, "max_sequence_length"),
    ],
)
def test_bad_prompts(model, prompts, length, match):
    with pytest.raises(ValueError, match=match):
        model.generate(prompts, length)


def test_unknown_sampler(model):
    with pytest.raises(ValueError, match="Unknown sampler"):
        model.generate([[1]], 5, sampler="nucleus")
