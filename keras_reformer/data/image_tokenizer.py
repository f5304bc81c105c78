"""Images as sequences for a causal language model, and back."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from keras_reformer.data.images import image_tokens
from keras_reformer.data.token_ids import check_token_ids
from keras_reformer.data.tokenizer import Tokenizer


@keras.saving.register_keras_serializable(package="keras_reformer")
class ImageTokenizer(Tokenizer):
    """Turns images of one shape into token ids and back, one token a value.

    A `ReformerCausalLM` of `model_arguments()` is an image model: it reads
    pixels row by row, each channel after the other, behind a start token, so
    that the first pixel is predicted as all others are. Its positions have an
    axis for rows, one for columns and one for channels; a prediction has the
    position of the value that is predicted.

    Args:
        shape: tuple of ints. `(height, width)` or `(height, width,
            channels)` of all images.
        levels: int from 2 to 256. Values that a pixel may have: fewer of
            them are learned in fewer steps. Ids are levels from 0 on, and
            `levels` itself is the start token. Defaults to `256`.

    Raises:
        ValueError: if the shape or the number of levels is none.

    Example:

    >>> tokenizer = keras_reformer.data.ImageTokenizer((8, 8), levels=16)
    >>> images = np.zeros((10, 8, 8), "uint8")
    >>> token_ids = tokenizer.tokenize(images)
    >>> token_ids.shape
    (10, 65)
    >>> model = keras_reformer.ReformerCausalLM(
    ...     num_layers=2, num_heads=2, hidden_dim=32, intermediate_dim=64,
    ...     **tokenizer.model_arguments(),
    ... )
    >>> model.compile("adam")

    `model.fit(token_ids)` trains it, and from an upper half it completes an
    image:

    >>> half = token_ids[:1, : 1 + 4 * 8]
    >>> completed = model.generate(half, tokenizer.length, seed=0)
    >>> tokenizer.detokenize(completed).shape
    (1, 8, 8)
    """

    def __init__(self, shape: Sequence[int], levels: int = 256):
        self.shape = tuple(int(size) for size in shape)
        self.levels = int(levels)
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise ValueError(
                "Expected the shape of an image, `(height, width)` or "
                f"`(height, width, channels)`. Received: shape={shape}"
            )
        if not 2 <= self.levels <= 256:
            raise ValueError(
                f"Expected from 2 to 256 levels. Received: levels={levels}"
            )

    def get_config(self) -> dict:
        return {"shape": list(self.shape), "levels": self.levels}

    @property
    def start_id(self) -> int:
        """The token in front of an image."""
        return self.levels

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids: the levels and the start token."""
        return self.levels + 1

    @property
    def length(self) -> int:
        """Tokens of an image with the start token."""
        return 1 + math.prod(self.shape)

    def model_arguments(self) -> dict:
        """What a `ReformerCausalLM` of such images needs to know of them.

        Returns:
            arguments: dict of `vocabulary_size`, `max_sequence_length` and
                `axial_shape`. The first axis has one row more than an image,
                for the last token that `generate` returns.
        """
        return {
            "vocabulary_size": self.vocabulary_size,
            "max_sequence_length": self.length,
            "axial_shape": [self.shape[0] + 1, *self.shape[1:]],
        }

    def tokenize(self, images: np.ndarray) -> np.ndarray:
        """Gives the token ids of images, the start token in front.

        Args:
            images: uint8 array `(count, *shape)`.

        Returns:
            token_ids: int32 array `(count, length)`.

        Raises:
            ValueError: if the images are of another size or no bytes.
        """
        images = np.asarray(images)
        if images.shape[1:] != self.shape:
            raise ValueError(
                "All images must have the size that the model is for. "
                f"Expected images of shape (count, {str(self.shape)[1:]}. "
                f"Received: images.shape={images.shape}"
            )
        pixels = image_tokens(images) * self.levels // 256
        return np.pad(pixels, ((0, 0), (1, 0)), constant_values=self.start_id)

    def detokenize(self, token_ids) -> np.ndarray:
        """Gives the images of token ids.

        A start token among the pixels, which a model may draw, is black.

        Args:
            token_ids: int array `(count, length)`, or a list of vectors as
                `generate` returns it.

        Returns:
            images: uint8 array `(count, *shape)`; level 0 is 0, and the last
                one 255.

        Raises:
            ValueError: if the ids are of other images, or none.
        """
        lengths = {len(row) for row in token_ids}
        if lengths != {self.length}:
            raise ValueError(
                f"Expected {self.length} tokens for each image of shape "
                f"{self.shape}, the start token included. Received: lengths "
                f"{sorted(lengths)}"
            )
        ids = np.asarray(token_ids)
        check_token_ids(ids, self.vocabulary_size)
        pixels = np.where(ids == self.start_id, 0, ids)[:, 1:]
        values = np.round(pixels * (255 / (self.levels - 1)))
        return values.astype(np.uint8).reshape(-1, *self.shape)
