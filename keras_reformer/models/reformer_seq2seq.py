import keras

from keras_reformer import generation
from keras_reformer.models.language_model import LanguageModel
from keras_reformer.models.pair_inputs import (
    NAMES,
    SIDES,
    PairInputs,
    side_of,
)
from keras_reformer.models.reformer_seq2seq_backbone import (
    ReformerSeq2SeqBackbone,
)
from keras_reformer.models.text_generation import DecodesTexts


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReformerSeq2Seq(PairInputs, DecodesTexts, LanguageModel):
    """An encoder-decoder: a source and a text to logits of each next token.

    For translations, summaries and whatever else turns one sequence into
    another. Inputs have the names that KerasHub's encoder-decoder models
    give them.

    Compiled without a loss it trains with teacher forcing on cross-entropy
    with integer labels, with the logits of at most a few million elements at
    a time. `fit(x, y)` takes the labels given, one for each of the decoder's
    tokens: the token that follows it. `fit(x)` takes the decoder's tokens
    shifted by one, so that a start token in front and an end token behind
    are all that a target needs. Weights, negative labels, and ids outside of
    the vocabulary are treated as in `ReformerCausalLM`.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Number of reversible blocks of the decoder, and of
            the encoder.
        num_heads: int. Attention heads of each block.
        hidden_dim: int. Width of each residual stream.
        intermediate_dim: int. Width inside the feed-forward layers.
        max_sequence_length: int. Greatest length of either sequence.
        backbone: `ReformerSeq2SeqBackbone` to use instead of its arguments.
        tie_embeddings: bool. The logits' kernel is the decoder's table of
            token embeddings, for backbones with `merge="mean"`. Defaults to
            `False`.
        **kwargs: further arguments of `ReformerSeq2SeqBackbone`, such as
            `encoder` and `dropout`, and the base model argument `name`.

    Call arguments:
        inputs: dict of `encoder_token_ids` and `decoder_token_ids`, int
            `(batch, length)` of each one's own length, and optionally
            `encoder_padding_mask` and `decoder_padding_mask`, bool of the
            same shapes, True at valid tokens.

    Returns:
        Logits, float tensor `(batch, decoder's length, vocabulary_size)`,
        float32 at least.

    Raises:
        ValueError: if inputs lack one of both sequences, or one is empty or
            longer than the model was made for.

    Example:

    >>> model = keras_reformer.ReformerSeq2Seq(
    ...     vocabulary_size=258, num_layers=2, num_heads=2, hidden_dim=32,
    ...     intermediate_dim=64, max_sequence_length=4096,
    ... )
    >>> inputs = {
    ...     "encoder_token_ids": np.ones((1, 300), "int32"),
    ...     "decoder_token_ids": np.ones((1, 20), "int32"),
    ... }
    >>> model(inputs).shape
    TensorShape([1, 20, 258])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451),
    section 4.1; [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762).
    """

    _backbone_class = ReformerSeq2SeqBackbone

    def _targets(self, inputs, labels, weights):
        return super()._targets(side_of(inputs, "decoder"), labels, weights)

    def generate(
        self,
        inputs,
        max_length,
        sampler="top_p",
        seed=None,
        stop_token_ids=None,
        jit_compile=False,
        verbose="auto",
        padding_id=None,
    ):
        """Decodes a text for each source, token by token, from a cache.

        With `scope="bucket"` each token's logits are those of the full pass.

        Args:
            inputs: dict of `encoder_token_ids`, the sources, and
                `decoder_token_ids`, the beginnings of the texts: a start
                token at least. Each is a list of lists of token ids, an int
                array or tensor `(batch, length)`, or a ragged tensor. Arrays
                may have masks, `encoder_padding_mask` and
                `decoder_padding_mask`.
            max_length: int. Length of the results, beginning included.
            sampler: as in `ReformerCausalLM.generate`.
            seed: as in `ReformerCausalLM.generate`.
            stop_token_ids: ids that end a text, which they stay part of.
                Defaults to `None`, which goes on to `max_length`.
            jit_compile: bool. Whether XLA compiles the loop, for each size
                of batch, source and cache. Defaults to `False`.
            verbose: bool or `"auto"`, which shows a progress bar where there
                is much to do. Defaults to `"auto"`.
            padding_id: int. Token that is padding at both ends of sources and
                beginnings, where they have no mask. Defaults to `None`.

        Returns:
            List of int32 arrays, beginning included, without padding.

        Raises:
            ValueError: if one of both is missing, or a row is empty, too long
                or holds ids outside of the vocabulary.
        """
        return self._run(
            generation.generate,
            inputs,
            max_length,
            (sampler, stop_token_ids, jit_compile),
            padding_id,
            seed=seed,
            verbose=verbose,
        )

    def stream(
        self,
        inputs,
        max_length,
        sampler="top_p",
        seed=None,
        stop_token_ids=None,
        jit_compile=False,
        padding_id=None,
    ):
        """Yields the text that `generate` returns, as it comes.

        Args:
            inputs: as in `generate`.
            max_length: as in `generate`.
            sampler: as in `generate`, but for beams and KerasHub's.
            seed: as in `generate`.
            stop_token_ids: as in `generate`.
            jit_compile: as in `generate`.
            padding_id: as in `generate`.

        Yields:
            A list of int32 arrays: the new tokens of each row, beginnings not
            included; empty for rows that have ended.
        """
        return self._run(
            generation.stream,
            inputs,
            max_length,
            (sampler, stop_token_ids, jit_compile),
            padding_id,
            seed=seed,
        )

    def hashing_layers(self):
        encoder = self.backbone.encoder.lsh_layers().values()
        return [*encoder, *super().hashing_layers()]

    def _request(self, inputs, padding_id):
        sources, prompts = (_rows_of(inputs, side) for side in SIDES)
        encoder = self.backbone.encoder
        source = generation.Source(
            sources,
            encoder.max_sequence_length,
            encoder.vocabulary_size,
            padding_id,
        )
        return prompts, source


def _rows_of(inputs, side):
    """One side's rows, as `ReformerCausalLM.generate` takes prompts."""
    names = {f"{each}_token_ids" for each in SIDES}
    keys = set(inputs) if isinstance(inputs, dict) else set()
    if not names <= keys <= set(NAMES):
        received = sorted(keys) if keys else type(inputs).__name__
        raise ValueError(
            "A text needs a source and a beginning. Expected a dict of "
            "`encoder_token_ids` and `decoder_token_ids`, a start token at "
            f"least, perhaps with their masks. Received: inputs={received}"
        )
    rows = {"token_ids": inputs[f"{side}_token_ids"]}
    mask = inputs.get(f"{side}_padding_mask")
    return rows if mask is None else {**rows, "padding_mask": mask}
