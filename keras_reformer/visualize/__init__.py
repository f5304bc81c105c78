"""Pictures of training, of recall and of what LSH attention looks at."""

from keras_reformer.visualize.lsh import plot_lsh
from keras_reformer.visualize.recall import plot_recall
from keras_reformer.visualize.training import plot_training

__all__ = ["plot_lsh", "plot_recall", "plot_training"]
