"""What a request gives to an encoder."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_reformer.generation.prompts import without_padding

Arrays = tuple[np.ndarray, ...]


class Source:
    """Rows of token ids that an encoder reads before decoding begins.

    Args:
        rows: as prompts, token ids of each row; rows may differ in length.
        max_length: int. Greatest length of a row.
        vocabulary_size: int. Number of token ids.
        padding_id: Token that is padding at both ends; None for no token.

    Raises:
        ValueError: if rows are no token ids, empty, too long, or hold ids
            outside of the vocabulary.
    """

    def __init__(
        self,
        rows: Any,
        max_length: int,
        vocabulary_size: int,
        padding_id: int | None = None,
    ):
        self.max_length = max_length
        self.rows = without_padding(rows, padding_id)
        for index, row in enumerate(self.rows):
            if not 1 <= len(row) <= max_length:
                raise ValueError(
                    f"The encoder takes from 1 to {max_length} tokens that "
                    "are no padding. Received: "
                    f"len(encoder_token_ids[{index}])={len(row)}"
                )
            outside = row[(row < 0) | (row >= vocabulary_size)]
            if len(outside):
                raise ValueError(
                    "The encoder's tokens are ids of its vocabulary. Expected "
                    f"ids from 0 to {vocabulary_size - 1}. Received: "
                    f"encoder_token_ids[{index}] with {outside[:5].tolist()}"
                )

    @property
    def width(self) -> int:
        """Length of the longest row."""
        return max(map(len, self.rows), default=0)

    def check_rows(self, count: int) -> None:
        """Raises a `ValueError` unless each prompt has a row."""
        if len(self.rows) != count:
            raise ValueError(
                "Each text that is decoded has one that is encoded. Expected "
                f"as many rows of encoder_token_ids as of decoder_token_ids. "
                f"Received: {len(self.rows)} and {count}"
            )

    def padded(self, room_for: Callable[[int], int]) -> Arrays:
        """All rows, padded behind, and their mask.

        Args:
            room_for: function of the longest length to the padded one.
        """
        lengths = np.array([len(row) for row in self.rows])
        width = min(room_for(self.width), self.max_length)
        mask = np.arange(width) < lengths[:, None]
        token_ids = np.zeros(mask.shape, "int32")
        for place, row in zip(token_ids, self.rows, strict=True):
            place[: len(row)] = row
        return token_ids, mask

    def row(self, index: int) -> Arrays:
        """One row alone, without padding, and its mask."""
        row = self.rows[index][None].astype("int32")
        return row, np.ones(row.shape, bool)


class _NoSource(Source):
    """That of a model without an encoder."""

    def __init__(self):
        super().__init__([], 0, 0)

    def check_rows(self, count):
        """Nothing: there are no rows."""

    def padded(self, room_for):
        return ()

    def row(self, index):
        return ()


NO_SOURCE = _NoSource()
