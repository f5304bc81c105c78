"""The duplication task for tensorflow-datasets."""

import numpy as np
import tensorflow_datasets.public_api as tfds

from keras_reformer.data.duplication import duplication_batch


class DuplicationConfig(tfds.core.BuilderConfig):
    """Sizes of the task.

    Args:
        length: int. Tokens of an example, `0w0w`.
        symbols: int. Number of symbols that `w` is made of.
        **kwargs: of `tfds.core.BuilderConfig`.
    """

    def __init__(self, length, symbols, **kwargs):
        super().__init__(
            description=f"0w0w of {length} tokens, w of {symbols} symbols.",
            **kwargs,
        )
        self.length, self.symbols = length, symbols


class Builder(tfds.core.GeneratorBasedBuilder):
    """Sequences 0w0w, of which a model predicts the second w."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        DuplicationConfig(1024, 127, name="length_1024"),
        DuplicationConfig(256, 32, name="length_256"),
    ]
    # Examples of the splits.
    SIZES = {"train": 50_000, "validation": 1_000, "test": 1_000}

    def _info(self):
        length = self.builder_config.length
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "tokens": tfds.features.Tensor(
                        shape=(length,), dtype=np.int32
                    ),
                    "labels": tfds.features.Tensor(
                        shape=(length,), dtype=np.int32
                    ),
                    "weights": tfds.features.Tensor(
                        shape=(length,), dtype=np.float32
                    ),
                }
            ),
            homepage="https://arxiv.org/abs/2001.04451",
        )

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(stream, size)
            for stream, (split, size) in enumerate(self.SIZES.items())
        }

    def _generate_examples(self, stream, size):
        config = self.builder_config
        for number in range(size):
            # Examples depend on their number alone, not on those before.
            batch = duplication_batch(
                np.random.default_rng((stream, number)),
                1,
                config.length,
                config.symbols,
            )
            names = ("tokens", "labels", "weights")
            rows = (rows[0] for rows in batch)
            yield number, dict(zip(names, rows, strict=True))
