"""Seed states in files."""


class SavesSeeds:
    """Lets a model keep the states of its seed generators in files.

    Keras's own files leave them out, and a model that trains on after loading
    would draw its first dropout masks and rotations again.
    """

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for name, variable in self._seed_states().items():
            store[name] = variable

    def load_own_variables(self, store):
        # Not every store has `items`.
        store = {name: store[name] for name in store.keys()}
        for name, variable in self._seed_states().items():
            if name in store:
                variable.assign(store.pop(name))
        super().load_own_variables(store)

    def _seed_states(self):
        states = [v for v in self.variables if v.name == _STATE]
        return {f"seed_{index}": v for index, v in enumerate(states)}


_STATE = "seed_generator_state"
