import keras
import numpy as np

from keras_reformer import generation
from keras_reformer.models.language_model import LanguageModel


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReformerCausalLM(LanguageModel):
    """A language model: token ids to logits of each next token.

    Compiled without a loss it trains on cross-entropy with integer labels,
    with the logits of at most a few million elements at a time. `fit(x, y)`
    takes the labels given; `fit(x)` takes the inputs shifted by one.

    `keras.models.clone_model` returns a plain Functional model; copy one with
    `from_config(model.get_config())`, which keeps the class.

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
        **kwargs: further arguments of `ReformerBackbone`, and the base model
            argument `name`.

    Call arguments:
        inputs: dict of `token_ids`, int `(batch, length)`, and optionally
            `padding_mask`, bool `(batch, length)`; or token ids alone.

    Returns:
        Logits, float tensor `(batch, length, vocabulary_size)`, float32 at
        least.

    Raises:
        ValueError: if the backbone is not causal, or both a backbone and its
            arguments are given.

    Example:

    >>> model = keras_reformer.ReformerCausalLM(
    ...     vocabulary_size=258, num_layers=2, num_heads=2, hidden_dim=32,
    ...     intermediate_dim=64, max_sequence_length=4096,
    ... )
    >>> model(keras.ops.ones((1, 300), dtype="int32")).shape
    TensorShape([1, 300, 258])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451).
    """

    def _check_backbone(self, backbone):
        if not backbone.get_config()["causal"]:
            raise ValueError(
                "A causal language model needs a causal backbone, or tokens "
                "see what they are to predict. Expected causal=True. "
                "Received: causal=False"
            )

    def generate(
        self,
        prompts,
        max_length,
        sampler="top_p",
        seed=None,
        stop_token_ids=None,
    ):
        """Continues prompts, token by token.

        Args:
            prompts: list of lists of token ids, or an int array `(batch,
                length)`.
            max_length: int. Length of the results, prompt included.
            sampler: `"greedy"`, `"random"`, `"top_k"`, `"top_p"` or a
                `Sampler`. Defaults to `"top_p"`.
            seed: int. The same seed gives the same text; None draws a new
                one. Defaults to `None`.
            stop_token_ids: ids that end a text, which they stay part of.
                Defaults to `None`, which goes on to `max_length`.

        Returns:
            List of int32 arrays, prompt included.

        Raises:
            ValueError: if a prompt is empty, too long, or holds ids outside
                the vocabulary, or if `max_length` exceeds the model's.
        """
        return generation.generate(
            self._next_logits,
            prompts,
            max_length,
            vocabulary_size=self.backbone.vocabulary_size,
            max_sequence_length=self.backbone.max_sequence_length,
            sampler=sampler,
            seed=seed,
            stop_token_ids=stop_token_ids,
        )

    def _next_logits(self, token_ids, lengths):
        """Logits that follow the first `lengths` tokens of each row."""
        mask = np.arange(token_ids.shape[1]) < lengths[:, None]
        logits = self.predict_on_batch(
            {"token_ids": token_ids, "padding_mask": mask}
        )
        return logits[range(len(lengths)), lengths - 1]
