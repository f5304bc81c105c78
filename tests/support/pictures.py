"""What a picture must show."""

import numpy as np


def read_pixels(path):
    from matplotlib import image

    return image.imread(path)


def assert_shows_something(path):
    pixels = read_pixels(path)
    assert min(pixels.shape[:2]) > 300
    colors = pixels[..., :3] @ np.array([1, 256, 65_536]) * 255
    assert len(np.unique(colors)) > 20
