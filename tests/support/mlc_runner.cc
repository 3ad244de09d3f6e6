// Runs a library of backend mlc without Python, with TVM's runtime alone: one sequence in one step.
//
// mlc_runner LIBRARY LISTING OUTPUT: the listing has a line for each tensor, "dtype ndim dims...
// file": tokens, positions, slots, rows, tables, cache, then the parameters. Logits of the last
// token are written to the output.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

using namespace tvm::ffi;

namespace {

struct Aligned {
  void AllocData(DLTensor* tensor) {
    tensor->data = std::aligned_alloc(64, (GetDataSize(*tensor) + 127) / 64 * 64);
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

DLDataType TypeOf(const std::string& name) {
  if (name == "int32") return {kDLInt, 32, 1};
  if (name == "uint16") return {kDLUInt, 16, 1};
  if (name == "float16") return {kDLFloat, 16, 1};
  return {kDLFloat, 32, 1};
}

Tensor Made(const std::string& dtype, const std::vector<int64_t>& dims) {
  return Tensor::FromNDAlloc(Aligned(), Shape(dims), TypeOf(dtype), DLDevice{kDLCPU, 0});
}

}  // namespace

int main(int, char** argv) {
  Module executable = Module::LoadFromFile(argv[1]);
  Module machine = executable->GetFunction("vm_load_executable").value()().cast<Module>();
  machine->GetFunction("vm_initialization").value()((int)kDLCPU, 0, 2, (int)kDLCPU, 0, 2);
  std::vector<Tensor> tensors;
  std::ifstream listing(argv[2]);
  for (std::string line; std::getline(listing, line);) {
    std::istringstream words(line);
    std::string dtype, file;
    int count = 0;
    words >> dtype >> count;
    std::vector<int64_t> dims(count);
    for (int64_t& dim : dims) words >> dim;
    words >> file;
    Tensor tensor = Made(dtype, dims);
    std::ifstream(file, std::ios::binary)
        .read(static_cast<char*>(tensor.data_ptr()),
              static_cast<std::streamsize>(GetDataSize(tensor)));
    tensors.push_back(tensor);
  }
  Array<Any> parameters;
  for (size_t i = 6; i < tensors.size(); ++i) parameters.push_back(tensors[i]);
  const std::vector<Tensor>& t = tensors;
  Tensor hidden = machine->GetFunction("hidden", true)
                      .value()(t[0], t[1], t[2], t[3], t[4], t[5], parameters)
                      .cast<Tensor>();
  const int64_t tokens = hidden.shape()[0], width = hidden.shape()[1];
  Tensor last = Made("float32", {1, width});
  const float* rows = static_cast<const float*>(hidden.data_ptr());
  for (int64_t i = 0; i < width; ++i)
    static_cast<float*>(last.data_ptr())[i] = rows[(tokens - 1) * width + i];
  Tensor logits =
      machine->GetFunction("logits_of_one", true).value()(last, parameters).cast<Tensor>();
  std::ofstream(argv[3], std::ios::binary)
      .write(static_cast<const char*>(logits.data_ptr()), logits.shape()[1] * 4);
  return 0;
}
