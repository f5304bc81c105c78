"""Text into `tf.data` pipelines of token ids, and a synthetic task."""

from keras_reformer.data.associative_recall import associative_recall_batch
from keras_reformer.data.byte_tokenizer import ByteTokenizer
from keras_reformer.data.corpus import read_corpus
from keras_reformer.data.packing import pack_documents
from keras_reformer.data.token_ids import check_token_ids
from keras_reformer.data.windows import (
    Splits,
    evaluation_windows,
    split_by_position,
    training_windows,
)
from keras_reformer.data.yardsticks import (
    bigram_bits_per_byte,
    order0_entropy,
    zlib_bits_per_byte,
)

__all__ = [
    "ByteTokenizer",
    "Splits",
    "associative_recall_batch",
    "bigram_bits_per_byte",
    "check_token_ids",
    "evaluation_windows",
    "order0_entropy",
    "pack_documents",
    "read_corpus",
    "split_by_position",
    "training_windows",
    "zlib_bits_per_byte",
]
