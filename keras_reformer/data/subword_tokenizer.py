"""A vocabulary of subwords, by SentencePiece."""

import io
import os
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from keras_reformer.data.token_ids import check_token_ids
from keras_reformer.data.tokenizer import Tokenizer, to_text


@keras.saving.register_keras_serializable(package="keras_reformer")
class SubwordTokenizer(Tokenizer):
    """Turns text into ids of subwords and back, by a SentencePiece model.

    It reads the model files of published checkpoints (T5, mT5, ALBERT, and
    the Reformer of *Crime and Punishment*, of 320 subwords), and `train` makes
    new ones. Needs the extra `subword`.

    Args:
        model: Path of a SentencePiece model file, or its bytes.

    Raises:
        ImportError: if the library `sentencepiece` is missing.
        ValueError: if the file cannot be read or is no such model.

    Example:
    ```python
    tokenizer = keras_reformer.data.SubwordTokenizer.train(
        ["the lions", "the line"], vocabulary_size=280
    )
    ids = tokenizer.tokenize("the lines")  # int32
    tokenizer.detokenize(ids)  # "the lines"
    tokenizer.save("vocabulary.model")
    ```
    """

    _files = {"model": "vocabulary.spm"}

    def __init__(self, model: str | os.PathLike | bytes):
        sentencepiece = _import_sentencepiece()
        self._model = model if isinstance(model, bytes) else _read(model)
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self._model)
        except (RuntimeError, OSError) as error:
            received = "bytes" if isinstance(model, bytes) else repr(str(model))
            raise ValueError(
                "Expected a SentencePiece model. Received: model="
                f"{received}, which fails with {error}"
            ) from error

    def get_config(self) -> dict:
        return {"model": to_text(self._model)}

    @classmethod
    def train(
        cls, texts: Iterable[str], vocabulary_size: int
    ) -> "SubwordTokenizer":
        """Makes a vocabulary of byte pair encoding.

        Text is not normalized, and a character that is in no subword becomes
        its bytes: `detokenize` gives back every text without NUL characters.
        Equal texts give equal vocabularies.

        Args:
            texts: Iterable of str, of which one at a time is in memory here;
                SentencePiece keeps them all.
            vocabulary_size: int. Number of ids: three special ones, 256
                bytes, and subwords.

        Returns:
            tokenizer: `SubwordTokenizer`, with padding 0 and end of text 1.

        Raises:
            ImportError: if the library `sentencepiece` is missing.
            ValueError: if the texts are too few for that many subwords, or
                the size leaves no room for any.
        """
        sentencepiece = _import_sentencepiece()
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                # Its sentences are lines; a line break is a byte of its own.
                sentence_iterator=(
                    line for text in texts for line in text.split("\n") if line
                ),
                model_writer=model,
                vocab_size=vocabulary_size,
                model_type="bpe",
                byte_fallback=True,
                character_coverage=1.0,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                pad_id=0,
                eos_id=1,
                unk_id=2,
                bos_id=-1,
                max_sentence_length=2**20,
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise ValueError(
                "No vocabulary could be made of these texts. Expected "
                "non-empty texts with enough different subwords, and more ids "
                "than 259 and the characters. Received: vocabulary_size="
                f"{vocabulary_size}, which fails with {error}"
            ) from error
        return cls(model.getvalue())

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return self._processor.GetPieceSize()

    @property
    def padding_id(self) -> int:
        """Id of padding; 0 if the model has none, since a mask hides it."""
        return max(self._processor.pad_id(), 0)

    @property
    def end_id(self) -> int:
        """Id of the end of a text; -1 if the model has none."""
        return self._processor.eos_id()

    def tokenize(self, text: str | bytes) -> np.ndarray:
        """Gives the token ids of a text, without special tokens.

        Args:
            text: str, or bytes of UTF-8, of which others are replaced.

        Returns:
            ids: int32 array of shape `(number of tokens,)`.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="replace")
        return np.array(self._processor.EncodeAsIds(text), np.int32)

    def detokenize(self, ids) -> str:
        """Gives the text of token ids; special tokens are dropped.

        Args:
            ids: One-dimensional array or list of token ids.

        Returns:
            text: str.

        Raises:
            ValueError: if an id is outside the vocabulary.
        """
        ids = check_token_ids(np.asarray(ids), self.vocabulary_size)
        return self._processor.DecodeIds(ids.tolist())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the SentencePiece model file.

        Args:
            path: Path of the file.
        """
        Path(path).write_bytes(self._model)


def _import_sentencepiece():
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError(
            "A vocabulary of subwords needs sentencepiece. Install it with "
            '`pip install "keras-reformer[subword]"`.'
        ) from error
    return sentencepiece


def _read(path: str | os.PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"The file cannot be read ({error.strerror}). Expected a "
            f"SentencePiece model. Received: model={os.fspath(path)!r}"
        ) from error
