"""Other engines that read SavedModels: OpenVINO, ONNX Runtime, LiteRT.

Each function takes the folder of a SavedModel and the inputs of its default
signature, and returns the outputs by name. Importing an engine is left to
the call, so none has to be installed.
"""

import importlib
import os
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

_SIGNATURE = "serving_default"
_OPSET = 18

Arrays = dict[str, np.ndarray]


def run_openvino(path: str, inputs: Arrays) -> Arrays:
    """Runs OpenVINO's own reader of SavedModels on a CPU.

    Raises:
        ImportError: if `openvino` is not installed.
    """
    openvino = importlib.import_module("openvino")
    # Without the hint it computes in half precision where the CPU can.
    model = openvino.Core().compile_model(
        openvino.convert_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    answers = model(list(inputs.values()), share_inputs=False)
    return {output.get_any_name(): x for output, x in answers.items()}


def run_onnxruntime(path: str, inputs: Arrays) -> Arrays:
    """Converts to ONNX with tf2onnx and runs ONNX Runtime on a CPU.

    Raises:
        ImportError: if `onnxruntime` or `tf2onnx` is not installed.
        RuntimeError: if the conversion fails.
    """
    onnxruntime = importlib.import_module("onnxruntime")
    importlib.import_module("tf2onnx")
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "model.onnx")
        process = subprocess.run(
            [sys.executable, "-m", "tf2onnx.convert", "--saved-model", path]
            + ["--signature_def", _SIGNATURE, "--tag", "serve"]
            + ["--opset", str(_OPSET), "--output", target],
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise RuntimeError(process.stderr.strip().splitlines()[-1])
        session = onnxruntime.InferenceSession(target)
    names = [output.name for output in session.get_outputs()]
    answers = session.run(names, inputs)
    return dict(zip(names, answers, strict=True))


def run_litert(path: str, inputs: Arrays) -> Arrays:
    """Converts with TensorFlow's converter and runs LiteRT's interpreter.

    Raises:
        ImportError: if `ai-edge-litert` is not installed.
    """
    litert = importlib.import_module("ai_edge_litert.interpreter")
    converter = tf.lite.TFLiteConverter.from_saved_model(
        path, signature_keys=[_SIGNATURE]
    )
    interpreter = litert.Interpreter(model_content=converter.convert())
    return interpreter.get_signature_runner(_SIGNATURE)(**inputs)


ENGINES = {
    "openvino": run_openvino,
    "onnxruntime": run_onnxruntime,
    "litert": run_litert,
}
