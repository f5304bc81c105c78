import numpy as np
import pytest

from keras_reformer.commands import report, training
from tests.support.tiny_runs import make_config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = make_config(
        tmp_path_factory.mktemp("report"),
        layers=2,
        attention=("local", "lsh"),
        num_hashes=2,
    )
    model = training.build_model(config)
    training.compile_model(model, config)
    return model


TEXT = np.frombuffer(
    b"half a line\nthe first whole line\nand another\nand so on\n" * 4, np.uint8
)


def test_without_lsh_zeroes_and_restores(model):
    ids = np.arange(64, dtype="int32")[None]
    before = np.asarray(model(ids))
    with report.without_lsh(model):
        for _, layer in report.lsh_layers(model):
            assert not np.any(layer.attention_output.kernel)
        assert np.abs(np.asarray(model(ids)) - before).max() > 1e-6
    np.testing.assert_array_equal(np.asarray(model(ids)), before)


def test_without_lsh_restores_after_an_error(model):
    ((_, layer),) = report.lsh_layers(model)
    before = np.asarray(layer.attention_output.kernel)
    with pytest.raises(KeyError), report.without_lsh(model):
        raise KeyError
    np.testing.assert_array_equal(layer.attention_output.kernel, before)


def test_prompt_is_whole_lines():
    prompt = report.make_prompt(TEXT, 40)
    text = bytes((prompt - 2).astype(np.uint8))
    assert text == b"the first whole line\nand another\n"


def test_prompt_of_text_without_newlines():
    prompt = report.make_prompt(np.full(100, ord("a"), np.uint8), 40)
    assert len(prompt) == 40


def test_sample_fits_into_the_model(model):
    prompt, continuation = report.generate_sample(
        model, TEXT, sample_length=200, max_length=64, seed=0
    )
    assert prompt
    assert continuation


def test_table_holds_all_numbers():
    table = report.format_table(
        2.25, {"order0": 4.5, "bigram": 3.5, "zlib": 2.1}, 2.75
    )
    lines = table.splitlines()
    assert [line.split()[-1] for line in lines[1:]] == [
        "4.500",
        "3.500",
        "2.100",
        "2.750",
        "2.250",
    ]


def test_lsh_statistics_shapes(model):
    ids = np.arange(64, dtype="int32")[None]
    index, rows, statistics = report.lsh_statistics(model, ids)
    assert index == 1
    assert rows == [15, 31, 47, 63]
    assert statistics["buckets"].shape == (1, 2, 2, 64)
    assert statistics["weights"].shape == (1, 2, 4, 64)
