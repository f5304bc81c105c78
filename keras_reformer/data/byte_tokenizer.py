"""The byte vocabulary: every byte is a token, after two special tokens."""

import keras
import numpy as np

from keras_reformer.data.token_ids import check_token_ids
from keras_reformer.data.tokenizer import Tokenizer

PADDING_ID = 0
END_ID = 1
BYTE_OFFSET = 2
VOCABULARY_SIZE = 256 + BYTE_OFFSET


@keras.saving.register_keras_serializable(package="keras_reformer")
class ByteTokenizer(Tokenizer):
    """Turns text into token ids and back, one token a byte of UTF-8.

    A byte's id is its value plus 2. Id 0 is padding and id 1 the end of a
    text, so the vocabulary has 258 ids, as that of the published enwik8 model.

    Example:
    ```python
    tokenizer = keras_reformer.data.ByteTokenizer()
    tokenizer.tokenize("Hi")  # array([74, 107], dtype=int32)
    tokenizer.detokenize([74, 107, 1, 0])  # "Hi"
    ```
    """

    padding_id = PADDING_ID
    end_id = END_ID
    vocabulary_size = VOCABULARY_SIZE

    def tokenize(self, text: str | bytes) -> np.ndarray:
        """Gives the token ids of a text, without special tokens.

        Args:
            text: str (encoded as UTF-8) or bytes. Bytes that Python could
                not decode and keeps in a str as lone surrogates, as those of
                a command line, become those bytes again.

        Returns:
            ids: int32 array of shape `(number of bytes,)`.
        """
        if isinstance(text, str):
            text = text.encode("utf-8", errors="surrogateescape")
        return np.frombuffer(text, np.uint8).astype(np.int32) + BYTE_OFFSET

    def detokenize(self, ids) -> str:
        """Gives the text of token ids.

        Special tokens are dropped, and bytes that are no UTF-8 (a character
        cut in two, say) become the replacement character.

        Args:
            ids: One-dimensional array or list of token ids.

        Returns:
            text: str.

        Raises:
            ValueError: if an id is outside the vocabulary.
        """
        ids = self.check(ids)
        values = (ids[ids >= BYTE_OFFSET] - BYTE_OFFSET).astype(np.uint8)
        return values.tobytes().decode("utf-8", errors="replace")

    def check(self, ids, vocabulary_size: int = VOCABULARY_SIZE) -> np.ndarray:
        """Checks that all ids lie in a vocabulary.

        Args:
            ids: Array or nested list of token ids, of any shape.
            vocabulary_size: int. One more than the largest id allowed.
                Defaults to 258, the tokenizer's own.

        Returns:
            ids: The ids as an array.

        Raises:
            ValueError: if an id is negative, `vocabulary_size` or larger.
        """
        return check_token_ids(np.asarray(ids), vocabulary_size)
