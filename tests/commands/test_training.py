import pytest

from keras_reformer.commands import callbacks, checkpoints
from keras_reformer.commands.training import Epochs, plan_epochs


@pytest.mark.parametrize(
    "step, expected",
    [
        (0, [Epochs(0, 1, 0, 5), Epochs(2, 2, 10, 2)]),
        (3, [Epochs(0, 0, 3, 2), Epochs(1, 1, 5, 5), Epochs(2, 2, 10, 2)]),
        (5, [Epochs(1, 1, 5, 5), Epochs(2, 2, 10, 2)]),
        (10, [Epochs(2, 2, 10, 2)]),
        (11, [Epochs(2, 2, 11, 1)]),
        (12, []),
    ],
)
def test_plan_epochs(step, expected):
    assert plan_epochs(step, 12, 5) == expected


def test_plan_epochs_covers_every_step_once():
    for steps in range(1, 20):
        for step in range(steps):
            plan = plan_epochs(step, steps, 7)
            covered = [
                epochs.first_step + index
                for epochs in plan
                for index in range(
                    epochs.steps * (epochs.last - epochs.first + 1)
                )
            ]
            assert covered == list(range(step, steps))


def row(step):
    values = dict.fromkeys(callbacks.LOG_FIELDS, 1.5)
    return {**values, "step": step}


def test_truncate_log_drops_later_and_cut_rows(tmp_path):
    path = str(tmp_path / "log.csv")
    for step in (5, 10, 15):
        callbacks.append_log(path, row(step))
    with open(path, "a") as file:
        file.write("4,2")
    callbacks.truncate_log(path, 10)
    assert [r["step"] for r in callbacks.read_log(path)] == [5, 10]
    callbacks.append_log(path, row(15))
    assert [r["step"] for r in callbacks.read_log(path)] == [5, 10, 15]


def test_truncate_log_to_nothing(tmp_path):
    path = str(tmp_path / "log.csv")
    callbacks.append_log(path, row(5))
    callbacks.truncate_log(path, 0)
    assert callbacks.read_log(path) == []
    callbacks.truncate_log(path, 0)


def test_damaged_rows_are_left_out(tmp_path):
    path = tmp_path / "log.csv"
    callbacks.append_log(path, row(5))
    whole = path.read_bytes()
    for damage in (b"\0" * 9, b"1,x" + b",1" * 7, b"\xff\xfe,1", b"1,5"):
        path.write_bytes(whole + damage + b"\n")
        assert [r["step"] for r in callbacks.read_log(path)] == [5]
        callbacks.truncate_log(path, 10)
        assert path.read_bytes() == whole
    path.write_bytes(b"epoch,st")
    callbacks.truncate_log(path, 10)
    assert not path.exists()


@pytest.mark.parametrize("name", ["loss", "val_loss"])
def test_a_loss_that_is_not_finite_writes_nothing(tmp_path, name):
    path = str(tmp_path / "log.csv")
    recorder = callbacks.RunRecorder(path, path, {})
    for value in (float("nan"), float("inf")):
        with pytest.raises(checkpoints.NotFinite, match=f"{name} is {value}"):
            recorder.on_epoch_end(0, {"loss": 1.0, name: value})
    with pytest.raises(checkpoints.NotFinite, match="loss is nan after step 1"):
        recorder.on_train_batch_end(0, {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
