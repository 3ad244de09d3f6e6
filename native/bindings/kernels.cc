// The kernels of every instruction set on NumPy arrays, for tests and benchmarks; the engine
// calls the same table.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <ctime>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <vector>

#include "bindings/bindings.h"
#include "kernels/dispatch.h"
#include "quant/quant.h"

namespace nb = nanobind;

namespace edgeinfer {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Tensor = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Indices = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char* message) {
  if (!condition) throw nb::value_error(message);
}

/// Memory for n values, on a cache line.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t n)
      : data_(static_cast<T*>(::operator new(
            static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(T), std::align_val_t{64}))) {}
  T* data() const { return data_.get(); }
  T* release() { return data_.release(); }
  static void free(void* p) noexcept { ::operator delete(p, std::align_val_t{64}); }

 private:
  struct Free {
    void operator()(T* p) const { Buffer::free(p); }
  };
  std::unique_ptr<T, Free> data_;
};

template <class T>
nb::ndarray<nb::numpy, T> to_array(Buffer<T>&& buffer, std::initializer_list<size_t> shape) {
  T* data = buffer.release();
  return {data, shape, nb::capsule(data, &Buffer<T>::free)};
}

/// Runs f(g0, g1) on `threads` contiguous shares of [0, groups).
template <class F>
void share(int64_t groups, int threads, const F& f) {
  std::vector<std::thread> team;
  for (int i = 1; i < threads; ++i) {
    team.emplace_back([&, i] { f(groups * i / threads, groups * (i + 1) / threads); });
  }
  f(0, groups / threads);
  for (std::thread& thread : team) thread.join();
}

const QuantInfo& info_of(const std::string& type) {
  const QuantType t = find_quant_type(type);
  if (t == kQuantTypeCount) throw nb::value_error(("no quant type " + type).c_str());
  return quant_info(t);
}

/// A packed matrix together with the kernel that multiplies by it.
struct PackedMatrix {
  PackedMatrix(const std::string& isa, const std::string& type, const uint8_t* gguf, int64_t n_rows,
               int64_t n_cols)
      : kernels(find_kernels(isa)),
        info(info_of(type)),
        rows(n_rows),
        cols(n_cols),
        groups((rows + kGroupRows - 1) / kGroupRows),
        matmul(kernels.matmul[find_quant_type(type)]),
        bytes(info.packed_bytes(rows, cols)) {
    kernels.pack[find_quant_type(type)](gguf, rows, cols, bytes.data());
  }

  const KernelSet& kernels;
  const QuantInfo& info;
  int64_t rows, cols, groups;
  std::remove_extent_t<decltype(KernelSet::matmul)> matmul;
  Buffer<uint8_t> bytes;
};

void check_matrix(const std::string& type, int64_t rows, int64_t cols) {
  const QuantInfo& info = info_of(type);
  require(rows > 0 && cols > 0 && rows < 1 << 24 && cols < 1 << 24, "rows or cols out of range");
  require(cols % std::max(info.block, info.is_float ? 1 : kStep) == 0,
          "cols must be a multiple of the type's block");
}

Activations activations(const KernelSet& kernels, bool is_float, const float* x, int64_t tokens,
                        int64_t cols, ActBlock* blocks) {
  if (!is_float) kernels.quantize(x, cols, cols, tokens, 0, tokens, blocks);
  return {.f32 = x,
          .blocks = blocks,
          .stride = cols,
          .block_stride = tokens,
          .tokens = tokens,
          .cols = cols};
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const KernelSet* kernels : usable_kernels()) names.emplace_back(kernels->name);
  return names;
}

nb::ndarray<nb::numpy, float> matmul(const std::string& isa, const std::string& type, Bytes data,
                                     int64_t rows, int64_t cols, Matrix x, int threads) {
  check_matrix(type, rows, cols);
  require(static_cast<int64_t>(data.size()) == rows * info_of(type).row_bytes(cols),
          "data is not rows * cols values");
  require(static_cast<int64_t>(x.shape(1)) == cols, "x must be (tokens, cols)");
  require(threads > 0, "threads must be positive");
  const PackedMatrix w(isa, type, data.data(), rows, cols);
  const int64_t tokens = static_cast<int64_t>(x.shape(0));
  Buffer<ActBlock> blocks(w.info.is_float ? 0 : cols / kStep * tokens);
  const Activations a =
      activations(w.kernels, w.info.is_float, x.data(), tokens, cols, blocks.data());
  Buffer<float> y(tokens * rows);
  share(w.groups, threads,
        [&](int64_t g0, int64_t g1) { w.matmul(w.bytes.data(), rows, g0, g1, a, y.data(), rows); });
  return to_array(std::move(y), {static_cast<size_t>(tokens), static_cast<size_t>(rows)});
}

/// Seconds of processor time of the calling thread: other processes do not disturb it much.
double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Best seconds of one product (the slowest thread's processor time).
double bench_matmul(const std::string& isa, const std::string& type, int64_t rows, int64_t cols,
                    int64_t tokens, double seconds, int threads) {
  check_matrix(type, rows, cols);
  require(tokens > 0 && threads > 0, "tokens and threads must be positive");
  const QuantInfo& info = info_of(type);
  Buffer<float> values(rows * cols), x(tokens * cols);
  uint32_t state = 1;
  const auto fill = [&state](float* p, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      state = state * 1664525u + 1013904223u;
      p[i] = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
    }
  };
  // One row is encoded and repeated: timing does not depend on the values.
  fill(values.data(), cols);
  fill(x.data(), tokens * cols);
  Buffer<uint8_t> gguf(rows * info.row_bytes(cols));
  info.encode(values.data(), nullptr, cols, gguf.data());
  for (int64_t r = 1; r < rows; ++r) {
    std::memcpy(gguf.data() + r * info.row_bytes(cols), gguf.data(),
                static_cast<size_t>(info.row_bytes(cols)));
  }
  const PackedMatrix w(isa, type, gguf.data(), rows, cols);
  Buffer<ActBlock> blocks(info.is_float ? 0 : cols / kStep * tokens);
  const Activations a =
      activations(w.kernels, info.is_float, x.data(), tokens, cols, blocks.data());
  Buffer<float> y(tokens * rows);
  std::vector<double> best(static_cast<size_t>(threads), 1e30);
  share(threads, threads, [&](int64_t i, int64_t) {
    const int64_t g0 = w.groups * i / threads, g1 = w.groups * (i + 1) / threads;
    for (double total = 0; total < seconds;) {
      const double before = thread_seconds();
      w.matmul(w.bytes.data(), rows, g0, g1, a, y.data(), rows);
      const double spent = thread_seconds() - before;
      best[static_cast<size_t>(i)] = std::min(best[static_cast<size_t>(i)], spent);
      total += std::max(spent, 1e-7);
    }
  });
  return *std::ranges::max_element(best);
}

/// (q int8, scale, sum, total), each (tokens, cols) or (tokens, cols / 16).
nb::tuple quantize(const std::string& isa, Matrix x) {
  const int64_t tokens = static_cast<int64_t>(x.shape(0)), cols = static_cast<int64_t>(x.shape(1));
  require(cols % kStep == 0, "cols must be a multiple of 32");
  Buffer<ActBlock> blocks(cols / kStep * tokens);
  find_kernels(isa).quantize(x.data(), cols, cols, tokens, 0, tokens, blocks.data());
  Buffer<int8_t> q(tokens * cols);
  Buffer<float> scale(tokens * cols / 16), total(tokens * cols / 16);
  Buffer<int32_t> sum(tokens * cols / 16);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t b = 0; b < cols / kStep; ++b) {
      const ActBlock& block = blocks.data()[b * tokens + t];
      std::memcpy(q.data() + t * cols + b * kStep, block.q, kStep);
      for (int half = 0; half < 2; ++half) {
        const int64_t i = t * cols / 16 + 2 * b + half;
        scale.data()[i] = block.half_scale(half);
        sum.data()[i] = block.sum(half);
        total.data()[i] = block.total[half];
      }
    }
  }
  const size_t m = x.shape(0), n = x.shape(1) / 16;
  return nb::make_tuple(to_array(std::move(q), {m, x.shape(1)}), to_array(std::move(scale), {m, n}),
                        to_array(std::move(sum), {m, n}), to_array(std::move(total), {m, n}));
}

template <class Array>
Buffer<float> copy_of(const Array& x) {
  Buffer<float> y(static_cast<int64_t>(x.size()));
  if (x.size() > 0) std::memcpy(y.data(), x.data(), x.size() * sizeof(float));
  return y;
}

nb::ndarray<nb::numpy, float> rms_norm(const std::string& isa, Vector x, Vector w, float eps) {
  require(x.size() == w.size(), "x and w must have one size");
  Buffer<float> y = copy_of(x);
  find_kernels(isa).rms_norm(y.data(), w.data(), eps, static_cast<int64_t>(x.size()), y.data());
  return to_array(std::move(y), {x.size()});
}

nb::ndarray<nb::numpy, float> layer_norm(const std::string& isa, Vector x, Vector w, Vector b,
                                         float eps) {
  require(x.size() == w.size() && x.size() == b.size(), "x, w and b must have one size");
  Buffer<float> y = copy_of(x);
  find_kernels(isa).layer_norm(y.data(), w.data(), b.data(), eps, static_cast<int64_t>(x.size()),
                               y.data());
  return to_array(std::move(y), {x.size()});
}

template <auto KernelSet::* kernel>
nb::ndarray<nb::numpy, float> mapped(const std::string& isa, Vector x) {
  Buffer<float> y = copy_of(x);
  (find_kernels(isa).*kernel)(y.data(), static_cast<int64_t>(x.size()));
  return to_array(std::move(y), {x.size()});
}

nb::ndarray<nb::numpy, float> rope(const std::string& isa, Matrix x, Vector cos, Vector sin,
                                   bool neighbours) {
  require(cos.size() == sin.size() && 2 * cos.size() <= x.shape(1),
          "cos and sin must be (rope_dim / 2,)");
  Buffer<float> y = copy_of(x);
  find_kernels(isa).rope(y.data(), static_cast<int64_t>(x.shape(0)),
                         static_cast<int64_t>(x.shape(1)), static_cast<int64_t>(2 * cos.size()),
                         cos.data(), sin.data(), neighbours);
  return to_array(std::move(y), {x.shape(0), x.shape(1)});
}

template <auto kKernel>
nb::ndarray<nb::numpy, float> gate(const std::string& isa, Vector gate, Vector up) {
  require(gate.size() == up.size(), "gate and up must have one size");
  Buffer<float> y = copy_of(gate);
  (find_kernels(isa).*kKernel)(y.data(), up.data(), static_cast<int64_t>(up.size()));
  return to_array(std::move(y), {up.size()});
}

nb::ndarray<nb::numpy, float> scale_and_cap(const std::string& isa, Vector x, float scale,
                                            float cap) {
  Buffer<float> y = copy_of(x);
  find_kernels(isa).scale_and_cap(y.data(), scale, cap, static_cast<int64_t>(x.size()));
  return to_array(std::move(y), {x.size()});
}

nb::ndarray<nb::numpy, float> add_scaled(const std::string& isa, Vector y, Vector x, float scale) {
  require(x.size() == y.size(), "x and y must have one size");
  Buffer<float> out = copy_of(y);
  find_kernels(isa).add_scaled(out.data(), x.data(), scale, static_cast<int64_t>(x.size()));
  return to_array(std::move(out), {x.size()});
}

nb::ndarray<nb::numpy, float> convolve(const std::string& isa, Matrix rows, Matrix w, bool silu) {
  require(rows.shape(0) == w.shape(0) && rows.shape(1) == w.shape(1) && rows.shape(0) > 0 &&
              rows.shape(0) <= static_cast<size_t>(kMostTaps),
          "rows and w must be (taps, channels)");
  const auto taps = static_cast<int64_t>(w.shape(0)), n = static_cast<int64_t>(w.shape(1));
  const float* pointers[kMostTaps];
  for (int64_t j = 0; j < taps; ++j) pointers[j] = rows.data() + j * n;
  Buffer<float> out(n);
  find_kernels(isa).convolve(pointers, w.data(), taps, silu, n, out.data());
  return to_array(std::move(out), {w.shape(1)});
}

nb::tuple delta_rule(const std::string& isa, Matrix q, Matrix k, Matrix v, Vector decay,
                     Vector beta, Matrix state) {
  const size_t tokens = q.shape(0), dim = q.shape(1), tile = static_cast<size_t>(kDeltaTile);
  require(tokens > 0 && dim % 4 == 0 && k.shape(0) == tokens && k.shape(1) == dim,
          "q and k must be (tokens, dim), dim of whole 4s");
  require(v.shape(0) == tokens && v.shape(1) == tile && state.shape(0) == dim &&
              state.shape(1) == tile && decay.size() == tokens && beta.size() == tokens,
          "v must be (tokens, 16), state (dim, 16), decay and beta (tokens,)");
  Buffer<float> rows(static_cast<int64_t>(tokens * (2 * dim + tile)));
  const auto stride = static_cast<int64_t>(2 * dim + tile);
  for (size_t t = 0; t < tokens; ++t) {
    float* const row = rows.data() + static_cast<int64_t>(t) * stride;
    std::copy_n(q.data() + t * dim, dim, row);
    std::copy_n(k.data() + t * dim, dim, row + dim);
    std::copy_n(v.data() + t * tile, tile, row + 2 * dim);
  }
  Buffer<float> after = copy_of(state), out(static_cast<int64_t>(tokens * tile));
  find_kernels(isa).delta_rule({.q = rows.data(),
                                .k = rows.data() + dim,
                                .v = rows.data() + 2 * dim,
                                .stride = stride,
                                .decay = decay.data(),
                                .beta = beta.data(),
                                .step_stride = 1,
                                .tokens = static_cast<int64_t>(tokens),
                                .dim = static_cast<int64_t>(dim),
                                .state = after.data(),
                                .out = out.data(),
                                .out_stride = kDeltaTile});
  return nb::make_tuple(to_array(std::move(out), {tokens, tile}),
                        to_array(std::move(after), {dim, tile}));
}

/// One head's keys and values in blocks of the cache: of each block the keys, then the values.
struct Cache {
  Cache(const KernelSet& kernels, Matrix k, Matrix v, QuantType k_type, QuantType v_type)
      : key_bytes(kKvBlock * quant_info(k_type).row_bytes(k.shape(1))),
        block_bytes(key_bytes + kKvBlock * quant_info(v_type).row_bytes(k.shape(1))),
        bytes((static_cast<int64_t>(k.shape(0)) + kKvBlock - 1) / kKvBlock * block_bytes) {
    // NaN: what was never stored must not matter.
    std::memset(bytes.data(), 0xff,
                (k.shape(0) + kKvBlock - 1) / kKvBlock * static_cast<size_t>(block_bytes));
    const auto dim = static_cast<int64_t>(k.shape(1));
    for (int64_t i = 0; i < static_cast<int64_t>(k.shape(0)); ++i) {
      uint8_t* block = bytes.data() + i / kKvBlock * block_bytes;
      kernels.store_key[k_type](k.data() + i * dim, dim, i % kKvBlock, block);
      kernels.store_value[v_type](v.data() + i * dim, dim, i % kKvBlock, block + key_bytes);
    }
  }
  int64_t key_bytes, block_bytes;
  Buffer<uint8_t> bytes;
};

QuantType kv_type(const KernelSet& kernels, const std::string& name, size_t dim) {
  const QuantType type = find_quant_type(name);
  require(type != kQuantTypeCount && kernels.store_key[type], "not a type of KV caches");
  require(dim % static_cast<size_t>(quant_info(type).block) == 0,
          "the head size is no multiple of the type's block");
  return type;
}

/// q (queries, d), k and v (positions, d): stores the cache row by row, then attends to
/// [first, last). Returns out, not normalised, with max and sum.
nb::tuple attend(const std::string& isa, Matrix q, Matrix k, Matrix v, Indices begin, Indices end,
                 int64_t first, int64_t last, float scale, float softcap, const std::string& k_type,
                 const std::string& v_type) {
  const KernelSet& kernels = find_kernels(isa);
  const size_t queries = q.shape(0), dim = q.shape(1), positions = k.shape(0);
  require(dim % 2 == 0 && k.shape(1) == dim && v.shape(0) == positions && v.shape(1) == dim,
          "q, k and v must have one head size");
  require(begin.size() == queries && end.size() == queries, "begin and end must be (queries,)");
  require(first >= 0 && last <= static_cast<int64_t>(positions), "the range leaves the cache");
  const QuantType types[] = {kv_type(kernels, k_type, dim), kv_type(kernels, v_type, dim)};
  const Cache cache(kernels, k, v, types[0], types[1]);
  const auto rows = static_cast<int64_t>(queries), d = static_cast<int64_t>(dim);
  Buffer<float> out(rows * d), max(rows), sum(rows);
  kernels.attend({.q = q.data(),
                  .q_stride = d,
                  .k = cache.bytes.data(),
                  .v = cache.bytes.data() + cache.key_bytes,
                  .block_stride = cache.block_bytes,
                  .k_type = types[0],
                  .v_type = types[1],
                  .head_dim = d,
                  .queries = rows,
                  .begin = begin.data(),
                  .end = end.data(),
                  .first = first,
                  .last = last,
                  .scale = scale,
                  .softcap = softcap,
                  .out = out.data(),
                  .out_stride = d,
                  .max = max.data(),
                  .sum = sum.data()});
  return nb::make_tuple(to_array(std::move(out), {queries, dim}),
                        to_array(std::move(max), {queries}), to_array(std::move(sum), {queries}));
}

}  // namespace

void bind_kernels(nb::module_& m) {
  using namespace nb::literals;
  m.def("isas", &isas, "Names of the instruction sets this machine can run, best first.");
  m.def(
      "isa", [] { return std::string(active_kernels().name); },
      "The instruction set in use: the best, or the one EDGEINFER_ISA names.");
  m.def("matmul", &matmul, "isa"_a, "type"_a, "data"_a, "rows"_a, "cols"_a, "x"_a, "threads"_a = 1,
        "x (tokens, cols) times the transposed GGUF matrix `data` (rows, cols) of a quant type.");
  m.def("bench_matmul", &bench_matmul, "isa"_a, "type"_a, "rows"_a, "cols"_a, "tokens"_a,
        "seconds"_a, "threads"_a = 1, nb::call_guard<nb::gil_scoped_release>(),
        "Best processor seconds of one product on random activations.");
  m.def("quantize", &quantize, "isa"_a, "x"_a,
        nb::sig("def quantize(isa: str, x: numpy.typing.NDArray[numpy.float32]) -> "
                "tuple[numpy.typing.NDArray[numpy.int8], numpy.typing.NDArray[numpy.float32], "
                "numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.float32]]"),
        "Activations as int8: q, and per 16 values the scale, the sum of q and scale * sum.");
  m.def("rms_norm", &rms_norm, "isa"_a, "x"_a, "w"_a, "eps"_a, "x / sqrt(mean(x^2) + eps) * w.");
  m.def("layer_norm", &layer_norm, "isa"_a, "x"_a, "w"_a, "b"_a, "eps"_a,
        "(x - mean(x)) / sqrt(variance(x) + eps) * w + b.");
  m.def("rope", &rope, "isa"_a, "x"_a, "cos"_a, "sin"_a, "neighbours"_a,
        "x (heads, head_dim) turned by the angles of cos and sin (rope_dim / 2,).");
  m.def("silu_mul", &gate<&KernelSet::silu_mul>, "isa"_a, "gate"_a, "up"_a, "silu(gate) * up.");
  m.def("gelu_mul", &gate<&KernelSet::gelu_mul>, "isa"_a, "gate"_a, "up"_a,
        "gelu_tanh(gate) * up.");
  m.def("clamped_swiglu", &gate<&KernelSet::clamped_swiglu>, "isa"_a, "gate"_a, "up"_a,
        "g * sigmoid(1.702 * g) * (u + 1); g is gate, 7 at most, u is up in [-7, 7].");
  m.def("gelu", &mapped<&KernelSet::gelu>, "isa"_a, "x"_a, "gelu_tanh(x).");
  m.def("gelu_erf_mul", &gate<&KernelSet::gelu_erf_mul>, "isa"_a, "gate"_a, "up"_a,
        "gelu(gate) * up.");
  m.def("gelu_erf", &mapped<&KernelSet::gelu_erf>, "isa"_a, "x"_a, "x * Phi(x).");
  m.def("scale_and_cap", &scale_and_cap, "isa"_a, "x"_a, "scale"_a, "cap"_a,
        "cap * tanh(scale * x / cap); a cap of 0 is none.");
  m.def("multiply", &gate<&KernelSet::multiply>, "isa"_a, "y"_a, "x"_a, "y * x.");
  m.def("sigmoid_mul", &gate<&KernelSet::sigmoid_mul>, "isa"_a, "y"_a, "gate"_a,
        "y * sigmoid(gate).");
  m.def("convolve", &convolve, "isa"_a, "rows"_a, "w"_a, "silu"_a,
        "The sum of w * rows over the taps, (taps, channels) both, through silu if asked.");
  m.def("delta_rule", &delta_rule, "isa"_a, "q"_a, "k"_a, "v"_a, "decay"_a, "beta"_a, "state"_a,
        nb::sig("def delta_rule(isa: str, q: numpy.typing.NDArray[numpy.float32], "
                "k: numpy.typing.NDArray[numpy.float32], v: numpy.typing.NDArray[numpy.float32], "
                "decay: numpy.typing.NDArray[numpy.float32], "
                "beta: numpy.typing.NDArray[numpy.float32], "
                "state: numpy.typing.NDArray[numpy.float32]) -> "
                "tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32]]"),
        "The gated delta rule over tokens, for 16 value channels of a head: out and state.");
  m.def("add_scaled", &add_scaled, "isa"_a, "y"_a, "x"_a, "scale"_a, "y + scale * x.");
  m.def("attend", &attend, "isa"_a, "q"_a, "k"_a, "v"_a, "begin"_a, "end"_a, "first"_a, "last"_a,
        "scale"_a, "softcap"_a = 0.0f, "k_type"_a = "f16", "v_type"_a = "f16",
        nb::sig("def attend(isa: str, q: numpy.typing.NDArray[numpy.float32], "
                "k: numpy.typing.NDArray[numpy.float32], v: numpy.typing.NDArray[numpy.float32], "
                "begin: numpy.typing.NDArray[numpy.int32], end: numpy.typing.NDArray[numpy.int32], "
                "first: int, last: int, scale: float, softcap: float = 0.0, k_type: str = 'f16', "
                "v_type: str = 'f16') -> "
                "tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32], "
                "numpy.typing.NDArray[numpy.float32]]"),
        "Attention of q (queries, d) to positions [first, last) of one head's k and v, and of "
        "query i to [begin[i], end[i]) of these: out (not yet divided by sum), the largest score "
        "times log2(e), sum.");
}

}  // namespace edgeinfer
