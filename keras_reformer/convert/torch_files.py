"""PyTorch's checkpoint files as NumPy arrays, without PyTorch.

Since version 1.6 a file is a zip archive of a pickle and one member for each
storage; before, several pickles and the storages' bytes one after the other.
"""

import collections
import io
import os
import zipfile

import ml_dtypes
import numpy as np

from keras_reformer.convert.restricted_pickle import RestrictedUnpickler
from keras_reformer.files import reading

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def read_torch_file(path):
    """A file's state dict.

    Args:
        path: path of a `.bin` or `.pt` file.

    Returns:
        dict of arrays.

    Raises:
        ValueError: if the file is damaged, or holds anything but arrays and
            containers.
    """
    with reading(path, "a state dict of PyTorch"), open(path, "rb") as file:
        read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
        file.seek(0)
        state = dict(read(file))
        for name, array in state.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name!r} is a {type(array).__name__}")
        return state


def _read_zip(file):
    with zipfile.ZipFile(file) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        folder = name.removesuffix("data.pkl")
        arrays = {}

        def load_storage(pid):
            _, dtype, key, _, _ = pid
            if key not in arrays:
                data = archive.read(f"{folder}data/{key}")
                arrays[key] = np.frombuffer(data, dtype)
            return arrays[key]

        # Read whole, a member's checksum is compared.
        pickled = io.BytesIO(archive.read(name))
        return RestrictedUnpickler(pickled, _ALLOWED, load_storage).load()


def _read_legacy(file):
    arrays = {}

    def load_storage(pid):
        # The bytes come last; until then the tensors are views of nothing.
        _, dtype, key, _, size, view = pid
        if view is not None:
            raise ValueError(
                "Views of storages are not supported. Expected a state dict. "
                f"Received: {view!r}"
            )
        if size * np.dtype(dtype).itemsize > os.fstat(file.fileno()).st_size:
            raise EOFError(f"storage {key} is larger than the file")
        return arrays.setdefault(key, np.empty(size, dtype))

    def load():
        return RestrictedUnpickler(file, _ALLOWED, load_storage).load()

    if load() != _MAGIC:
        raise ValueError("This is no PyTorch checkpoint: no magic number")
    load()  # The protocol's version.
    load()  # The machine's word sizes.
    state = load()
    keys = load()
    if set(keys) != set(arrays):
        raise ValueError("The storages are not those of the tensors")
    for key in keys:
        (size,) = np.fromfile(file, np.int64, 1)
        array = arrays[key]
        values = np.fromfile(file, array.dtype, len(array))
        # A single value would be spread over the others.
        if not size == len(values) == len(array):
            raise EOFError(f"storage {key} is not whole")
        array[:] = values
    return state


def _tensor(storage, offset, size, stride, *_):
    """A tensor as a view of its storage; strides count elements."""
    last = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return storage[:0].reshape(size)
    # What lies outside is other memory of this process.
    if min(offset, *size, *stride, 0) < 0 or offset + last >= len(storage):
        raise ValueError(
            "A tensor reaches beyond its storage. Expected a state dict. "
            f"Received: offset={offset}, size={size}, stride={stride}, "
            f"storage of {len(storage)} elements"
        )
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides)


def _parameter(data, *_):
    return data


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}
