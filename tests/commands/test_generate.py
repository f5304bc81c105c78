"""`keras-reformer generate`."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_reformer import data
from keras_reformer.cli import main
from keras_reformer.commands.generate import make_sampler, to_bytes
from keras_reformer.generation import RandomSampler, TopKSampler, TopPSampler
from tests.support import tiny

PROMPT = "a Zürich"
TOKENIZER = data.ByteTokenizer()
SIZES = {"vocabulary_size": 258, **tiny.SMALLEST}


@pytest.fixture(scope="module")
def model():
    return tiny.make_spread_model(**SIZES)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A run's folder, and files that are no byte-level models."""
    path = tmp_path_factory.mktemp("run")
    model.save(path / "model.keras")
    model.backbone.save(path / "backbone.keras")
    tiny.make_model(**tiny.SMALLEST).save(path / "other.keras")
    (path / "text.keras").write_text("no model")
    content = bytearray((path / "model.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "damaged.keras").write_bytes(content)
    (path / "cut.keras").write_bytes(content[: len(content) // 2])
    return path


def continuation(model, length, **options):
    ids = TOKENIZER.tokenize(PROMPT)
    (text,) = model.generate([ids], length, **options)
    return to_bytes(text[len(ids) :])


def written(capsysbinary, *arguments):
    assert main(["generate", *map(str, arguments)]) == 0
    captured = capsysbinary.readouterr()
    assert captured.err == b""
    return captured.out


def test_file_and_folder(model, folder, capsysbinary):
    expected = continuation(model, 30, sampler="greedy")
    options = ["--prompt", PROMPT, "--max-length", 30, "--sampler", "greedy"]
    for path in (folder, folder / "model.keras"):
        assert written(capsysbinary, path, *options) == expected


def test_standard_input_and_default_length(
    model, folder, capsysbinary, monkeypatch
):
    stream = io.TextIOWrapper(io.BytesIO(PROMPT.encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    expected = continuation(
        model, tiny.LONGEST, seed=3, stop_token_ids=[TOKENIZER.end_id]
    )
    assert written(capsysbinary, folder, "--seed", 3) == expected


def test_options(model, folder, capsysbinary):
    sampler = TopKSampler(5, temperature=1.5, repetition_penalty=1.1)
    text = continuation(model, 50, sampler=sampler, seed=1)
    stop = next(i for i in range(10, 40) if 32 < text[i] < 127)
    options = (
        "--max-length 50 --sampler top_k --top-k 5 --temperature 1.5 "
        "--repetition-penalty 1.1 --seed 1 --prompt"
    ).split()
    options += [PROMPT, f"--stop={chr(text[stop])}"]
    end = text.index(text[stop]) + 1
    assert written(capsysbinary, folder, *options) == text[:end]


def test_a_prompt_that_is_no_utf8(model, folder, capsysbinary):
    prompt = b"\xff Z\xfcrich"
    (text,) = model.generate([TOKENIZER.tokenize(prompt)], 20, sampler="greedy")
    options = ["--max-length", 20, "--sampler", "greedy", "--prompt"]
    out = written(capsysbinary, folder, *options, os.fsdecode(prompt))
    assert out == to_bytes(text)[len(prompt) :]


def test_nobody_reads_the_output(folder):
    arguments = ["generate", str(folder), "--prompt", "a", "--seed", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_reformer.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_beams(model, folder, capsysbinary):
    expected = continuation(model, 20, sampler="beam")
    options = ["--prompt", PROMPT, "--max-length", 20, "--sampler", "beam"]
    assert written(capsysbinary, folder, *options) == expected


def test_samplers():
    assert make_sampler() == TopPSampler()
    assert make_sampler(top_p=0.5) == TopPSampler(0.5)
    assert make_sampler("random", temperature=2.0) == RandomSampler(2.0)


def test_special_tokens_have_no_bytes():
    assert to_bytes([0, 1, 2, 67, 257]) == b"\0A\xff"


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("nowhere.keras", "", "no such file"),
        ("text.keras", "", "text.keras"),
        ("damaged.keras", "", "damaged.keras', which fails with"),
        ("cut.keras", "", "cut.keras', which fails with"),
        ("backbone.keras", "", "Expected a ReformerCausalLM"),
        ("other.keras", "", "vocabulary_size=258"),
        ("", "--max-length 5", "no more than max_length=5"),
        ("", "--max-length 101", "max_sequence_length=100"),
        ("", "--max-length many", "invalid int value"),
        ("", "--sampler nucleus", "invalid choice"),
        ("", "--sampler greedy --top-k 3", "`top_k` is for the sampler"),
        ("", "--top-p 1.5", "`p` must be in"),
        ("", "--temperature 0", "`temperature` must be"),
        ("", "--seed -1", "`seed` must be"),
    ],
)
def test_bad_input_is_one_line(name, options, message, folder, capsys):
    arguments = ["generate", str(folder / name), "--prompt", PROMPT]
    assert main([*arguments, *options.split()]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("keras-reformer: ")
    assert message in line
    assert captured.out == ""


def test_no_prompt_at_all(folder, capsys):
    assert main(["generate", str(folder), "--prompt", ""]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "at least one token" in line
