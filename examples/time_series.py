"""Forecasts a real-valued series from hundreds of measured values.

    python examples/time_series.py [--steps 300]

A plain Functional model of the layers, without tokens: at each hour it predicts
the next day of an hourly series, from up to eight weeks. The series is made up
of days and weeks that change with the season, and of weather that lasts. Beside
the model stand the same hours of the day and of the week before.
"""

import argparse

import keras
import numpy as np
from matplotlib.figure import Figure

import keras_reformer

DAY, WEEK, WIDTH = 24, 168, 48


def draw_series(hours, rng):
    """float32 vector of hourly values, of mean 0 and deviation 1."""
    hour = np.arange(hours)
    year = np.sin(2 * np.pi * hour / (365 * DAY))
    daily = (1 + 0.5 * year) * np.sin(2 * np.pi * (hour - 7) / DAY)
    weekly = np.where(hour // DAY % 7 < 5, 0.5, -0.8)
    weather = rng.normal(scale=0.1, size=hours)
    for now in range(1, hours):
        weather[now] += 0.98 * weather[now - 1]
    series = daily + weekly + weather
    return ((series - series.mean()) / series.std()).astype("float32")


def windows(series, starts, length):
    """Values `(count, length, 1)`, the next days `(count, length, DAY)`."""
    places = np.asarray(starts)[:, None] + np.arange(length)
    days = series[places[..., None] + np.arange(1, DAY + 1)]
    return series[places, None], days


def make_model(length):
    """Values and hours of the week, three reversible blocks, a next day."""
    values = keras.Input((length, 1))
    x = keras.layers.Conv1D(WIDTH, 8, padding="causal")(values)
    positions = keras_reformer.AxialPositionEmbedding(
        (-(-length // WEEK), 7, DAY), (WIDTH // 3,) * 3
    )
    x = keras.layers.Add()([x, positions(x)])
    sizes = {"num_heads": 2, "key_dim": WIDTH // 2, "chunk_length": 48}
    attention = [
        keras_reformer.LocalSelfAttention(causal=True, **sizes),
        keras_reformer.LSHSelfAttention(causal=True, num_buckets=32, **sizes),
        keras_reformer.LSHSelfAttention(causal=True, num_buckets=32, **sizes),
    ]
    blocks = [
        keras_reformer.ReversibleBlock(
            keras_reformer.PreNormalization(layer),
            keras_reformer.PreNormalization(
                keras_reformer.FeedForward(2 * WIDTH)
            ),
        )
        for layer in attention
    ]
    x = keras_reformer.ReversibleSequence(blocks, merge="mean")(x)
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(values, keras.layers.Dense(DAY)(x))


def save_picture(path, series, hours, found, truth):
    """The first held-out week and what was found for it, with errors of all."""
    axis = Figure(figsize=(9, 3.5), layout="constrained").subplots()
    shown = np.arange(hours[0].min() - WEEK, hours[0].max() + 1)
    axis.plot(shown / DAY, series[shown], color="grey", label="measured")
    for name, each in found.items():
        label = f"{name}, error {np.abs(each - truth).mean():.2f}"
        print(label)
        axis.plot(hours[0].ravel() / DAY, each[0].ravel(), label=label)
    axis.set(xlabel="day", title="An hourly series, a day ahead")
    axis.legend(frameon=False, loc="upper center", ncols=4, fontsize=8)
    axis.set_ylim(top=axis.get_ylim()[1] + 0.6)
    axis.figure.savefig(path, dpi=130)
    print(f"picture: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--length", type=int, default=8 * WEEK)
    parser.add_argument("--picture", default="forecast.png")
    options = parser.parse_args()
    rng, length = np.random.default_rng(0), options.length
    keras.utils.set_random_seed(0)
    series = draw_series(4 * 365 * DAY, rng)
    # The last of four years is held out. Windows begin with a week, so that
    # positions are hours of the week.
    border, end = len(series) * 3 // 4 // WEEK * WEEK, len(series) - length
    starts = rng.choice(range(0, border - length, WEEK), size=4 * options.steps)
    held_out = np.arange(border, end - DAY, WEEK)
    model = make_model(length)
    rate = keras.optimizers.schedules.CosineDecay(4e-3, options.steps)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), "mse")
    model.fit(*windows(series, starts, length), batch_size=4)
    # At the ends of seven days, which have most of the weeks behind them.
    values, days = windows(series, held_out, length)
    ends = length - 1 - DAY * np.arange(7)[::-1]
    hours = held_out[:, None, None] + ends[:, None] + np.arange(1, DAY + 1)
    found = {
        "forecast": model.predict(values, batch_size=4)[:, ends],
        "a day before": series[hours - DAY],
        "a week before": series[hours - WEEK],
    }
    save_picture(options.picture, series, hours, found, days[:, ends])


if __name__ == "__main__":
    main()
