import keras

from keras_reformer.models.language_model import LanguageModel
from keras_reformer.models.task import check_sees_both_sides


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReformerMaskedLM(LanguageModel):
    """A model of hidden tokens: token ids to logits of the token at each place.

    For texts in which some tokens are replaced, to be predicted from both
    sides. Compiled without a loss it trains on cross-entropy with integer
    labels, computed in chunks: `fit(x, y, sample_weight)` takes the original
    ids as `y` and weights `(batch, length)` that are zero where nothing was
    replaced, or labels of -100 there. Weights, and ids outside of the
    vocabulary, are treated as in `ReformerCausalLM`.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Number of reversible blocks.
        num_heads: int. Attention heads of each block.
        hidden_dim: int. Width of each residual stream.
        intermediate_dim: int. Width inside the feed-forward layers.
        max_sequence_length: int. Greatest length.
        backbone: `ReformerBackbone` to use instead of its arguments.
        tie_embeddings: bool. The logits' kernel is the table of token
            embeddings, for backbones with `merge="mean"`. Defaults to
            `False`.
        **kwargs: further arguments of `ReformerBackbone`, of which `causal`
            defaults to `False` here, and the base model argument `name`.

    Call arguments:
        inputs: dict of `token_ids`, int `(batch, length)`, and optionally
            `padding_mask`, bool `(batch, length)`, and `segment_ids`, int
            `(batch, length)`, of documents packed into rows; a list of ids
            and mask; or token ids alone. `token_embeddings` may stand in the
            place of `token_ids`, see `ReformerBackbone`.

    Returns:
        Logits, float tensor `(batch, length, vocabulary_size)`, float32 at
        least.

    Raises:
        ValueError: if the backbone is causal, or both a backbone and its
            arguments are given.

    Example:

    >>> model = keras_reformer.ReformerMaskedLM(
    ...     vocabulary_size=258, num_layers=2, num_heads=2, hidden_dim=32,
    ...     intermediate_dim=64, max_sequence_length=4096,
    ... )
    >>> model(keras.ops.ones((1, 300), dtype="int32")).shape
    TensorShape([1, 300, 258])

    Reference: [Devlin et al., 2018](https://arxiv.org/abs/1810.04805),
    section 3.1; [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451).
    """

    _backbone_defaults = {"causal": False}

    def _check_backbone(self, backbone):
        check_sees_both_sides(
            backbone, "A masked language model sees both sides of a token."
        )

    def _targets(self, inputs, labels, weights):
        if labels is None:
            raise ValueError(
                "A masked language model needs labels. Expected `fit(x, y, "
                "sample_weight)` with the original token ids as `y`. "
                "Received: y=None"
            )
        return super()._targets(inputs, labels, weights)
