"""`keras-reformer plan`: will a train step fit, and what makes it smaller?"""

from keras_reformer.planning import plan_training

MIB = 2**20
GIB = 2**30


def run(**options):
    """Prints a plan.

    Args:
        **options: what `plan_training` takes.

    Returns:
        int. 0 if the step fits the device, else 1.
    """
    name = options["device"]
    plan = plan_training(**options)
    print("\n".join(_table(plan)))
    print("\n".join(_verdict(plan, name)))
    return 0 if plan.fits else 1


def _table(plan):
    yield f"{plan.parameters:,} parameters"
    yield ""
    for part in plan.parts:
        yield f"{part.name:12}{part.size / MIB:12,.0f} MiB   {part.formula}"
    yield f"{'at the peak':12}{plan.total / MIB:12,.0f} MiB"
    yield ""


def _verdict(plan, name):
    size, memory = plan.total / GIB, plan.device.memory / GIB
    if plan.device.platform == "gpu":
        yield "No GPU was measured: these are estimates from other devices."
    if plan.fits:
        yield f"Fits: {size:.1f} of {memory:.0f} GiB of {name}."
        return
    yield f"Does not fit: {size:.1f} of {memory:.0f} GiB of {name}. Instead:"
    for change, smaller in plan.advice:
        fits = "fits" if smaller <= plan.device.memory else "does not fit yet"
        yield f"  {change}: {smaller / GIB:.1f} GiB, {fits}"
