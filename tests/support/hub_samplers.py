"""A sampler that runs the loop itself, as KerasHub's do."""

import keras


class Greedy:
    """As KerasHub's samplers are called."""

    def __call__(
        self,
        next,
        prompt,
        cache=None,
        index=0,
        mask=None,
        stop_token_ids=None,
        hidden_states=None,
        model=None,
    ):
        ops = keras.ops
        self.told = mask, stop_token_ids, hidden_states, model

        def unfinished(prompt, cache, index):
            if stop_token_ids is None:
                return index >= 0
            ended = ops.zeros_like(prompt, "bool")
            for token in stop_token_ids:
                ended = ended | (prompt == token)
            return ~ops.all(ops.any(ended & ~mask, axis=1))

        def step(prompt, cache, index):
            logits, _, cache = next(prompt, cache, index)
            tokens = ops.cast(ops.argmax(logits, axis=-1), "int32")
            tokens = ops.where(mask[:, index], prompt[:, index], tokens)
            prompt = ops.slice_update(prompt, (0, index), tokens[:, None])
            return prompt, cache, index + 1

        return ops.while_loop(
            unfinished,
            step,
            (prompt, cache, index),
            maximum_iterations=ops.shape(prompt)[1] - index,
        )[0]
