"""Models that decode texts from a cache."""

import functools

import keras

from keras_reformer import generation
from keras_reformer.layers import LSHSelfAttention
from keras_reformer.layers.mixins import ModelMixin


class DecodesTexts(ModelMixin):
    """What a language model's `generate` and `stream` run.

    Its `backbone` has `prefill`, `decode` and `decode_constants`; its `head`
    makes logits.
    """

    def decoder(self):
        """The model as functions that `keras_reformer.generation` calls."""
        return generation.Decoder(
            self.backbone.prefill,
            self.backbone.decode_constants,
            self._decode,
            self.backbone.vocabulary_size,
            self.backbone.max_sequence_length,
            padding_matters=any(
                layer.scope == "chunk" or layer.exact_below
                for layer in self.hashing_layers()
            ),
        )

    def hashing_layers(self):
        """The `LSHSelfAttention` layers of all blocks."""
        blocks = self.backbone.sequence.blocks
        layers = [block.attention.layer for block in blocks]
        return [x for x in layers if isinstance(x, LSHSelfAttention)]

    def _request(self, prompts, padding_id):
        """Prompts, and the source, of what `generate` takes first."""
        return prompts, generation.NO_SOURCE

    def _run(self, run, prompts, max_length, settings, padding_id, **options):
        """What `generate` and `stream` return.

        Args:
            run: `generation.generate` or `generation.stream`.
            prompts: what the model's method takes first.
            max_length: int.
            settings: tuple of sampler, stop tokens and `jit_compile`.
            padding_id: int or None.
            **options: further arguments of `run`.
        """
        prompts, source = self._request(prompts, padding_id)
        return run(
            self._loop(*settings),
            prompts,
            max_length,
            padding_id=padding_id,
            source=source,
            **options,
        )

    def _decode(self, *arguments):
        hidden, cache = self.backbone.decode(*arguments)
        logits = keras.ops.cast(self.head(hidden)[:, 0], "float32")
        return logits, hidden[:, 0], cache

    def _loop(self, sampler, stop_token_ids, jit_compile):
        """The decoding loop for these settings, traced once."""
        sampler = generation.get_sampler(sampler)
        stops = generation.stop_ids(stop_token_ids)
        options = [*generation.settings_of(sampler), stops, jit_compile]
        loop = self._loops.get(
            self.trace_version,
            options,
            lambda: self._make_loop(sampler, stops, jit_compile),
        )
        # The cached loop may hold an equal sampler that was changed since.
        loop.sampler = sampler
        return loop

    def _make_loop(self, sampler, stops, jit_compile):
        if isinstance(sampler, generation.Sampler):
            return generation.Loop(self.decoder(), sampler, stops, jit_compile)
        return generation.HubLoop(
            self.decoder(), sampler, stops, jit_compile, model=self
        )

    @functools.cached_property
    def _loops(self):
        return generation.TraceCache()
