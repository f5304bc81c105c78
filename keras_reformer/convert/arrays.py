"""Whether arrays are those that a model has places for."""


def check_arrays(expected, given, summary):
    """Raises unless each array has its place and each place its array.

    Args:
        expected: dict, by name the shapes that an array may have; errors
            show the first.
        given: mapping of names to arrays.
        summary: str. The error's first sentence.

    Raises:
        ValueError: that lists all arrays at fault, and their shapes.
    """
    others = {
        name: array.dtype.name
        for name, array in given.items()
        if array.dtype.kind in "OSU"
    }
    given = {name: tuple(array.shape) for name, array in given.items()}
    faults = {
        "missing": {n: s[0] for n, s in expected.items() if n not in given},
        "left over": {n: s for n, s in given.items() if n not in expected},
        "of another shape": {
            n: f"{given[n]} instead of {s[0]}"
            for n, s in expected.items()
            if n in given and given[n] not in s
        },
        "no numbers": others,
    }
    found = [
        f"{what}: " + ", ".join(f"{name} {shape}" for name, shape in of.items())
        for what, of in faults.items()
        if of
    ]
    if found:
        raise ValueError(
            f"{summary} Expected each of the model's arrays once. Received: "
            + "; ".join(found)
        )
