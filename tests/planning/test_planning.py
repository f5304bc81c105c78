import pytest

import keras_reformer
from keras_reformer import planning
from keras_reformer.cli import main
from keras_reformer.planning import devices, memory, sizes

MODEL = {
    "vocabulary_size": 50,
    "num_layers": 3,
    "num_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "max_sequence_length": 256,
    "chunk_length": 16,
}
LARGE = {
    **MODEL,
    "num_layers": 6,
    "hidden_dim": 256,
    "intermediate_dim": 512,
    "max_sequence_length": 65536,
    "vocabulary_size": 258,
}
VARIANTS = {
    "default": {},
    "local": {"attention_layers": ("local",), "merge": "mean"},
    "published": {"scope": "chunk", "position_embedding": "learned"},
    "rotary": {"position_embedding": "rotary", "normalization": "rms_norm"},
    "relative": {"position_bias": "relative", "key_dim": 24},
    "uncentered": {"center_hashes": False, "position_embedding": None},
}


def part(plan, name):
    return next(each.size for each in plan.parts if each.name == name)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_those_of_the_model(name):
    model = keras_reformer.ReformerCausalLM(**MODEL, **VARIANTS[name])
    plan = planning.plan_training(**MODEL, **VARIANTS[name])
    assert plan.parameters == model.count_params()
    without = sizes.count_parameters(memory.resolve(MODEL | VARIANTS[name]), 0)
    assert without == model.backbone.count_params()


def test_streams_and_attention_grow_with_the_tokens_of_a_chip():
    one = planning.plan_training(**LARGE)
    four = planning.plan_training(**LARGE, batch_size=4)
    shared = planning.plan_training(**LARGE, batch_size=4, chips=4)
    for name in ("streams", "attention", "hashing"):
        assert part(four, name) == 4 * part(one, name) > 0
    assert shared.total == one.total < four.total


def test_depth_adds_parameters_and_code():
    deep = {**LARGE, "num_layers": 24}
    deep = planning.plan_training(**deep, device="cpu")
    plan = planning.plan_training(**LARGE, device="cpu")
    fixed = ("variables", "optimizer", "gradients", "code")
    for each in plan.parts:
        grows = part(deep, each.name) > each.size
        assert grows == (each.name in fixed), each.name


def test_a_tpu_pads_heads_to_its_lanes():
    def attention(device, key_dim):
        plan = planning.plan_training(
            **LARGE, num_hashes=1, key_dim=key_dim, device=device
        )
        return part(plan, "attention")

    # Query-key and value share a row.
    assert attention("v5e", 32) == attention("v5e", 64)
    assert 2 * attention("v5e", 64) == attention("v5e", 128)
    assert 2 * attention("h100", 32) == attention("h100", 64)


def test_a_chip_holds_what_small_rounds_result_in():
    """Rows of 128 lanes, 4 bytes each, of 65,536 tokens and two heads."""

    def rounds(batch_size, device):
        plan = planning.plan_training(
            **LARGE, batch_size=batch_size, device=device
        )
        return part(plan, "rounds") / memory.USAGES["tpu"].rounds

    row = 4 * 128 * 2 * 65536
    assert row < devices.DEVICES["v5e"].on_chip < 2 * row
    assert [rounds(size, "v5e") for size in (1, 2)] == [0, 2 * row]
    # Nobody has looked at one.
    assert rounds(1, "v4") == row
    assert rounds(4, "h100") == 0


def test_local_attention_hashes_nothing():
    plan = planning.plan_training(
        **LARGE, batch_size=4, attention_layers=("local",)
    )
    assert part(plan, "hashing") == part(plan, "rounds") == 0


def test_what_global_tokens_add_grows_with_the_tokens_of_a_text():
    def merging(**changes):
        plan = planning.plan_training(**LARGE, **changes, device="cpu")
        return part(plan, "merging")

    assert merging() == 0
    one = merging(num_global_tokens=4)
    assert one == merging(num_global_tokens=64) > 0
    assert merging(num_global_tokens=4, batch_size=3) == 3 * one


def test_advice_names_what_makes_a_step_smaller():
    plan = planning.plan_training(**LARGE, batch_size=4, memory=0.1)
    assert not plan.fits
    texts = [text for text, _ in plan.advice]
    assert "2 chips for the batch" in texts
    assert "max_sequence_length 32,768" in texts
    assert all(0 < size < plan.total for _, size in plan.advice)
    chips = dict(plan.advice)["2 chips for the batch"]
    assert chips == pytest.approx(
        planning.plan_training(**LARGE, batch_size=4, chips=2).total
    )


def test_cpu_is_this_machine():
    assert devices.find_device("cpu").memory > 2**28
    assert devices.find_device("cpu", 2).memory == 2**31


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"device": "v99"}, "Expected one of cpu, .*device='v99'"),
        ({"memory": -1}, "Received: memory=-1"),
        ({"optimizer": "lion"}, "Received: optimizer='lion'"),
        ({"precision": "int8"}, "Received: precision='int8'"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"chips": 1.5}, "Received: chips=1.5"),
        ({"width": 3}, "Received: width"),
        ({"num_heads": 5}, "num_heads=5"),
    ],
)
def test_bad_input_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        planning.plan_training(**{**MODEL, **changes})


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="Expected num_layers"):
        planning.plan_training(vocabulary_size=3)


@pytest.mark.parametrize("length, status", [(4096, 0), (2**24, 1)])
def test_command(length, status, capsys):
    arguments = ["--length", str(length), "--layers", "2", "--device", "h100"]
    assert main(["plan", *arguments]) == status
    said = capsys.readouterr().out
    assert "at the peak" in said
    assert "No GPU was measured" in said
    assert ("Fits" in said) == (status == 0)
    assert ("num_hashes 2" in said) == (status == 1)


def test_command_refuses_in_a_line(capsys):
    assert main(["plan", "--device", "abacus"]) == 2
    assert "device='abacus'" in capsys.readouterr().err
