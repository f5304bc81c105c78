import keras
import numpy as np

from keras_reformer.layers import checks, lsh_arguments
from keras_reformer.layers.chunked_self_attention import ChunkedSelfAttention
from keras_reformer.layers.lsh_decoding import LSHDecoding
from keras_reformer.layers.lsh_hashing import LSHHashing
from keras_reformer.layers.short_convolution import ShortConvolution
from keras_reformer.ops.attention.duplicates import attention_of_rows
from keras_reformer.ops.attention.exact import exact_shared_attention
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.attention.lsh import lsh_attention
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.loops.shapes import choose_by_length
from keras_reformer.ops.random import split_seed

_NONE = -1


@keras.saving.register_keras_serializable(package="keras_reformer")
class LSHSelfAttention(LSHHashing, LSHDecoding, ChunkedSelfAttention):
    """Multi-head self-attention among tokens that hash alike.

    Queries and keys are the same vectors. Random rotations hash them into
    buckets, tokens are sorted by bucket, and each attends to those within a
    window of the sorted order; several rounds of hashing are one softmax.
    Time and memory are linear in the length. The result approximates exact
    shared-query-key attention, better with more rounds.

    A token does not attend to itself unless it sees nothing else.

    Training draws new rotations at each step. Inference draws them from a
    seed that is a variable of the layer, though no weight, so the same inputs
    always get the same outputs, also after saving. Setting `rotations` stores
    rotations to use instead. `num_hashes`, `exact_below` and `rotations` of a
    built layer may be set to evaluate one model in several ways: the models
    here follow at their next call, another Keras model once it is compiled
    again.

    Masking: masked tokens hash to a bucket of their own that sorts last;
    nobody attends to them and their outputs are those of a zero context.
    Length: any, padded inside to a multiple of `chunk_length`.

    Args:
        num_heads: int. Number of attention heads.
        key_dim: int. Size of each head's query-keys.
        value_dim: int. Size of each head's values. Defaults to `key_dim`.
        num_hashes: int. Rounds of hashing; time is linear in it, memory
            grows by 4 to 8 bytes a token, head and round. Defaults to `4`.
        num_buckets: even int, or list of even ints whose product is the
            number of buckets (then cheaper to compute). `None` follows the
            inputs' length: about one bucket a chunk for `scope="bucket"`,
            two for `scope="chunk"`. Defaults to `None`.
        chunk_length: int. Tokens in a chunk of the sorted order. Defaults to
            `64`.
        num_chunks_before: int. Defaults to `1`.
        num_chunks_after: int. Defaults to `0`.
        causal: bool. Whether later tokens are hidden. Defaults to `False`.
        scope: `"bucket"` or `"chunk"`. `"bucket"`: a token sees the tokens
            of its own bucket, at most `num_chunks_before * chunk_length`
            places back and `num_chunks_after * chunk_length` forward in the
            sorted order; nothing that comes later, no padding and no chunk
            border changes a causal output. `"chunk"`: a token sees its chunk
            and the neighbouring ones, whatever the buckets, as published.
            Defaults to `"bucket"`.
        dropout: float in `[0, 1)`. Dropout of attention weights. Defaults to
            `0.0`.
        exact_below: int. Inputs of at most this length get exact attention.
            `None` means `chunk_length` for `scope="chunk"`, as published,
            and never for `scope="bucket"`. Defaults to `None`.
        wrap: bool. The first chunk of a round looks back to the last chunk
            of the round before, as published. For `scope="chunk"` only.
            Defaults to `False`.
        discount_duplicates: bool. `True` is the older way to write
            `duplicates="discount"`. Defaults to `False`.
        use_bias: bool. Whether projections have biases. Defaults to `False`.
        query_key_kernel_size: int. Positions that a query-key is made of, its
            own and those just before it, by a `ShortConvolution`. With 2, a
            token hashes like those that followed a token like it, which is
            what looking things up takes. Defaults to `1`, its own alone.
        center_hashes: bool. Whether query-keys are hashed relative to the
            direction they share, a moving average over training, in which
            long ones count most: it would crowd them into a few buckets, of
            which a window shows the latest tokens only. Defaults to `False`.
        position_bias: Keras layer, such as `AlibiBias` or
            `RelativePositionBias`, called on int32 positions of queries and
            of keys and on heads, which broadcast against each other; what it
            returns for each is added to the score.
        rotary_embedding: `RotaryEmbedding` of query-keys, before they are
            hashed, so that hashing sees what attention sees.
        shared_dropout: bool. One mask of attention weights serves all
            chunks, rounds, heads and examples, as published. Defaults to
            `False`.
        duplicates: `"count"`, `"discount"` or `"importance"`. A pair that N
            of R rounds show counts N times, once, or once over the
            probability `1 - (1 - p)^R` that any round shows a pair of its
            cosine, which is nearest to exact attention and costs little
            more. `None` means `"count"`, as published, or what
            `discount_duplicates` says. Defaults to `None`.
        kernel_initializer: Initializer of the projections. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of biases. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the projections.
        bias_regularizer: Regularizer of biases.
        kernel_constraint: Constraint of the projections.
        bias_constraint: Constraint of biases.
        seed: int. Seed of rotations and dropout.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, hidden_dim)`.
        mask: Boolean tensor of shape `(batch, length)`, True at valid tokens.
        training: bool. Whether to draw new rotations and apply dropout.
        rotations: Float tensor of shape `(num_heads, key_dim, num_hashes,
            sum(num_buckets) // 2)` to hash with in this call.

    Returns:
        Float tensor of shape `(batch, length, hidden_dim)`.

    Raises:
        ValueError: if an argument is out of its range, `num_buckets` is odd,
            or it is `None` while the inputs' length is unknown.

    Example:

    >>> layer = keras_reformer.LSHSelfAttention(num_heads=2, key_dim=16)
    >>> layer(keras.random.normal((1, 1000, 32))).shape
    TensorShape([1, 1000, 32])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451),
    section 2; `scope="bucket"` is ours. Convolution:
    [So et al., 2021](https://arxiv.org/abs/2109.08668).
    """

    _projections = ("query_key", "value")

    def __init__(
        self,
        num_heads,
        key_dim,
        value_dim=None,
        num_hashes=4,
        num_buckets=None,
        chunk_length=64,
        num_chunks_before=1,
        num_chunks_after=0,
        causal=False,
        scope="bucket",
        dropout=0.0,
        exact_below=None,
        wrap=False,
        discount_duplicates=False,
        use_bias=False,
        query_key_kernel_size=1,
        center_hashes=False,
        duplicates=None,
        **kwargs,
    ):
        super().__init__(
            num_heads,
            key_dim,
            value_dim,
            chunk_length=chunk_length,
            num_chunks_before=num_chunks_before,
            num_chunks_after=num_chunks_after,
            causal=causal,
            wrap=wrap,
            dropout=dropout,
            use_bias=use_bias,
            **kwargs,
        )
        self.num_hashes = num_hashes
        self.num_buckets = lsh_arguments.num_buckets(num_buckets)
        self.scope = lsh_arguments.scope(scope, self.wrap)
        self.exact_below = exact_below
        self._duplicates = lsh_arguments.duplicates(
            duplicates, discount_duplicates
        )
        self.query_key_kernel_size = checks.positive_int(
            "query_key_kernel_size", query_key_kernel_size
        )
        self.center_hashes = lsh_arguments.center_hashes(
            center_hashes, self._duplicates
        )
        self.convolution = None
        self.hash_center = None
        self._rotations = None
        self.rotation_seed = None
        self._given_rotation_seed = None

    @property
    def num_hashes(self):
        """Number of hash rounds."""
        return self._num_hashes

    @num_hashes.setter
    def num_hashes(self, value):
        self._num_hashes = checks.positive_int("num_hashes", value)

    @property
    def duplicates(self):
        """How pairs that several rounds show count."""
        return self._duplicates

    @property
    def discount_duplicates(self):
        """Whether `duplicates="discount"`."""
        return self._duplicates == "discount"

    @property
    def exact_below(self):
        """Longest inputs that get exact attention, or None."""
        return self._exact_below

    @exact_below.setter
    def exact_below(self, value):
        if value is not None:
            value = checks.count("exact_below", value)
        self._exact_below = value

    def build(self, input_shape):
        super().build(input_shape)
        if self.query_key_kernel_size > 1:
            self._build_convolution(input_shape)
        if self.center_hashes:
            self._build_hash_center()
        self._build_rotation_seed()

    def _build_convolution(self, input_shape):
        convolution = ShortConvolution(
            self.query_key_kernel_size,
            dtype=self.dtype_policy,
            name="convolution",
        )
        shape = (*input_shape[:-1], self.num_heads * self.key_dim)
        self._make_sublayer("convolution", convolution).build(shape)

    def call(self, inputs, mask=None, training=None, rotations=None):
        mask = checks.mask("mask", mask, inputs.shape[:2])
        query_key, value = self._heads(inputs, mask)
        rotation_seed, dropping = self._draw(training)
        orders, buckets = self._remember_sort(
            query_key, mask, training, rotation_seed, rotations
        )
        if training and self.trainable and self.hash_center is not None:
            self._follow_common_direction(query_key, mask)
        attended = self._attend(
            query_key,
            value,
            orders,
            buckets,
            mask=mask,
            dropout=dropping,
            bias=self._bias(),
        )
        return self._merge_heads(attended)

    def _heads(self, inputs, mask=None):
        query_key = self.query_key(inputs)
        if self.convolution is not None:
            query_key = self.convolution(query_key, mask=mask)
        return (
            self._rotated_heads(query_key),
            self._split_heads(self.value(inputs)),
        )

    def _attend(self, query_key, value, orders, buckets, **options):
        if 0 in value.shape:
            return value
        return choose_by_length(
            keras.ops.shape(query_key)[2],
            self._longest_exact(),
            lambda: exact_shared_attention(
                query_key, value, causal=self.causal, **options
            ),
            lambda: lsh_attention(
                query_key,
                value,
                orders,
                buckets,
                self._window(),
                wrap=self.wrap,
                discount_duplicates=self.discount_duplicates,
                importance=self._importance(query_key.shape[2]),
                **options,
            ),
        )

    def attention_statistics(self, inputs, rows, mask=None):
        """What LSH attention attends to at inference, for pictures.

        Inputs so short that they get exact attention are shown as LSH
        attention would treat them.

        Args:
            inputs: Float tensor of shape `(batch, length, hidden_dim)`.
            rows: list of ints. Positions of the queries to look at.
            mask: Boolean tensor of shape `(batch, length)` or None.

        Returns:
            dict of `buckets`, int32 `(batch, num_heads, num_hashes,
            length)`, and `weights`, `(batch, num_heads, len(rows), length)`:
            the attention weights of those queries over all positions.
        """
        mask = checks.mask("mask", mask, inputs.shape[:2])
        query_key, _ = self._heads(inputs, mask)
        orders, buckets = self._sort(query_key, mask, False, None, None)
        weights = attention_of_rows(
            query_key,
            orders,
            buckets,
            keras.ops.convert_to_tensor(rows, "int32"),
            self._window(),
            mask=mask,
            wrap=self.wrap,
            discount_duplicates=self.discount_duplicates,
            importance=self._importance(query_key.shape[2]),
            bias=self._bias(),
        )
        return {"buckets": buckets, "weights": weights}

    def _window(self):
        return Window(
            self.chunk_length,
            self.num_chunks_before,
            self.num_chunks_after,
            self.causal,
            sees_itself=False,
            same_bucket=self.scope == "bucket",
        )

    def _longest_exact(self):
        if self.exact_below is not None:
            return self.exact_below
        return self.chunk_length if self.scope == "chunk" else 0

    def _draw(self, training):
        """The call's randomness: a seed of rotations, and dropout."""
        if not training:
            return None, None
        rotation_seed, dropout_seed = split_seed(self.seed_generator.next(), 2)
        if not self.dropout:
            return rotation_seed, None
        options = self.dropout, dropout_seed, self.shared_dropout
        return rotation_seed, AttentionDropout(*options)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # For files of weights alone, which have no config.
        store["num_hashes"] = np.array(self.num_hashes)
        store["exact_below"] = np.array(
            _NONE if self.exact_below is None else self.exact_below
        )
        if self._rotations is not None:
            store["rotations"] = self._rotations

    def load_own_variables(self, store):
        # Not every store has `items`.
        store = {key: np.array(store[key]) for key in store.keys()}
        self.num_hashes = int(store.pop("num_hashes", self.num_hashes))
        if "exact_below" in store:
            longest = int(store.pop("exact_below"))
            self.exact_below = None if longest == _NONE else longest
        self.rotations = store.pop("rotations", None)
        super().load_own_variables(store)

    def get_config(self):
        set_since = {
            "rotation_seed": self._drawn_rotation_seed(),
            "rotations": _as_list(self._rotations),
        }
        return {
            **super().get_config(),
            "num_hashes": self.num_hashes,
            "num_buckets": self.num_buckets,
            "scope": self.scope,
            "exact_below": self.exact_below,
            "discount_duplicates": self.discount_duplicates,
            "query_key_kernel_size": self.query_key_kernel_size,
            "center_hashes": self.center_hashes,
            # None leaves it to the other: either can be replaced.
            "duplicates": self.duplicates
            if self.duplicates == "importance"
            else None,
            **{k: v for k, v in set_since.items() if v is not None},
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        rotations = config.pop("rotations", None)
        rotation_seed = config.pop("rotation_seed", None)
        layer = super().from_config(config)
        layer.rotations = rotations
        layer._given_rotation_seed = rotation_seed and tuple(rotation_seed)
        return layer


def _as_list(array):
    return None if array is None else array.tolist()
