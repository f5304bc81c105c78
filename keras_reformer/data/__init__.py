"""Corpora, documents, images and synthetic tasks as `tf.data` of token ids."""

from keras_reformer.data.associative_recall import associative_recall_batch
from keras_reformer.data.augmentation import mask_spans, random_offsets
from keras_reformer.data.byte_tokenizer import ByteTokenizer
from keras_reformer.data.corpus import read_corpus
from keras_reformer.data.document_batches import (
    bucket_by_length,
    documents,
    pad_documents,
)
from keras_reformer.data.duplication import duplication_batch
from keras_reformer.data.image_tokenizer import ImageTokenizer
from keras_reformer.data.images import image_tokens, read_idx
from keras_reformer.data.labelled_texts import (
    LabelledTexts,
    read_labelled_texts,
)
from keras_reformer.data.mapped_files import map_corpus
from keras_reformer.data.packing import pack_documents
from keras_reformer.data.subword_tokenizer import SubwordTokenizer
from keras_reformer.data.tfds_loaders import (
    load_downsampled_imagenet,
    load_duplication,
    load_enwik8,
    load_imdb_reviews,
    load_pg19,
    load_wiki40b,
    load_wmt14_translate,
)
from keras_reformer.data.token_ids import check_token_ids
from keras_reformer.data.tokenizer import Tokenizer
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
    "ImageTokenizer",
    "LabelledTexts",
    "Splits",
    "SubwordTokenizer",
    "Tokenizer",
    "associative_recall_batch",
    "bigram_bits_per_byte",
    "bucket_by_length",
    "check_token_ids",
    "documents",
    "duplication_batch",
    "evaluation_windows",
    "image_tokens",
    "load_downsampled_imagenet",
    "load_duplication",
    "load_enwik8",
    "load_imdb_reviews",
    "load_pg19",
    "load_wiki40b",
    "load_wmt14_translate",
    "map_corpus",
    "mask_spans",
    "order0_entropy",
    "pack_documents",
    "pad_documents",
    "random_offsets",
    "read_corpus",
    "read_idx",
    "read_labelled_texts",
    "split_by_position",
    "training_windows",
    "zlib_bits_per_byte",
]
