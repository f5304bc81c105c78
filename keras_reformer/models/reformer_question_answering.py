import keras

from keras_reformer.models.task import Task, logits_layer


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReformerQuestionAnswering(Task):
    """A model of answers that are a piece of the text.

    Token ids to logits of where the answer starts and where it ends. Compile
    it with `loss={"start": ..., "end": ...}`, cross-entropies over positions.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Number of reversible blocks.
        num_heads: int. Attention heads of each block.
        hidden_dim: int. Width of each residual stream.
        intermediate_dim: int. Width inside the feed-forward layers.
        max_sequence_length: int. Greatest length.
        backbone: `ReformerBackbone` to use instead of all other arguments.
        **kwargs: further arguments of `ReformerBackbone`, of which `causal`
            defaults to `False` here, and the base model argument `name`.

    Call arguments:
        inputs: dict of `token_ids`, int `(batch, length)`, and optionally
            `padding_mask`, bool `(batch, length)`; a list of both; or token
            ids alone. `token_embeddings` may stand in the place of
            `token_ids`, see `ReformerBackbone`.

    Returns:
        dict of `start` and `end`, float tensors `(batch, length)`, float32 at
        least. Masked positions have logits as any other.

    Raises:
        ValueError: if both a backbone and its arguments are given.

    Example:

    >>> model = keras_reformer.ReformerQuestionAnswering(
    ...     vocabulary_size=258, num_layers=2, num_heads=2, hidden_dim=32,
    ...     intermediate_dim=64, max_sequence_length=4096,
    ... )
    >>> model(keras.ops.ones((3, 300), dtype="int32"))["start"].shape
    TensorShape([3, 300])

    Reference: [Devlin et al., 2018](https://arxiv.org/abs/1810.04805),
    section 4.2; [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451).
    """

    _backbone_defaults = {"causal": False}
    _answers_rows = True

    def _make_head(self, backbone):
        policy = backbone.dtype_policy
        return {
            "head": keras.layers.Dense(2, dtype=policy, name="head"),
            "start": logits_layer(policy, "start"),
            "end": logits_layer(policy, "end"),
        }

    def _connect(self, head, hidden, **options):
        both = head["head"](hidden)
        return {
            "start": head["start"](both[..., 0]),
            "end": head["end"](both[..., 1]),
        }
