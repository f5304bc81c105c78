import keras

from keras_reformer.layers import checks, lsh_arguments
from keras_reformer.layers.decoding import check_causal
from keras_reformer.layers.hashed_self_attention import HashedSelfAttention
from keras_reformer.layers.lsh_attention import LSHAttention
from keras_reformer.layers.short_convolution import ShortConvolution
from keras_reformer.ops.attention.window import Window


@keras.saving.register_keras_serializable(package="keras_reformer")
class LSHSelfAttention(HashedSelfAttention):
    """Multi-head LSH self-attention with shared queries and keys.

    Queries and keys are the same vectors. Random rotations hash them into
    buckets, tokens are sorted by bucket, and each attends to a window of the
    sorted order; the rounds of hashing share one softmax. Time and memory are
    linear in the length. The result approximates exact attention with shared
    query-keys, better with more rounds.

    A token attends to itself only where it sees nothing else.

    Training draws new rotations at each step. Inference draws them from a
    seed that is a variable of the layer, so that the same inputs always get
    the same outputs, also after saving; `rotations` are used instead where
    they are set. `num_hashes`, `exact_below` and `rotations` of a built layer
    may be set, to evaluate one model in several ways; they are part of its
    config. This package's models follow at their next call, other Keras
    models once they are compiled again.

    Masking: masked tokens are in a bucket of their own, nobody attends to
    them, and their outputs are those of a zero context. Inputs may have any
    length; they are padded inside to a multiple of `chunk_length`.

    Args:
        num_heads: int. Number of attention heads.
        key_dim: int. Size of each head's query-keys.
        value_dim: int. Size of each head's values; where several value heads
            share a head's attention weights, the sum. Defaults to `key_dim`.
        num_hashes: int. Rounds of hashing. Time is linear in it; memory
            grows by 4 to 8 bytes per token, head and round. Defaults to `4`.
        num_buckets: even int, or list of even ints whose product is the
            number of buckets (then cheaper to compute). `None` follows the
            inputs' length: about one bucket per chunk for `scope="bucket"`,
            two for `scope="chunk"`. Defaults to `None`.
        chunk_length: int. Tokens in a chunk of the sorted order. Defaults to
            `64`.
        num_chunks_before: int. Defaults to `1`.
        num_chunks_after: int. Defaults to `0`.
        causal: bool. Whether to mask later tokens. Defaults to `False`.
        scope: `"bucket"` or `"chunk"`. `"bucket"`: a token sees the tokens
            of its own bucket, at most `num_chunks_before * chunk_length`
            ranks back and `num_chunks_after * chunk_length` forward in the
            sorted order. A causal output then depends neither on later
            tokens nor on padding or chunk borders. `"chunk"`: a token sees
            its chunk and the neighbouring ones, whatever their buckets, as
            published. Defaults to `"bucket"`.
        dropout: float in `[0, 1)`. Dropout of attention weights. Defaults to
            `0.0`.
        exact_below: int. Inputs of at most this length get exact attention.
            `None` means `chunk_length` for `scope="chunk"`, as published,
            and never for `scope="bucket"`. Defaults to `None`.
        wrap: bool. Whether the first chunk of a round looks back to the last
            chunk of the round before, as published. For `scope="chunk"`
            only. Defaults to `False`.
        discount_duplicates: bool. `True` is the older way to write
            `duplicates="discount"`. Defaults to `False`.
        use_bias: bool. Whether projections have biases. Defaults to `False`.
        query_key_kernel_size: int. Kernel size of a causal
            `ShortConvolution` of query-keys. With 2, a token hashes like
            tokens that follow one like its predecessor, which associative
            recall needs. Defaults to `1`, no convolution.
        center_hashes: bool. Whether to subtract from query-keys' directions,
            before they are hashed, a moving average over training of their
            mean direction, weighted by squared norms. A shared component
            would crowd query-keys into a few buckets. Defaults to `False`.
        duplicates: `"count"`, `"discount"` or `"importance"`. A pair that N
            of R rounds show counts N times; once; or once, over the
            probability `1 - (1 - p)^R` that any round shows a pair of its
            cosine, which is nearest to exact attention and costs little
            more. `None` means `"count"`, as published, or what
            `discount_duplicates` says. Defaults to `None`.
        position_bias: Keras layer, such as `AlibiBias` or
            `RelativePositionBias`, called on int32 query positions, key
            positions and heads, which broadcast against each other; its
            output is added to the scores.
        rotary_embedding: `RotaryEmbedding` of query-keys, applied before they
            are hashed.
        shared_dropout: bool. Whether all chunks, rounds, heads and examples
            share one dropout mask, as published. Defaults to `False`.
        num_global_tokens: int. Tokens at the beginning that all tokens see,
            in a causal layer later ones; else they see all. Masked ones are
            seen by nobody: a row with padding in front has fewer or none.
            Defaults to `0`.
        kernel_initializer: Initializer of the projections. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of biases. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the projections.
        bias_regularizer: Regularizer of biases.
        kernel_constraint: Constraint of the projections.
        bias_constraint: Constraint of biases.
        seed: int. Seed of rotations and dropout.
        rotations: Float array of shape `(num_heads, key_dim, num_hashes,
            sum(num_buckets) // 2)` to hash with at inference. Defaults to
            `None`: drawn.
        rotation_seed: pair of ints from which rotations are drawn at
            inference. Defaults to `None`: it follows from `seed`.
        sublayers: dict. Settings of sublayers that were changed after they
            were made, by path, as `get_config` returns them.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, hidden_dim)`.
        mask: Boolean tensor of shape `(batch, length)`, True at valid tokens.
        training: bool. Whether to draw new rotations and apply dropout.
        rotations: Float tensor of the argument's shape to hash with in this
            call.
        segment_ids: Integer tensor of shape `(batch, length)`: equal for
            tokens of one document of several packed into a row. Documents
            do not see each other, and positions begin anew in each.
        inputs_mask: the mask attached to the inputs, which Keras fills in.
            `mask` wins.

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
        position_bias=None,
        rotary_embedding=None,
        shared_dropout=False,
        num_global_tokens=0,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        seed=None,
        rotations=None,
        rotation_seed=None,
        sublayers=None,
        **kwargs,
    ):
        super().__init__(
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            num_hashes=num_hashes,
            num_buckets=num_buckets,
            chunk_length=chunk_length,
            num_chunks_before=num_chunks_before,
            num_chunks_after=num_chunks_after,
            causal=causal,
            scope=scope,
            dropout=dropout,
            exact_below=exact_below,
            wrap=wrap,
            discount_duplicates=discount_duplicates,
            use_bias=use_bias,
            center_hashes=center_hashes,
            duplicates=duplicates,
            position_bias=position_bias,
            rotary_embedding=rotary_embedding,
            shared_dropout=shared_dropout,
            num_global_tokens=num_global_tokens,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            seed=seed,
            rotations=rotations,
            rotation_seed=rotation_seed,
            sublayers=sublayers,
            **kwargs,
        )
        self.query_key_kernel_size = checks.positive_int(
            "query_key_kernel_size", query_key_kernel_size
        )
        self.convolution = None

    def build(self, input_shape):
        super().build(input_shape)
        if self.query_key_kernel_size > 1:
            convolution = ShortConvolution(
                self.query_key_kernel_size,
                dtype=self.dtype_policy,
                name="convolution",
            )
            shape = (*input_shape[:-1], self.num_heads * self.key_dim)
            self._make_sublayer("convolution", convolution).build(shape)
        self._build_hashing()

    def call(
        self,
        inputs,
        mask=None,
        training=None,
        rotations=None,
        segment_ids=None,
        inputs_mask=None,
    ):
        mask = self._mask(mask, inputs_mask, inputs)
        segments = self._segments(segment_ids, inputs.shape[:2])
        query_key, value = self._heads(inputs, mask, segments)
        seed, dropout = self._draw(training)
        options = self._hash_options(bool(training), seed, rotations)
        orders, buckets = self.hasher.sort_once(
            query_key, mask, segments, **options
        )
        if training and self.trainable:
            self._update_center(query_key, mask)
        attended = self._attention().attend(
            query_key,
            value,
            orders,
            buckets,
            mask=mask,
            dropout=dropout,
            bias=self._bias(),
            segments=segments,
        )
        return self._merge_heads(attended)

    def _heads(self, inputs, mask, segments=None):
        """Query-keys and values of whole sequences."""
        positions = None if segments is None else segments.positions
        heads, _ = self._project(
            inputs,
            lambda layer, x: (layer(x, mask=mask, positions=positions), None),
            segments=segments,
        )
        return heads

    def _project(self, inputs, convolve, start_index=0, segments=None):
        """Projects, convolves and rotates.

        Args:
            inputs: Float tensor of shape `(batch, length, hidden_dim)`.
            convolve: function of the convolution and projected query-keys
                that returns them convolved, and its cache or None.
            start_index: as in `RotaryEmbedding`.
            segments: packed documents, or None.

        Returns:
            Pair of query-keys and values, split into heads; and the
            convolution's cache, None without one.
        """
        query_key, cache = self.query_key(inputs), None
        if self.convolution is not None:
            query_key, cache = convolve(self.convolution, query_key)
        query_key = self._rotated_heads(query_key, start_index, segments)
        return (query_key, self._values(inputs)), cache

    def hash(self, inputs, mask=None):
        """Bucket ids of inputs, as inference hashes them.

        Args:
            inputs: Float tensor of shape `(batch, length, hidden_dim)`.
            mask: Boolean tensor of shape `(batch, length)` or None.

        Returns:
            int32 tensor of shape `(batch, num_heads, num_hashes, length)`.
        """
        mask = checks.mask("mask", mask, inputs.shape[:2])
        query_key, _ = self._heads(inputs, mask)
        return self.hasher.hash(query_key, mask, **self._hash_options())

    def attention_statistics(self, inputs, rows, mask=None):
        """Buckets and attention weights at inference, to plot them.

        Inputs of any length are hashed, also where `call` is exact.

        Args:
            inputs: Float tensor of shape `(batch, length, hidden_dim)`.
            rows: list of ints. Positions of queries.
            mask: Boolean tensor of shape `(batch, length)` or None.

        Returns:
            dict of `buckets`, int32 `(batch, num_heads, num_hashes,
            length)`, and `weights`, `(batch, num_heads, len(rows), length)`:
            the attention weights of those queries over all positions.
        """
        mask = checks.mask("mask", mask, inputs.shape[:2])
        query_key, _ = self._heads(inputs, mask)
        options = self._hash_options()
        orders, buckets = self.hasher.sort(query_key, mask, **options)
        rows = keras.ops.convert_to_tensor(rows, "int32")
        weights = self._attention().weights_of_rows(
            query_key, orders, buckets, rows, mask=mask, bias=self._bias()
        )
        return {"buckets": buckets, "weights": weights}

    def _attention(self):
        """An `LSHAttention` with the current settings."""
        window = Window(
            self.chunk_length,
            self.num_chunks_before,
            self.num_chunks_after,
            self.causal,
            sees_itself=False,
            same_bucket=self.scope == "bucket",
            num_global=self.num_global_tokens,
        )
        longest_exact = self.exact_below
        if longest_exact is None:
            longest_exact = self.chunk_length if self.scope == "chunk" else 0
        return LSHAttention(
            self.hasher, window, self.wrap, self.duplicates, longest_exact
        )

    def prefill(self, inputs, mask, capacity):
        """Outputs for prompts, and a cache; see `layers.decoding`."""
        check_causal(self)
        # A step would hash for another length than the prompt's.
        lsh_arguments.check_length_known(self.num_buckets)
        prompt, first = self._project(
            inputs, lambda layer, x: layer.prefill(x, mask, capacity)
        )
        prompt += self.hasher.sort(prompt[0], mask, **self._hash_options())
        attention = self._attention()
        attended = attention.attend(*prompt, mask=mask, bias=self._bias())
        cache = attention.make_cache(*prompt, capacity)
        return self._merge_heads(attended), _join(first, cache)

    def decode(self, inputs, cache, positions, constants=None):
        """Outputs for one more token of each row, and the cache."""
        first, cache = (None, cache) if self.convolution is None else cache
        (query_key, value), first = self._project(
            inputs,
            lambda layer, x: layer.decode(x, first, positions),
            positions,
        )
        options = self._hash_options(rotations=constants)
        buckets = self.hasher.hash(query_key, **options)[..., 0]
        attended, cache = self._attention().attend_to_cache(
            query_key, value, buckets, cache, positions, self._bias()
        )
        return self._merge_heads(attended), _join(first, cache)

    def decode_constants(self):
        """The rotations of all steps."""
        options = self._hash_options()
        return self.hasher.rotations(
            self.hasher.factors(None), options["seed"], options["rotations"]
        )

    def get_config(self):
        return {
            **super().get_config(),
            "query_key_kernel_size": self.query_key_kernel_size,
        }


def _join(first, cache):
    """The convolution's cache, if there is one, and the attention's."""
    return cache if first is None else (first, cache)
