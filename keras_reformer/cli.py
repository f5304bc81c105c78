"""The `keras-reformer` command: arguments in, exit status out."""

import argparse
import dataclasses
import sys
from typing import Any

from keras_reformer.commands import console
from keras_reformer.commands.config import (
    ATTENTION_TYPES,
    PRECISIONS,
    RecallConfig,
    TrainingConfig,
)

# What a shell reports of a process that SIGPIPE has ended.
_BROKEN_PIPE = 141

# Sizes of a model, by argument.
_SIZES = {
    "layers": "number of reversible blocks",
    "heads": "attention heads",
    "hidden_dim": "width of a residual stream",
    "intermediate_dim": "width inside the feed-forward layers",
    "chunk_length": "attention window, in (sorted) positions",
    "num_hashes": "LSH rounds",
}
_TRAINING_OPTIONS = {
    "data": "corpus: 'python' (the standard library's sources), a file, a "
    "folder, a glob or 'tfds:NAME' for a tensorflow-datasets name",
    "name": "name of the run's folder and of the exported model",
    "length": "bytes in a training window",
    "batch_size": "windows in a step",
    **_SIZES,
    "heads": "attention heads; must divide the hidden size",
    "num_buckets": "LSH buckets, even; by default they follow the length",
    "dropout": "dropout rate of the blocks",
    "learning_rate": "peak learning rate",
    "warmup": "steps of linear warmup before the cosine decay",
    "steps": "training steps in all",
    "steps_per_epoch": "steps between two validations and log rows",
    "save_every": "steps between checkpoints inside an epoch; there always "
    "is one at its end",
    "validation_windows": "windows evaluated at the end of an epoch",
    "seed": "seed of weights, dropout, hashing and order of the data",
    "time_limit": "stop training early after so many seconds, with a "
    "checkpoint to resume from",
    "sample_length": "bytes of text to generate at the end",
    "output": "folder that holds the runs",
    "export": "folder that holds the exported models",
}
_RECALL_OPTIONS = {
    "name": "name of the run's folder",
    "steps": "training steps of each model",
    "seed": "seed of weights, hashing and data",
    "output": "folder that holds the runs",
}
_PLAN_OPTIONS = {
    "length": "tokens in a sequence",
    **_SIZES,
    "vocabulary_size": "number of token ids",
    "batch_size": "sequences in a step, on all chips together",
    "chips": "devices that share the batch",
    "device": "a kind of TPU (v5e, v6e, ...) or GPU (h100, ...), cpu",
    "optimizer": "adam, adamw, adafactor, momentum or sgd",
    "precision": "float32 or mixed_bfloat16",
}
_PLAN_DEFAULTS = {
    "length": 4096,
    "layers": 6,
    "heads": 4,
    "hidden_dim": 256,
    "intermediate_dim": 1024,
    "vocabulary_size": 258,
    "num_hashes": 4,
    "chunk_length": 64,
    "batch_size": 1,
    "chips": 1,
    "device": "v5e",
    "optimizer": "adam",
    "precision": "float32",
}
# What the model's arguments are called here.
_MODEL_NAMES = {
    "length": "max_sequence_length",
    "layers": "num_layers",
    "heads": "num_heads",
}
_TYPES = {"num_buckets": int, "save_every": int, "time_limit": float}


def main(argv=None):
    """Runs the command.

    Args:
        argv: list of str or `None`. The arguments; those of the process by
            default.

    Returns:
        int. The exit status: 0, or 1 where a `plan` does not fit, 2 after
        bad input with one line on stderr or where `check-export` finds a
        difference, 130 after an interrupt, or 141 where nobody reads the
        output to its end.
    """
    command = None
    try:
        with console.printing_anything():
            options = vars(_build_parser().parse_args(argv))
            command = options.pop("command")
            return command(options) or 0
    except BrokenPipeError:
        return _BROKEN_PIPE
    except (ValueError, OSError, ImportError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"keras-reformer: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resume = "; --resume goes on from the last checkpoint"
        reason = f"interrupted{resume if command is _train else ''}"
        print(f"keras-reformer: {reason}", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(f"{message} (see {self.prog} --help)")


def _build_parser():
    parser = _Parser(
        prog="keras-reformer",
        description="Train Reformer models on long sequences.",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_train_parser(subparsers)
    _add_convert_parser(subparsers)
    _add_check_export_parser(subparsers)
    _add_generate_parser(subparsers)
    _add_plan_parser(subparsers)
    _add_demo_parser(subparsers)
    return parser


def _add_train_parser(subparsers):
    parser = subparsers.add_parser(
        "train",
        help="train a byte-level language model, show it and export it",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    defaults = _defaults(TrainingConfig)
    _add_options(parser, _TRAINING_OPTIONS, defaults)
    parser.add_argument(
        "--attention",
        type=lambda text: tuple(text.split(",")),
        default=",".join(defaults["attention"]),
        metavar="TYPE[,TYPE...]",
        help=f"attention types of {ATTENTION_TYPES}, cycled over the layers",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=defaults["precision"],
        help="dtype policy of the model",
    )
    _add_switches(parser, _SWITCHES, defaults)
    parser.set_defaults(command=_train)


def _defaults(config) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(config)}


def _add_options(parser, options, defaults):
    for name, text in options.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_TYPES.get(name, type(defaults[name])),
            default=defaults[name],
            help=text,
        )


_SWITCHES = {
    "jit": "compile the training step with XLA",
    "tensorboard": "write TensorBoard logs too",
    "resume": "go on from the last checkpoint of this name",
    "overwrite": "replace an earlier run of this name",
}


def _add_switches(parser, options, defaults):
    for name, text in options.items():
        parser.add_argument(
            f"--{name}",
            action=argparse.BooleanOptionalAction,
            default=defaults[name],
            help=text,
        )


def _add_convert_parser(subparsers):
    parser = subparsers.add_parser(
        "convert", help="turn a published checkpoint into a Keras file, or back"
    )
    parser.add_argument(
        "source",
        metavar="IN",
        help="folder with config.json and weights (Hugging Face), .pkl.gz "
        "(trax) or .keras",
    )
    parser.add_argument(
        "target", metavar="OUT", help=".keras file; for a .keras IN, a folder"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="JSON of what a trax checkpoint does not tell, by the names of "
        "Hugging Face's config.json: chunk lengths, num_buckets, num_hashes; "
        "or of what replaces entries of config.json: is_decoder",
    )
    parser.set_defaults(command=_convert)


def _add_check_export_parser(subparsers):
    parser = subparsers.add_parser(
        "check-export",
        help="compare the answers of a SavedModel in every loader there is",
    )
    parser.add_argument(
        "path", metavar="PATH", help="folder of one version of a model"
    )
    parser.set_defaults(command=_check_export)


def _check_export(options):
    from keras_reformer.commands import check_export

    return 0 if check_export.run(**options) else 2


_SAMPLER_OPTIONS = {
    "temperature": (float, "logits are divided by it"),
    "top_k": (int, "tokens to draw from, for the sampler of that name"),
    "top_p": (float, "their share, for the sampler of that name"),
    "repetition_penalty": (float, "logits of tokens seen are divided by it"),
}


def _add_generate_parser(subparsers):
    parser = subparsers.add_parser(
        "generate",
        help="continue a text; the new bytes come to standard output",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=".keras file of a byte-level model, or the folder of a run",
    )
    parser.add_argument(
        "--prompt", help="text to continue; by default standard input"
    )
    parser.add_argument(
        "--max-length",
        type=int,
        help="bytes of the text, prompt included; by default 256 more than "
        "the prompt, as far as the model goes",
    )
    parser.add_argument(
        "--sampler",
        choices=("greedy", "random", "top_k", "top_p", "beam"),
        help="by default top_p",
    )
    parser.add_argument("--seed", type=int, help="by default a new one")
    parser.add_argument(
        "--stop", help="bytes of which the first to come ends the text"
    )
    for name, (kind, text) in _SAMPLER_OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    parser.set_defaults(command=_generate)


def _add_plan_parser(subparsers):
    parser = subparsers.add_parser(
        "plan",
        help="predict the memory of a train step, part by part",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_options(parser, _PLAN_OPTIONS, _PLAN_DEFAULTS)
    add = parser.add_argument
    add("--key-dim", type=int, help="of a head; default: width over heads")
    add("--memory", type=float, help="GiB, where a device has other than usual")
    parser.set_defaults(command=_plan)


def _plan(options):
    from keras_reformer.commands import plan

    for name, argument in _MODEL_NAMES.items():
        options[argument] = options.pop(name)
    return plan.run(**options)


def _add_demo_parser(subparsers):
    parser = subparsers.add_parser(
        "demo", help="train small models that show what the library does"
    )
    demos = parser.add_subparsers(metavar="DEMO", required=True)
    recall = demos.add_parser(
        "recall",
        help="LSH, exact and local attention look up values of keys; two "
        "minutes on two cores",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = _defaults(RecallConfig)
    _add_options(recall, _RECALL_OPTIONS, defaults)
    switches = {"overwrite": _SWITCHES["overwrite"]}
    _add_switches(recall, switches, defaults)
    recall.set_defaults(command=_demo_recall)


def _demo_recall(options):
    config = RecallConfig(**options)
    from keras_reformer.commands import recall

    recall.run(config)


def _generate(options):
    from keras_reformer.commands import generate

    generate.run(**options)


def _convert(options):
    from keras_reformer.commands import convert

    print(convert.run(**options))


def _train(options):
    config = TrainingConfig(**options)
    from keras_reformer.commands import train

    train.run(config)


if __name__ == "__main__":
    sys.exit(main())
