"""An engine that runs a model's steps on jax's devices."""

import importlib

MIN_JAX = (0, 7, 2)
# How jax names the platforms that `ops.tracing` knows.
_PLATFORMS = {"cuda": "gpu", "rocm": "gpu"}


class JaxEngine:
    """Trains, evaluates and predicts on all devices that jax has.

    TensorFlow traces the steps, jax runs them: on TPUs that TensorFlow has no
    build for, on GPUs, on several of them, and on several hosts. `fit` and its
    callbacks stay Keras's. Every device has the weights and computes a part
    of each batch, and what comes out is what one device makes of the whole
    batch; only dropout masks and running means of other layers than this
    library's differ.

    Weights live on the devices during an epoch. The model's variables get
    them back at its end, before they are saved, and after each batch if a
    callback of yours looks at batches.

    After `keras_reformer.distribute.initialize()` on each host, each host's
    `fit` takes the host's own rows of every batch.

    Args:
        devices: list of `jax.Device`, or None for all. Defaults to `None`.

    Raises:
        ImportError: if there is no jax, or one older than 0.7.2.
        ValueError: if `devices` is empty or on several platforms.

    Example:

    >>> engine = keras_reformer.distribute.JaxEngine()
    >>> model = keras_reformer.ReformerCausalLM(
    ...     vocabulary_size=258, num_layers=1, num_heads=2, hidden_dim=32,
    ...     intermediate_dim=64, max_sequence_length=64, chunk_length=16,
    ... )
    >>> model.compile("adam", engine=engine)
    """

    def __init__(self, devices=None):
        jax = import_jax()
        self.devices = list(jax.devices() if devices is None else devices)
        platforms = {device.platform for device in self.devices}
        if len(platforms) != 1:
            raise ValueError(
                "An engine runs one program on all its devices. Expected "
                "devices of one platform, at least one. Received: "
                f"devices={self.devices}"
            )
        platform = platforms.pop()
        self.platform = _PLATFORMS.get(platform, platform)
        self.mesh = jax.sharding.Mesh(self.devices, ("batch",))

    @property
    def num_devices(self):
        """The number of devices, of all hosts."""
        return len(self.devices)

    def runner(self, model):
        """What runs a compiled model's steps; models call this.

        Args:
            model: a compiled model of this library.
        """
        # Not before there is jax.
        from keras_reformer.distribute.runner import Runner

        return Runner(model, self)

    def __repr__(self):
        return f"JaxEngine({self.num_devices} x {self.platform})"


def import_jax():
    """The module `jax`, or an `ImportError` that says how to install it."""
    needed = ".".join(map(str, MIN_JAX))
    how = (
        f"JaxEngine needs jax {needed} or newer: pip install "
        '"keras-reformer[jax]", for a TPU "keras-reformer[jax-tpu]"'
    )
    try:
        jax = importlib.import_module("jax")
    except ModuleNotFoundError as error:
        raise ImportError(f"{how}. There is no jax here.") from error
    if jax.__version_info__ < MIN_JAX:
        raise ImportError(f"{how}. Found: jax {jax.__version__}")
    return jax
