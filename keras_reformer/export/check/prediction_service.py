"""A minimal prediction service: TensorFlow Serving's gRPC around the C program.

Messages and stubs are those of the package `tensorflow-serving-api`, and the
model runs in the loader that TensorFlow Serving links. There is no batching,
no model configuration and no HTTP.
"""

import concurrent.futures
import contextlib
import importlib.util
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_reformer.export.check.runner import RequestError, Runner

_SERVICE = "tensorflow.serving.PredictionService"
_DEFAULT = "serving_default"
# Logits of long sequences are larger than the 4 MiB that gRPC allows.
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]


def missing() -> str | None:
    """Says which package is not installed, or returns None."""
    for module, package in (
        ("grpc", "grpcio"),
        ("tensorflow_serving", "tensorflow-serving-api"),
    ):
        if importlib.util.find_spec(module) is None:
            return f"{package} is not installed"
    return None


@contextlib.contextmanager
def serving(runner: Runner) -> Iterator[str]:
    """Serves a model on a free port of this machine.

    Args:
        runner: `Runner` of the model.

    Yields:
        str. The address.
    """
    import grpc

    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(4), options=_OPTIONS
    )
    server.add_generic_rpc_handlers([_handler(runner)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def client(address: str) -> Iterator["Client"]:
    """Connects to a prediction service."""
    import grpc

    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        yield Client(channel)


class Client:
    """A client as users of TensorFlow Serving write it.

    Args:
        channel: gRPC channel.
    """

    def __init__(self, channel):
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def run(self, name, inputs, timeout=600) -> dict[str, np.ndarray]:
        """Runs a signature.

        Raises:
            RequestError: if the server refuses the request.
        """
        import grpc
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = name
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        try:
            response = self._stub.Predict(request, timeout=timeout)
        except grpc.RpcError as error:
            raise RequestError(error.code().value[0], error.details()) from None
        return {k: tf.make_ndarray(x) for k, x in response.outputs.items()}


def _handler(runner):
    """The handler of `Predict`, the only method."""
    import grpc
    from tensorflow_serving.apis import predict_pb2

    codes = {code.value[0]: code for code in grpc.StatusCode}

    def predict(request, context):
        name = request.model_spec.signature_name or _DEFAULT
        response = predict_pb2.PredictResponse()
        try:
            outputs = _answer(runner, name, request)
        except RequestError as error:
            context.abort(codes[error.code], str(error))
        response.model_spec.CopyFrom(request.model_spec)
        for key, value in outputs.items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return response

    method = grpc.unary_unary_rpc_method_handler(
        predict,
        predict_pb2.PredictRequest.FromString,
        predict_pb2.PredictResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(_SERVICE, {"Predict": method})


def _answer(runner, name, request) -> dict[str, np.ndarray]:
    """Checks a request as TensorFlow Serving does, and runs it."""
    if name not in runner.signatures:
        reason = f'Serving signature key "{name}" not found.'
        raise RequestError(tf.errors.FAILED_PRECONDITION, reason)
    expected = set(runner.signatures[name].inputs)
    if set(request.inputs) != expected:
        raise RequestError(
            tf.errors.INVALID_ARGUMENT,
            f"Expected the inputs {sorted(expected)}. Received: "
            f"{sorted(request.inputs)}",
        )
    try:
        inputs = {k: tf.make_ndarray(x) for k, x in request.inputs.items()}
    except (TypeError, ValueError) as error:
        raise RequestError(tf.errors.INVALID_ARGUMENT, str(error)) from None
    return runner.run(name, inputs)
