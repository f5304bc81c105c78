"""Numbers of parameters, from a model's arguments alone."""


def count_parameters(config, head=True):
    """Variables of a backbone, and of a language model's head beside it.

    Args:
        config: a resolved `ReformerConfig`.
        head: bool. Whether a dense layer to the vocabulary is there.
    """
    width = config.hidden_dim * (2 if config.merge == "concat" else 1)
    blocks = sum(block_parameters(config, kind) for kind in kinds(config))
    found = config.vocabulary_size * config.hidden_dim
    found += _positions(config) + blocks + _normalization(config, width)
    return found + (width + 1) * config.vocabulary_size * head


def kinds(config):
    """The attention of each block."""
    cycle = config.attention_layers
    return [cycle[index % len(cycle)] for index in range(config.num_layers)]


def block_parameters(config, kind):
    """Variables of a block with one kind of attention."""
    width, inner = config.hidden_dim, config.num_heads * config.key_dim
    shared = config.num_key_value_heads * config.key_dim
    dense = (2 * width + 1) * config.intermediate_dim + width
    bias = _position_bias(config, kind)
    if kind == "local":
        attention = 2 * width * (inner + shared)
    else:
        size = config.query_key_kernel_size
        attention = width * (2 * inner + shared)
        attention += shared * (size if size > 1 else 0)
        attention += shared * config.center_hashes
    return attention + bias + dense + 2 * _normalization(config, width)


def _normalization(config, width):
    return width * (1 if config.normalization == "rms_norm" else 2)


def _positions(config):
    if config.position_embedding == "learned":
        return config.max_sequence_length * config.hidden_dim
    if config.position_embedding != "axial":
        return 0
    axes = zip(config.axial_shape, config.axial_dims, strict=True)
    return sum(size * width for size, width in axes)


def _position_bias(config, kind):
    if config.position_bias != "relative":
        return 0
    # Buckets of distance, a number for each head.
    heads = config.num_key_value_heads if kind == "lsh" else config.num_heads
    return 32 * heads
