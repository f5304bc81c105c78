"""Runs a SavedModel in a C program, through TensorFlow's C API."""

import os
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from typing import BinaryIO, cast

import numpy as np
import tensorflow as tf

from keras_reformer.export.check.signatures import Signature, read_signatures

_SOURCE = os.path.join(os.path.dirname(__file__), "saved_model_runner.c")
_LIBRARY = "libtensorflow_cc.so.2"

Arrays = Mapping[str, np.ndarray]


class RequestError(Exception):
    """A request that the model rejected.

    Attributes:
        code: int. The status code of `TF_Code` and gRPC.
    """

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def missing() -> str | None:
    """Says why the C program cannot be built, or returns None."""
    if _compiler() is None:
        return "no C compiler"
    if not os.path.exists(os.path.join(tf.sysconfig.get_lib(), _LIBRARY)):
        return f"TensorFlow came without {_LIBRARY}"
    return None


def build(folder: str) -> str:
    """Compiles the C program and links it with TensorFlow's library.

    Args:
        folder: str. Where to put the program.

    Returns:
        str. The program.

    Raises:
        RuntimeError: if the compiler fails.
    """
    program = os.path.join(folder, "saved_model_runner")
    library = tf.sysconfig.get_lib()
    process = subprocess.run(
        [_compiler(), "-O1", "-Wall", f"-I{tf.sysconfig.get_include()}"]
        + [_SOURCE, f"-L{library}", f"-l:{_LIBRARY}"]
        + ["-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{library}"]
        + ["-o", program],
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise RuntimeError(f"The C program fails to build:\n{process.stderr}")
    return program


class Runner:
    """The C program with a SavedModel loaded, as a child process.

    Args:
        program: str. What `build` returned.
        path: str. The folder of the SavedModel.
    """

    def __init__(self, program: str, path: str):
        self.signatures = read_signatures(path)
        self._log = tempfile.TemporaryFile()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [program, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ},
        )
        self._requests = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._requests.close()
        self._process.wait()
        self._answers.close()
        self._log.close()

    def run(self, name: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs a signature; only one thread at a time.

        Raises:
            RequestError: if the model rejects the request.
            RuntimeError: if the process has ended.
        """
        signature = self.signatures[name]
        with self._lock:
            try:
                write_request(self._requests, signature, inputs)
                self._requests.flush()
                return read_answer(self._answers, signature)
            except (BrokenPipeError, EOFError) as error:
                self._log.seek(0)
                reason = self._log.read()[-2000:].decode(errors="replace")
                raise RuntimeError(f"The C program ended: {reason}") from error


def write_request(file: BinaryIO, signature: Signature, inputs: Arrays) -> None:
    """Writes a request in the C program's format."""
    file.write(struct.pack("<II", len(inputs), len(signature.outputs)))
    for name, value in inputs.items():
        _write_text(file, signature.inputs[name])
        _write_tensor(file, np.asarray(value))
    for tensor in signature.outputs.values():
        _write_text(file, tensor)


def read_answer(file: BinaryIO, signature: Signature) -> dict[str, np.ndarray]:
    """Reads an answer in the C program's format.

    Raises:
        RequestError: if the answer is an error.
        EOFError: if there is none.
    """
    (code,) = _read(file, "<I")
    if code:
        raise RequestError(code, _read_text(file).decode(errors="replace"))
    return {name: _read_tensor(file) for name in signature.outputs}


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def _write_text(file, text):
    encoded = tf.compat.as_bytes(text)
    file.write(struct.pack("<I", len(encoded)) + encoded)


def _write_tensor(file, value):
    dtype = tf.as_dtype(value.dtype)
    size = value.size if dtype == tf.string else value.nbytes
    file.write(struct.pack("<II", dtype.as_datatype_enum, value.ndim))
    file.write(struct.pack(f"<{value.ndim}qQ", *value.shape, size))
    if dtype != tf.string:
        file.write(value.tobytes())
        return
    for text in value.flat:
        _write_text(file, text)


def _read_tensor(file) -> np.ndarray:
    dtype, rank = _read(file, "<II")
    *shape, size = _read(file, f"<{rank}qQ")
    dtype = tf.as_dtype(dtype)
    if dtype == tf.string:
        texts = [_read_text(file) for _ in range(size)]
        return np.array(texts, object).reshape(shape)
    content = file.read(size)
    return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)


def _read_text(file) -> bytes:
    (size,) = _read(file, "<I")
    return file.read(size)


def _read(file, layout):
    size = struct.calcsize(layout)
    content = file.read(size)
    if len(content) < size:
        raise EOFError
    return struct.unpack(layout, content)
