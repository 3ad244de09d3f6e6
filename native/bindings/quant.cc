// Quant types: the registry, decoding and packing of GGUF data, on NumPy arrays.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"
#include "kernels/dispatch.h"
#include "quant/packed.h"
#include "quant/quant.h"

namespace nb = nanobind;

namespace edgeinfer {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

const QuantInfo& info_of(const std::string& name) {
  const QuantType type = find_quant_type(name);
  if (type == kQuantTypeCount) throw nb::value_error(("no quant type " + name).c_str());
  return quant_info(type);
}

/// Refuses shapes that are negative, not whole blocks, or so large that sizes would overflow.
void check_shape(const QuantInfo& info, int64_t rows, int64_t cols) {
  constexpr int64_t kLimit = int64_t{1} << 56;  // values; a value takes up to 4 bytes
  if (rows < 0 || cols < 0 || rows > kLimit || cols > kLimit / (rows + kGroupRows)) {
    throw nb::value_error("rows or cols out of range");
  }
  if (cols % info.block != 0) {
    throw nb::value_error(("cols must be a multiple of " + std::to_string(info.block) + " for " +
                           info.name + ", got " + std::to_string(cols))
                              .c_str());
  }
}

void check_size(const Bytes& data, int64_t expected) {
  if (static_cast<int64_t>(data.size()) != expected) {
    throw nb::value_error(
        ("expected " + std::to_string(expected) + " bytes, got " + std::to_string(data.size()))
            .c_str());
  }
}

/// A new array that owns its (uninitialised) memory.
template <class T, size_t N>
nb::ndarray<nb::numpy, T> new_array(const size_t (&shape)[N]) {
  size_t count = 1;
  for (const size_t extent : shape) count *= extent;
  auto memory = std::make_unique_for_overwrite<T[]>(count);
  T* data = memory.get();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  memory.release();
  return {data, N, shape, owner};
}

std::vector<std::tuple<std::string, int, int, int, int, bool>> quant_types() {
  std::vector<std::tuple<std::string, int, int, int, int, bool>> types;
  for (int i = 0; i < kQuantTypeCount; ++i) {
    const QuantInfo& info = quant_info(static_cast<QuantType>(i));
    types.emplace_back(info.name, info.ggml_id, info.block, info.block_bytes,
                       info.packed_bytes_per_block, info.is_float);
  }
  return types;
}

/// Calls work(first, last) on `threads` contiguous shares of 0..rows.
template <class Work>
void split_rows(int64_t rows, int threads, const Work& work) {
  const int64_t shares = std::clamp<int64_t>(threads, 1, std::max<int64_t>(rows, 1));
  std::vector<std::jthread> team;
  for (int64_t t = 1; t < shares; ++t) {
    team.emplace_back([=, &work] { work(rows * t / shares, rows * (t + 1) / shares); });
  }
  work(0, rows / shares);
}

/// importance (cols,) is that of each column and holds for every row.
nb::ndarray<nb::numpy, uint8_t> encode(const std::string& name, const Matrix& x, int threads,
                                       const std::optional<Vector>& importance,
                                       const std::optional<std::string>& isa) {
  const QuantInfo& info = info_of(name);
  const auto rows = static_cast<int64_t>(x.shape(0)), cols = static_cast<int64_t>(x.shape(1));
  check_shape(info, rows, cols);
  if (threads < 1) throw nb::value_error("threads must be at least 1");
  if (importance && importance->shape(0) != x.shape(1)) {
    throw nb::value_error("importance must have one value per column");
  }
  const int64_t row_bytes = info.row_bytes(cols);
  auto out = new_array<uint8_t>({x.shape(0), static_cast<size_t>(row_bytes)});
  uint8_t* data = out.data();
  const float* weights = importance ? importance->data() : nullptr;
  const KernelSet& kernels = isa ? find_kernels(*isa) : active_kernels();
  const auto encode_rows = encoders_of(kernels).encode[find_quant_type(name)];
  nb::gil_scoped_release release;
  split_rows(rows, threads, [&](int64_t first, int64_t last) {
    encode_rows(x.data() + first * cols, weights, last - first, cols, data + first * row_bytes);
  });
  return out;
}

nb::ndarray<nb::numpy, float> decode(const std::string& name, const Bytes& data, int64_t rows,
                                     int64_t cols) {
  const QuantInfo& info = info_of(name);
  check_shape(info, rows, cols);
  check_size(data, rows * info.row_bytes(cols));
  auto out = new_array<float>({static_cast<size_t>(rows), static_cast<size_t>(cols)});
  nb::gil_scoped_release release;
  info.decode(data.data(), rows * cols, out.data());
  return out;
}

nb::ndarray<nb::numpy, uint8_t> pack(const std::string& name, const Bytes& data, int64_t rows,
                                     int64_t cols, const std::optional<std::string>& isa) {
  const QuantInfo& info = info_of(name);
  check_shape(info, rows, cols);
  check_size(data, rows * info.row_bytes(cols));
  const auto pack = isa ? find_kernels(*isa).pack[find_quant_type(name)] : info.pack;
  auto out = new_array<uint8_t>({static_cast<size_t>(info.packed_bytes(rows, cols))});
  nb::gil_scoped_release release;
  pack(data.data(), rows, cols, out.data());
  return out;
}

nb::ndarray<nb::numpy, float> unpack_row(const std::string& name, const Bytes& packed, int64_t rows,
                                         int64_t cols, int64_t row) {
  const QuantInfo& info = info_of(name);
  check_shape(info, rows, cols);
  check_size(packed, info.packed_bytes(rows, cols));
  if (row < 0 || row >= rows) throw nb::index_error("row out of range");
  auto out = new_array<float>({static_cast<size_t>(cols)});
  info.unpack_row(packed.data(), cols, row, out.data());
  return out;
}

}  // namespace

void bind_quant(nb::module_& m) {
  m.def("quant_types", quant_types,
        "Returns (name, ggml_id, block, block_bytes, packed_bytes, is_float) of every quant "
        "type; packed_bytes are those of a row's block in memory.");
  m.def("encode", encode, nb::arg("type_name"), nb::arg("x").noconvert(), nb::arg("threads") = 1,
        nb::arg("importance").noconvert() = nb::none(), nb::arg("isa") = nb::none(),
        "Encodes float32 (rows, cols) to GGUF blocks, uint8 (rows, row_bytes), with the encoders "
        "of an instruction set. importance (cols,) weighs the squared error.");
  m.def("decode", decode, nb::arg("type_name"), nb::arg("data").noconvert(), nb::arg("rows"),
        nb::arg("cols"), "Decodes GGUF blocks to float32 (rows, cols).");
  m.def("pack", pack, nb::arg("type_name"), nb::arg("data").noconvert(), nb::arg("rows"),
        nb::arg("cols"), nb::arg("isa") = nb::none(),
        "Packs GGUF blocks (rows, cols) into the layout of native/quant/packed.h, with the kernels "
        "of an instruction set, or a row at a time.");
  m.def("unpack_row", unpack_row, nb::arg("type_name"), nb::arg("packed").noconvert(),
        nb::arg("rows"), nb::arg("cols"), nb::arg("row"),
        "Decodes one row of a packed matrix, float32 (cols,).");
}

}  // namespace edgeinfer
