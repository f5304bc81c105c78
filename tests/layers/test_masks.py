import keras
import numpy as np

from keras_reformer.layers import LocalSelfAttention


def test_sums_of_symbolic_tensors_keep_masks_only_as_a_layer():
    """`x + y` is Keras's, and drops them."""
    ids = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(5, 4, mask_zero=True)
    x, y = embedding(ids), embedding(ids)
    attention = LocalSelfAttention(num_heads=1, key_dim=4, chunk_length=8)
    lost, kept = (
        keras.Model(ids, attention(total))
        for total in (x + y, keras.layers.Add()([x, y]))
    )
    tokens = np.array([[1, 2, 3, 0, 0]])
    mask = tokens > 0
    doubled = 2 * np.asarray(embedding(tokens))
    np.testing.assert_allclose(
        kept(tokens), attention(doubled, mask=mask), atol=1e-6
    )
    np.testing.assert_allclose(lost(tokens), attention(doubled), atol=1e-6)
    assert not np.allclose(lost(tokens), kept(tokens), atol=1e-3)
