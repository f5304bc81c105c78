"""Builders of data sets in the layout of tensorflow-datasets.

`keras_reformer.data` registers them where it uses that library (extra `tfds`);
elsewhere, importing a builder's module makes `tfds.load` know its name.
"""
