import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_reformer.cli import main
from tests.support.tiny_runs import make_config, to_arguments, write_corpus

ROOT = Path(__file__).parents[1]


def run_main(arguments, capsys):
    """Returns the exit status and the lines on stderr."""
    status = main(arguments)
    return status, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "settings, message",
    [
        (["--data", "nowhere/at/all.txt"], "nowhere/at/all.txt"),
        (["--data", "empty.txt"], "empty"),
        (["--data", "short.txt"], "shorter than one window"),
        (["--data", "pipe"], "pipe is a pipe, a socket or a device"),
        (["--data", "cut.gz"], "cut.gz is damaged"),
        (["--export", "\udcff"], "`export` must be a name in UTF-8"),
        (["--heads", "7"], "`heads` must divide `hidden_dim`"),
        (["--num-buckets", "7"], "`num_buckets` must be even"),
        (["--num-buckets", "0"], "`num_buckets` must be greater than 0"),
        (["--layers", "0"], "`layers` must be greater than 0"),
        (["--steps", "many"], "invalid int value: 'many'"),
        (["--precision", "float64"], "invalid choice"),
        (["--attention", "global"], "`attention` must list some of"),
        (["--dropout", "1"], "`dropout` must be"),
        (["--learning-rate", "nan"], "`learning_rate` must be"),
        (["--warmup", "12"], "`warmup` must be"),
        (["--seed", "-1"], "`seed` must be"),
        (["--name", "../elsewhere"], "`name` must start with"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--typo"], "unrecognized arguments: --typo"),
    ],
)
def test_bad_input_is_one_line(
    settings, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    Path("empty.txt").write_bytes(b"")
    Path("short.txt").write_bytes(b"abc")
    Path("cut.gz").write_bytes(gzip.compress(b"abc")[:-5])
    os.mkfifo("pipe")
    arguments = to_arguments(make_config(tmp_path))
    status, errors = run_main([*arguments, *settings], capsys)
    assert status == 2
    assert len(errors) == 1
    assert errors[0].startswith("keras-reformer: ")
    assert message in errors[0]
    assert {path.name for path in tmp_path.iterdir()} == {
        "corpus.txt",
        "cut.gz",
        "empty.txt",
        "pipe",
        "short.txt",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(capsys, tmp_path):
    path = Path(write_corpus(tmp_path))
    path.chmod(0)
    status, errors = run_main(to_arguments(make_config(tmp_path)), capsys)
    assert status == 2
    assert len(errors) == 1


def test_output_that_is_a_file(capsys, tmp_path):
    write_corpus(tmp_path)
    (tmp_path / "runs").write_text("mine")
    status, errors = run_main(to_arguments(make_config(tmp_path)), capsys)
    assert status == 2
    assert len(errors) == 1
    assert (tmp_path / "runs").read_text() == "mine"


def test_no_command(capsys):
    status, errors = run_main([], capsys)
    assert status == 2
    assert len(errors) == 1


def test_help_names_every_setting(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in vars(make_config(tmp_path)):
        assert f"--{name.replace('_', '-')}" in text


def test_bad_input_in_a_process_of_its_own(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "keras_reformer.cli", "train", "--heads", "7"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith("keras-reformer: ")
    assert not list(tmp_path.iterdir())
