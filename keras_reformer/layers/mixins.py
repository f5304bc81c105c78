"""What mixins inherit from: for a type checker what they are mixed into."""

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    LayerMixin = keras.layers.Layer
    ModelMixin = keras.Model
else:
    LayerMixin = ModelMixin = object
