/* Runs requests on a SavedModel with the loader that TensorFlow Serving links,
   TF_LoadSessionFromSavedModel. Nothing of Python is in this process.

   usage: saved_model_runner DIR < requests > answers

   Requests follow each other until the end of the input. All numbers are
   little-endian; TEXT is a uint32 length and so many bytes.
     request: uint32 inputs, uint32 outputs,
              inputs times (TEXT tensor name, tensor), outputs times TEXT
     tensor:  uint32 TF_DataType, uint32 rank, rank times int64,
              uint64 bytes, the elements; of strings the number of elements
              and a TEXT each
     answer:  uint32 TF_Code; 0: a tensor for each output; else TEXT message
   A tensor's name is OPERATION:INDEX. A request that fails is answered with
   its error, and the next one is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

#define MAX_TENSORS 64
#define MAX_RANK 16
#define MAX_TEXT (1 << 30)

static void die(const char *reason) {
  fprintf(stderr, "saved_model_runner: %s\n", reason);
  exit(1);
}

static void get(void *data, size_t size) {
  if (size && fread(data, size, 1, stdin) != 1) die("the input ends too early");
}

static void put(const void *data, size_t size) {
  if (size && fwrite(data, size, 1, stdout) != 1) die("cannot write");
}

static uint32_t get_count(uint32_t most) {
  uint32_t count;
  get(&count, sizeof count);
  if (count > most) die("the input is no request");
  return count;
}

static void put_number(uint32_t number) { put(&number, sizeof number); }

static void put_text(const char *text, size_t length) {
  put_number(length);
  put(text, length);
}

static void put_error(TF_Status *status) {
  const char *message = TF_Message(status);
  put_number(TF_GetCode(status));
  put_text(message, strlen(message));
}

/* Reads the name of a tensor and finds it in the graph. */
static TF_Output get_place(TF_Graph *graph) {
  char name[1024];
  uint32_t length = get_count(sizeof name - 1);
  get(name, length);
  name[length] = 0;
  char *colon = strrchr(name, ':');
  if (!colon) die("a tensor's name has no index");
  *colon = 0;
  TF_Output place = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
  if (!place.oper) die("there is no such tensor in the graph");
  return place;
}

static void get_strings(TF_TString *strings, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    uint32_t length = get_count(MAX_TEXT);
    char *text = malloc(length + 1);
    if (!text) die("a string is too long");
    get(text, length);
    TF_StringInit(strings + i);
    TF_StringCopy(strings + i, text, length);
    free(text);
  }
}

static TF_Tensor *get_tensor(void) {
  int64_t shape[MAX_RANK];
  uint64_t size;
  uint32_t type;
  get(&type, sizeof type);
  uint32_t rank = get_count(MAX_RANK);
  get(shape, rank * sizeof *shape);
  get(&size, sizeof size);
  size_t width = type == TF_STRING ? sizeof(TF_TString) : 1;
  TF_Tensor *tensor = TF_AllocateTensor(type, shape, rank, size * width);
  if (!tensor) die("cannot make a tensor");
  if (type == TF_STRING)
    get_strings(TF_TensorData(tensor), size);
  else
    get(TF_TensorData(tensor), size);
  return tensor;
}

/* A tensor's memory does not know what its strings own. */
static void free_tensor(TF_Tensor *tensor) {
  TF_TString *strings = TF_TensorData(tensor);
  if (TF_TensorType(tensor) == TF_STRING)
    for (int64_t i = 0; i < TF_TensorElementCount(tensor); ++i)
      TF_StringDealloc(strings + i);
  TF_DeleteTensor(tensor);
}

static void put_tensor(TF_Tensor *tensor) {
  TF_TString *strings = TF_TensorData(tensor);
  int is_text = TF_TensorType(tensor) == TF_STRING;
  uint64_t count = TF_TensorElementCount(tensor);
  uint64_t size = is_text ? count : TF_TensorByteSize(tensor);
  put_number(TF_TensorType(tensor));
  put_number(TF_NumDims(tensor));
  for (int axis = 0; axis < TF_NumDims(tensor); ++axis) {
    int64_t dim = TF_Dim(tensor, axis);
    put(&dim, sizeof dim);
  }
  put(&size, sizeof size);
  if (!is_text) put(strings, size);
  for (uint64_t i = 0; is_text && i < count; ++i)
    put_text(TF_StringGetDataPointer(strings + i),
             TF_StringGetSize(strings + i));
}

static void answer(TF_Session *session, TF_Graph *graph, uint32_t inputs) {
  TF_Output fed[MAX_TENSORS], fetched[MAX_TENSORS];
  TF_Tensor *values[MAX_TENSORS], *results[MAX_TENSORS] = {0};
  uint32_t outputs = get_count(MAX_TENSORS);
  if (inputs > MAX_TENSORS) die("the input is no request");
  for (uint32_t i = 0; i < inputs; ++i) {
    fed[i] = get_place(graph);
    values[i] = get_tensor();
  }
  for (uint32_t i = 0; i < outputs; ++i) fetched[i] = get_place(graph);
  TF_Status *status = TF_NewStatus();
  TF_SessionRun(session, NULL, fed, values, inputs, fetched, results, outputs,
                NULL, 0, NULL, status);
  if (TF_GetCode(status) == TF_OK) {
    put_number(TF_OK);
    for (uint32_t i = 0; i < outputs; ++i) put_tensor(results[i]);
  } else {
    put_error(status);
  }
  for (uint32_t i = 0; i < inputs; ++i) free_tensor(values[i]);
  for (uint32_t i = 0; i < outputs; ++i)
    if (results[i]) TF_DeleteTensor(results[i]);
  TF_DeleteStatus(status);
  fflush(stdout);
}

int main(int argc, char **argv) {
  const char *tags[] = {"serve"};
  if (argc != 2) die("usage: saved_model_runner DIR < requests > answers");
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Session *session = TF_LoadSessionFromSavedModel(
      options, NULL, argv[1], tags, 1, graph, NULL, status);
  if (TF_GetCode(status) != TF_OK) die(TF_Message(status));
  uint32_t inputs;
  while (fread(&inputs, sizeof inputs, 1, stdin) == 1)
    answer(session, graph, inputs);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
