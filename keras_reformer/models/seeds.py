"""States of seed generators in files."""

from keras_reformer.layers.mixins import ModelMixin


class SavesSeeds(ModelMixin):
    """Saves the states of a model's seed generators with its weights.

    Keras leaves them out, so a model that goes on training after loading
    would draw its first dropout masks and rotations once more.
    """

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for name, variable in self._seed_states().items():
            store[name] = variable

    def load_own_variables(self, store):
        # H5 stores have `keys` and no `items`.
        store = {name: store[name] for name in store.keys()}
        for name, variable in self._seed_states().items():
            if name in store:
                variable.assign(store.pop(name))
        super().load_own_variables(store)

    def _seed_states(self):
        states = [v for v in self.variables if v.name == _STATE]
        return {f"seed_{index}": v for index, v in enumerate(states)}


_STATE = "seed_generator_state"
