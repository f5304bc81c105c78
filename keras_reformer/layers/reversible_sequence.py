import keras

from keras_reformer.layers import checks
from keras_reformer.layers.composite_layer import CompositeLayer
from keras_reformer.layers.masks import given_mask, one_mask
from keras_reformer.layers.reversible_block import (
    check_pair,
    stream_dtype,
)
from keras_reformer.layers.scan_signature import (
    describe_difference,
    known_signature,
    visible_signature,
)
from keras_reformer.layers.stateless import assign_changes
from keras_reformer.layers.sublayers import adopt
from keras_reformer.layers.tracking import track_each
from keras_reformer.ops.reversible import stack
from keras_reformer.ops.reversible.scan import num_scan_steps


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReversibleSequence(CompositeLayer):
    """A stack of reversible blocks, with activation memory flat in depth.

    The backward pass computes each block's input from its output and runs
    the block again with the same random and discrete choices (dropout, hash
    buckets), so gradients are those of plain backpropagation. It costs one
    more forward pass.

    Losses that blocks add with `add_loss` count once. Second-order gradients
    raise a `LookupError`; `recompute=False` supports them where the blocks
    do.

    Args:
        blocks: list of `ReversibleBlock`.
        merge: how the two streams become the output: `"concat"` (along the
            last axis, as published), `"mean"`, or `None` for the pair.
            Defaults to `"concat"`.
        recompute: bool. `False` is ordinary backpropagation through the same
            mathematics: faster, and memory grows with depth. Defaults to
            `True`.
        scan_blocks: whether the graph of a training step holds equal blocks
            once, in a loop over their weights, so that it is traced and
            compiled in a time that does not grow with depth. `"auto"` scans
            blocks that are known to be equal: made of layers of Keras and of
            this package with the same options. `True` scans blocks of a
            user's own layers too, which must be equal but for their weights,
            names and seeds: one block's `call` runs for all. A sequence of a
            few blocks may also be repeated. `False` never scans. Defaults to
            `"auto"`.
        sublayers: dict. Settings of sublayers that were changed after they
            were made, by path, as `get_config` returns them.
        **kwargs: Base layer arguments, such as `name`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, hidden_dim)`, which is
            duplicated into both streams, or a pair of them.
        mask: Boolean tensor of shape `(batch, length)`, passed to branches
            whose `call` takes one.
        training: bool. Passed to the branches.
        context: Float tensor of shape `(batch, keys, dim)` that blocks with
            `cross_attention` attend to, such as an encoder's outputs. It
            gets gradients, the sum of those of all blocks.
        context_mask: Boolean tensor of shape `(batch, keys)`, True at the
            positions of the context that are seen.
        segment_ids: Integer tensor of shape `(batch, length)`, of documents
            packed into rows. Passed to branches whose `call` takes them.
        inputs_mask: the mask attached to the inputs, which Keras fills in.
            `mask` wins.

    Returns:
        Float tensor of shape `(batch, length, 2 * hidden_dim)` for
        `merge="concat"`, `(batch, length, hidden_dim)` for `"mean"`, or a
        pair of them. float32 at least.

    Raises:
        ValueError: if `blocks` is empty or holds other layers, `merge` is
            unknown, `scan_blocks=True` and blocks visibly differ, or a block
            has a `cross_attention` and there is no context.

    Example:

    >>> sequence = keras_reformer.ReversibleSequence([
    ...     keras_reformer.ReversibleBlock(
    ...         keras_reformer.LSHSelfAttention(num_heads=2, key_dim=16),
    ...         keras_reformer.FeedForward(64),
    ...     )
    ...     for _ in range(3)
    ... ])
    >>> sequence(keras.random.normal((1, 100, 32))).shape
    TensorShape([1, 100, 64])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451),
    section 3.
    """

    _layer_arguments = ("blocks",)

    def __init__(
        self,
        blocks,
        merge="concat",
        recompute=True,
        scan_blocks="auto",
        sublayers=None,
        **kwargs,
    ):
        kwargs["dtype"] = stream_dtype(kwargs.get("dtype"))
        super().__init__(sublayers=sublayers, autocast=False, **kwargs)
        self.supports_masking = True
        self.blocks = _check_blocks(blocks)
        track_each(self, "block", self.blocks)
        self.merge = checks.choice("merge", merge, ("concat", "mean", None))
        self.recompute = checks.boolean("recompute", recompute)
        self.scan_blocks = checks.choice(
            "scan_blocks", scan_blocks, ("auto", True, False)
        )

    def build(self, inputs_shape=None, context_shape=None):
        for block in self.blocks:
            if not block.built:
                block.build(self._pair_of_shapes(inputs_shape), context_shape)

    def _pair_of_shapes(self, shape):
        one = isinstance(shape, (list, tuple)) and not any(
            isinstance(size, (list, tuple)) for size in shape
        )
        shapes = (tuple(shape),) * 2 if one else shape
        check_pair(self.name, shapes)
        return tuple(shapes)

    def call(
        self,
        inputs,
        mask=None,
        training=None,
        context=None,
        context_mask=None,
        segment_ids=None,
        inputs_mask=None,
    ):
        streams = self._streams(inputs)
        if segment_ids is not None:
            for block in self.blocks:
                block.check_context(context, segment_ids)
        context = self._context(context)
        mask = one_mask(given_mask(mask, inputs_mask))
        signature_of = _SIGNATURES[self.scan_blocks] if training else None
        branches = [
            branch
            for block in self.blocks
            for branch in block.pure_branches(
                mask, training, signature_of, context_mask, segment_ids
            )
        ]
        if training and self.scan_blocks is True:
            _check_scannable(self.blocks, branches)
        output = self._run(branches, streams, training, context)
        self._assign(output.changes)
        for losses in output.losses:
            self.add_loss(losses)
        return self._merge(output.streams)

    def prefill(self, inputs, mask, capacity, context=None, context_mask=None):
        """Outputs for whole prompts, and the cache that `decode` continues.

        Args:
            inputs: as in `call`.
            mask: Boolean tensor of shape `(batch, length)`, True at valid
                positions, which come first.
            capacity: int or scalar tensor. Greatest number of positions.
            context: as in `call`. What steps need of it is in the cache.
            context_mask: as in `call`.

        Returns:
            The outputs of `call` at inference, and a cache of all blocks. A
            branch without `prefill` must treat positions independently.
        """
        streams, caches = self._streams(inputs), []
        context = self._context(context)
        for block in self.blocks:
            streams, cache = block.prefill(
                streams, mask, capacity, *context, context_mask=context_mask
            )
            caches.append(cache)
        return self._merge(streams), tuple(caches)

    def decode(self, inputs, cache, positions, constants=None):
        """Outputs for one more position of each row.

        Args:
            inputs: as in `call`, of length 1.
            cache: what `prefill` or `decode` returned.
            positions: int32 tensor of shape `(batch,)`.
            constants: what `decode_constants` returned, or None to compute
                it here.

        Returns:
            Outputs, and the cache with these positions.
        """
        streams, caches = self._streams(inputs), []
        constants = constants or [None] * len(self.blocks)
        steps = zip(self.blocks, cache, constants, strict=True)
        for block, before, constant in steps:
            streams, after = block.decode(streams, before, positions, constant)
            caches.append(after)
        return self._merge(streams), tuple(caches)

    def decode_constants(self):
        """The part of `decode` that is equal in all steps."""
        return tuple(block.decode_constants() for block in self.blocks)

    def _streams(self, inputs):
        streams = inputs if _is_pair(inputs) else (inputs, inputs)
        return tuple(
            keras.ops.cast(checks.numeric("inputs", x), self.compute_dtype)
            for x in streams
        )

    def _context(self, context):
        """The context in a list, which is empty without one."""
        if context is None:
            for block in self.blocks:
                block.check_context(None)
            return []
        context = checks.numeric("context", context)
        return [keras.ops.cast(context, self.compute_dtype)]

    def _run(self, branches, streams, training, context):
        if not self.recompute:
            return stack.run_plainly(branches, streams, context)
        # A scan copies the weights, which is not worth it for the short
        # calls of inference.
        repeat = bool(training)
        return stack.run_reversibly(branches, streams, repeat, context)

    def _assign(self, changes):
        """Assigns updated state, such as seeds and statistics."""
        layers = [layer for block in self.blocks for layer in block.branches]
        for layer, change in zip(layers, changes, strict=True):
            assign_changes(layer, change)

    def _merge(self, streams):
        y1, y2 = streams
        if self.merge == "concat":
            return keras.ops.concatenate((y1, y2), axis=-1)
        if self.merge == "mean":
            return (y1 + y2) / 2
        return y1, y2

    def compute_mask(self, inputs, previous_mask=None):
        previous_mask = one_mask(previous_mask)
        if self.merge is None and previous_mask is not None:
            return [previous_mask] * 2
        return previous_mask

    def compute_output_shape(self, inputs_shape, context_shape=None):
        shape, _ = self._pair_of_shapes(inputs_shape)
        if self.merge == "concat":
            return (*shape[:-1], 2 * shape[-1])
        return shape if self.merge == "mean" else (shape, shape)

    def get_config(self):
        return {
            **super().get_config(),
            "merge": self.merge,
            "recompute": self.recompute,
            "scan_blocks": self.scan_blocks,
        }


# By `scan_blocks`: what tells whether layers run the same function.
_SIGNATURES = {
    "auto": known_signature,
    True: visible_signature,
    False: None,
}


def _check_scannable(blocks, branches):
    """Refuses to scan blocks that visibly are no repetition of a few."""
    if len(blocks) == 1 or num_scan_steps(branches) > 1:
        return
    found = "a layer with state of its own that stands at several places"
    pairs = [
        (f"blocks[{index}]", one, other)
        for index, block in enumerate(blocks[1:], 1)
        for one, other in zip(blocks[0].branches, block.branches, strict=False)
        if visible_signature(one) != visible_signature(other)
    ]
    if pairs:
        name, *layers = pairs[0]
        found = f"blocks[0] and {name}, of {describe_difference(*layers)}"
    raise ValueError(
        "With `scan_blocks=True` one block's `call` runs for all, and the "
        "blocks are visibly not equal. Expected blocks of the same layers, "
        "settings and weights' shapes, or a repetition of the first few, or "
        f"scan_blocks='auto'. Received: {found}"
    )


def _is_pair(inputs):
    return isinstance(inputs, (list, tuple))


def _check_blocks(blocks):
    fits = isinstance(blocks, (list, tuple)) and len(blocks) > 0
    if not fits or not all(hasattr(b, "pure_branches") for b in blocks):
        raise ValueError(
            "`blocks` must be a list of `ReversibleBlock` with at least one "
            f"in it. Received: blocks={blocks}"
        )
    return [adopt(block) for block in blocks]
