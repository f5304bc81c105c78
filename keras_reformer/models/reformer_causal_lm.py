import keras

from keras_reformer import generation
from keras_reformer.models.language_model import LanguageModel
from keras_reformer.models.text_generation import DecodesTexts


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReformerCausalLM(DecodesTexts, LanguageModel):
    """A language model: token ids to logits of each next token.

    Compiled without a loss it trains on cross-entropy with integer labels,
    with the logits of at most a few million elements at a time. `fit(x, y)`
    takes the labels given; `fit(x)` takes the inputs shifted by one, where the
    last token of each document has no label.

    Negative labels, such as -100, have weight zero, as masked tokens have.
    `sample_weight` has shape `(batch, length)` or `(batch,)`, and
    `class_weight` counts for each label. Under a strategy the loss is the
    mean over the tokens of all replicas. Labels of `vocabulary_size` or more,
    and valid token ids outside `[0, vocabulary_size)`, are errors; in a
    function that XLA compiles, such a label has weight zero and such an id is
    read as 0. Masked positions may hold anything.

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
            `padding_mask`, bool `(batch, length)`, and `segment_ids`, int
            `(batch, length)`, of documents packed into rows; a list of ids
            and mask; or token ids alone. `token_embeddings` may stand in the
            place of `token_ids`, see `ReformerBackbone`.

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
        jit_compile=False,
        verbose="auto",
        padding_id=None,
    ):
        """Continues prompts, token by token, from a cache.

        With `scope="bucket"` each token's logits are those of the full pass;
        `docs/decisions.md` says how far that goes for `scope="chunk"`.

        Args:
            prompts: list of lists of token ids, int array or tensor `(batch,
                length)`, ragged tensor, or dict of `token_ids` and
                `padding_mask`, which is True at valid tokens and may leave
                out any number at either end of a row. Rows may differ in
                length. With `segment_ids` in the dict a row's prompt is its
                last document, that of its last valid token, and nothing else
                of the row is in the result.
            max_length: int. Length of the results, prompt included.
            sampler: `"greedy"`, `"random"`, `"top_k"`, `"top_p"`, `"beam"`, a
                `keras_reformer.generation.Sampler`, or one of KerasHub's,
                which draws from a seed of its own. Defaults to `"top_p"`.
            seed: int. The same seed gives the same text; None draws a new
                one. Defaults to `None`.
            stop_token_ids: ids that end a text, which they stay part of.
                Defaults to `None`, which goes on to `max_length`.
            jit_compile: bool. Whether XLA compiles the loop, for each size
                of batch and cache. Defaults to `False`.
            verbose: bool or `"auto"`, which shows a progress bar where there
                is much to do. Defaults to `"auto"`.
            padding_id: int. Token that is padding, and no text, at both ends
                of each prompt, for batches without a mask. Defaults to
                `None`: every token is text, also zeros in front.

        Returns:
            List of int32 arrays, prompt included, without padding.

        Raises:
            ValueError: if prompts are no token ids, one is empty, too long,
                or holds ids outside the vocabulary, if `segment_ids` decrease
                or a document is in several pieces, or if `max_length` exceeds
                the model's.
        """
        return self._run(
            generation.generate,
            prompts,
            max_length,
            (sampler, stop_token_ids, jit_compile),
            padding_id,
            seed=seed,
            verbose=verbose,
        )

    def stream(
        self,
        prompts,
        max_length,
        sampler="top_p",
        seed=None,
        stop_token_ids=None,
        jit_compile=False,
        padding_id=None,
    ):
        """Yields the text that `generate` returns, as it comes.

        Args:
            prompts: as in `generate`.
            max_length: as in `generate`.
            sampler: as in `generate`, but for beams and KerasHub's.
            seed: as in `generate`.
            stop_token_ids: as in `generate`.
            jit_compile: as in `generate`.
            padding_id: as in `generate`.

        Yields:
            A list of int32 arrays: the new tokens of each row, prompts not
            included; empty for rows that have ended.
        """
        return self._run(
            generation.stream,
            prompts,
            max_length,
            (sampler, stop_token_ids, jit_compile),
            padding_id,
            seed=seed,
        )
