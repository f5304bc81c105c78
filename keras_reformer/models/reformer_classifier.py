import keras

from keras_reformer.layers import Dropout, checks
from keras_reformer.models.task import (
    Task,
    check_sees_both_sides,
    logits_layer,
)


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReformerClassifier(Task):
    """A model of whole sequences: token ids to logits of classes.

    The hidden state of the first token goes through a dense layer with tanh
    and another one to the classes, dropout before each. Compile it with a
    loss on logits, as any Keras classifier.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Number of reversible blocks.
        num_heads: int. Attention heads of each block.
        hidden_dim: int. Width of each residual stream and of the head.
        intermediate_dim: int. Width inside the feed-forward layers.
        max_sequence_length: int. Greatest length.
        backbone: `ReformerBackbone` to use instead of the sizes. It must not
            be causal, or the first token would see nothing but itself.
        num_classes: int. Number of logits.
        head_dropout: float in `[0, 1)`. Defaults to the backbone's `dropout`.
        **kwargs: further arguments of `ReformerBackbone`, of which `causal`
            defaults to `False` here, and the base model argument `name`.

    Call arguments:
        inputs: dict of `token_ids`, int `(batch, length)`, and optionally
            `padding_mask`, bool `(batch, length)`; a list of both; or token
            ids alone. `token_embeddings` may stand in the place of
            `token_ids`, see `ReformerBackbone`.

    Returns:
        Logits, float tensor `(batch, num_classes)`, float32 at least.

    Raises:
        ValueError: if the backbone is causal, or both a backbone and its
            arguments are given.

    Example:

    >>> model = keras_reformer.ReformerClassifier(
    ...     num_classes=2, vocabulary_size=258, num_layers=2, num_heads=2,
    ...     hidden_dim=32, intermediate_dim=64, max_sequence_length=4096,
    ... )
    >>> model(keras.ops.ones((3, 300), dtype="int32")).shape
    TensorShape([3, 2])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451); the
    head is that of Hugging Face's `ReformerForSequenceClassification`.
    """

    _head_defaults = {"num_classes": None, "head_dropout": None}
    _backbone_defaults = {"causal": False}
    _answers_rows = True

    def _check_backbone(self, backbone):
        check_sees_both_sides(
            backbone,
            "A classifier reads the first token's state, which sees only "
            "itself in a causal backbone.",
        )

    def _make_head(self, backbone, num_classes, head_dropout):
        checks.positive_int("num_classes", num_classes)
        config, policy = backbone.get_config(), backbone.dtype_policy
        if head_dropout is None:
            head_dropout = config["dropout"]
        rate = checks.rate("head_dropout", head_dropout)
        return {
            "pooler_dropout": Dropout(rate, dtype=policy, name="pooler_drop"),
            "pooler": keras.layers.Dense(
                config["hidden_dim"], "tanh", dtype=policy, name="pooler"
            ),
            "head_dropout": Dropout(rate, dtype=policy, name="head_drop"),
            "head": keras.layers.Dense(num_classes, dtype=policy, name="head"),
            "logits": logits_layer(policy),
        }

    def _connect(self, head, hidden, **options):
        x = head["pooler_dropout"](hidden[:, 0], **options)
        x = head["head_dropout"](head["pooler"](x), **options)
        return head["logits"](head["head"](x))
