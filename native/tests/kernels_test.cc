// Every usable instruction set against double precision, without Python.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "quant/quant.h"

namespace edgeinfer {
namespace {

/// Uniform in [-1, 1), the same on every platform.
class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed) {}
  float operator()() {
    state_ = state_ * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int32_t>(state_)) * 0x1p-31f;
  }
  std::vector<float> vector(int64_t n) {
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) v = (*this)();
    return x;
  }

 private:
  uint32_t state_;
};

/// A random matrix of a quant type: packed, and as doubles.
struct Weights {
  Weights(QuantType type, int64_t rows, int64_t cols) {
    const QuantInfo& info = quant_info(type);
    std::vector<uint8_t> gguf(static_cast<size_t>(rows * info.row_bytes(cols)));
    if (info.is_float) {
      info.encode(Random(7).vector(rows * cols).data(), nullptr, rows * cols, gguf.data());
    } else {
      Random random(7);
      for (size_t at = 0; at < gguf.size(); at += static_cast<size_t>(info.block_bytes)) {
        fill_block(info, random, gguf.data() + at);
      }
    }
    packed.resize(static_cast<size_t>(info.packed_bytes(rows, cols)));
    info.pack(gguf.data(), rows, cols, packed.data());
    std::vector<float> decoded(static_cast<size_t>(rows * cols));
    info.decode(gguf.data(), rows * cols, decoded.data());
    values.assign(decoded.begin(), decoded.end());
  }
  /// Any bytes whose values are of ordinary size, wherever the type has its scales.
  static void fill_block(const QuantInfo& info, Random& random, uint8_t* block) {
    std::vector<float> x(static_cast<size_t>(info.block));
    float largest = 0;
    while (!(largest > 0.5f && largest < 4)) {
      for (int i = 0; i < info.block_bytes; ++i) {
        block[i] = static_cast<uint8_t>(static_cast<int>((random() + 1) * 128));
      }
      info.decode(block, info.block, x.data());
      largest = 0;
      for (const float v : x) largest = std::isnan(v) ? v : std::max(largest, std::fabs(v));
    }
  }

  std::vector<uint8_t> packed;
  std::vector<double> values;
};

/// Activations in both forms, and as doubles the way a type sees them.
struct Inputs {
  Inputs(const KernelSet& kernels, bool is_float, int64_t tokens, int64_t cols)
      : x(Random(3).vector(tokens * cols)), values(x.begin(), x.end()) {
    view = {.f32 = x.data(),
            .blocks = nullptr,
            .stride = cols,
            .block_stride = tokens,
            .tokens = tokens,
            .cols = cols};
    if (is_float) return;
    blocks.resize(static_cast<size_t>(tokens * cols / 32));
    kernels.quantize(x.data(), cols, cols, tokens, 0, tokens, blocks.data());
    view.blocks = blocks.data();
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t k = 0; k < cols; ++k) {
        const ActBlock& b = blocks[static_cast<size_t>(k / 32 * tokens + t)];
        values[static_cast<size_t>(t * cols + k)] = double{b.half_scale(k % 32 / 16)} * b.q[k % 32];
      }
    }
  }
  std::vector<float> x;
  std::vector<double> values;
  std::vector<ActBlock> blocks;
  Activations view;
};

/// Largest |y - w x| / sum |w||x|; infinity if padding was written.
double product_error(const KernelSet& kernels, QuantType type, int64_t rows, int64_t cols,
                     int64_t tokens) {
  const Weights w(type, rows, cols);
  const Inputs a(kernels, quant_info(type).is_float, tokens, cols);
  constexpr float kUntouched = 12345;
  const int64_t stride = rows + 3;
  std::vector<float> y(static_cast<size_t>(tokens * stride), kUntouched);
  kernels.matmul[type](w.packed.data(), rows, 0, (rows + 15) / 16, a.view, y.data(), stride);
  double worst = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < stride; ++r) {
      const double got = y[static_cast<size_t>(t * stride + r)];
      if (r >= rows) {
        if (got != kUntouched) return std::numeric_limits<double>::infinity();
        continue;
      }
      double sum = 0, bound = 1e-30;
      for (int64_t k = 0; k < cols; ++k) {
        const double p = w.values[static_cast<size_t>(r * cols + k)] *
                         a.values[static_cast<size_t>(t * cols + k)];
        sum += p;
        bound += std::abs(p);
      }
      worst = std::max(worst, std::abs(got - sum) / bound);
    }
  }
  return worst;
}

TEST_CASE("the ceilings read all bytes and count all products") {
  std::vector<uint8_t> bytes(4096);
  const std::vector<int8_t> ones(4096, 1), zeros(4096, 0);
  for (const KernelSet* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    CHECK(kernels->read_all(bytes.data(), 4096) == 0);
    size_t missed = 0;  // words whose change does not show
    for (size_t word = 0; word < bytes.size(); word += 4) {
      bytes[word] = 1;
      if (kernels->read_all(bytes.data(), 4096) != 1) ++missed;
      bytes[word] = 0;
    }
    CHECK(missed == 0);
    int64_t macs = 0;
    CHECK(kernels->dot_all(zeros.data(), 4096, &macs) == 0);
    // The codes are at least 1 and at most 9, so the sum says how many there were.
    int64_t again = 0;
    const int32_t sum = kernels->dot_all(ones.data(), 4096, &again);
    CHECK(again == macs);
    CHECK(sum >= macs);
    CHECK(sum <= 9 * macs);
  }
}

}  // namespace

TEST_CASE("matrix products of every type, shape and number of tokens") {
  for (const KernelSet* kernels : usable_kernels()) {
    for (int i = 0; i < kQuantTypeCount; ++i) {
      const auto type = static_cast<QuantType>(i);
      const int64_t cols = std::max(quant_info(type).block, 32);
      for (const int64_t rows : {1, 16, 35}) {
        for (int64_t tokens = 1; tokens <= 17; ++tokens) {
          CAPTURE(kernels->name);
          CAPTURE(quant_info(type).name);
          CAPTURE(rows);
          CAPTURE(tokens);
          CHECK(product_error(*kernels, type, rows, 2 * cols, tokens) <= 1e-6);
        }
      }
    }
  }
}

TEST_CASE("more tokens than a tile") {
  for (const KernelSet* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    CHECK(product_error(*kernels, kQ4_0, 17, 64, 515) <= 1e-6);
  }
}

TEST_CASE("rms_norm") {
  const std::vector<float> x = Random(1).vector(1000), w = Random(2).vector(1000);
  double squares = 0;
  for (const float v : x) squares += double{v} * v;
  for (const KernelSet* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    std::vector<float> y(1000);
    kernels->rms_norm(x.data(), w.data(), 1e-5f, 1000, y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = x[i] / std::sqrt(squares / 1000 + 1e-5) * w[i];
      CHECK(std::abs(y[i] - expected) <= 2e-6 * std::abs(expected));
    }
  }
}

TEST_CASE("layer_norm") {
  std::vector<float> x = Random(1).vector(1003);
  for (float& v : x) v += 3;  // a mean that matters
  const std::vector<float> w = Random(2).vector(1003), b = Random(3).vector(1003);
  double mean = 0, variance = 0;
  for (const float v : x) mean += v / 1003.0;
  for (const float v : x) variance += (v - mean) * (v - mean) / 1003;
  for (const KernelSet* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    std::vector<float> y = x;
    kernels->layer_norm(y.data(), w.data(), b.data(), 1e-5f, 1003, y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = (x[i] - mean) / std::sqrt(variance + 1e-5) * w[i] + b[i];
      CHECK(std::abs(y[i] - expected) <= 1e-5);
    }
  }
}

TEST_CASE("gelu") {
  std::vector<float> x = Random(1).vector(77);
  for (float& v : x) v *= 20;
  for (const KernelSet* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    std::vector<float> y = x;
    kernels->gelu(y.data(), 77);
    for (size_t i = 0; i < y.size(); ++i) {
      const double v = x[i], u = std::sqrt(2 / 3.14159265358979) * (v + 0.044715 * v * v * v);
      const double expected = 0.5 * v * (1 + std::tanh(u));
      CHECK(std::abs(y[i] - expected) <= 1e-5 * std::abs(expected) + 1e-6);
    }
  }
}

TEST_CASE("gates") {
  const std::vector<float> up = Random(2).vector(77);
  std::vector<float> gate = Random(1).vector(77);
  for (float& v : gate) v *= 20;
  for (const KernelSet* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    std::vector<float> y = gate;
    kernels->silu_mul(y.data(), up.data(), 77);
    for (size_t i = 0; i < y.size(); ++i) {
      const double expected = double{gate[i]} / (1 + std::exp(-double{gate[i]})) * up[i];
      CHECK(std::abs(y[i] - expected) <= 2e-6 * std::abs(expected));
    }
  }
}

TEST_CASE("rope turns pairs and keeps the rest") {
  const std::vector<float> x = Random(1).vector(2 * 80);
  std::vector<float> cos(22), sin(22);
  for (size_t i = 0; i < 22; ++i) {
    cos[i] = std::cos(0.3f * static_cast<float>(i));
    sin[i] = std::sin(0.3f * static_cast<float>(i));
  }
  for (const KernelSet* kernels : usable_kernels()) {
    for (const bool neighbours : {false, true}) {
      CAPTURE(kernels->name);
      std::vector<float> y = x;
      kernels->rope(y.data(), 2, 80, 44, cos.data(), sin.data(), neighbours);
      for (size_t h = 0; h < 160; h += 80) {
        for (size_t i = 0; i < 22; ++i) {
          const size_t a = h + (neighbours ? 2 * i : i), b = neighbours ? a + 1 : a + 22;
          CHECK(y[a] == doctest::Approx(double{x[a]} * cos[i] - double{x[b]} * sin[i]));
          CHECK(y[b] == doctest::Approx(double{x[a]} * sin[i] + double{x[b]} * cos[i]));
        }
        for (size_t i = 44; i < 80; ++i) CHECK(y[h + i] == x[h + i]);
      }
    }
  }
}

TEST_CASE("attention with masks, on a cache whose last positions were never written") {
  constexpr int64_t kDim = 20, kPositions = 90, kQueries = 15;
  const std::vector<float> q = Random(1).vector(kQueries * kDim);
  const std::vector<float> k = Random(2).vector(kPositions * kDim);
  const std::vector<float> v = Random(3).vector(kPositions * kDim);
  std::vector<int32_t> begin(kQueries), end(kQueries);
  for (int i = 0; i < kQueries; ++i) {
    begin[static_cast<size_t>(i)] = 3 * i;
    end[static_cast<size_t>(i)] = 4 * i;  // the first sees nothing
  }
  for (const KernelSet* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> keys(kKvBlock * kDim, nan), values(kKvBlock * kDim, nan);
    const auto bytes = [](std::vector<float>& x) { return reinterpret_cast<uint8_t*>(x.data()); };
    for (int64_t i = 0; i < kPositions; ++i) {
      kernels->store_key[kF32](k.data() + i * kDim, kDim, i, bytes(keys));
      kernels->store_value[kF32](v.data() + i * kDim, kDim, i, bytes(values));
    }
    std::vector<float> out(kQueries * kDim), max(kQueries), sum(kQueries);
    kernels->attend({.q = q.data(),
                     .q_stride = kDim,
                     .k = bytes(keys),
                     .v = bytes(values),
                     .block_stride = 0,
                     .k_type = kF32,
                     .v_type = kF32,
                     .head_dim = kDim,
                     .queries = kQueries,
                     .begin = begin.data(),
                     .end = end.data(),
                     .first = 0,
                     .last = kPositions,
                     .scale = 0.5f,
                     .softcap = 0,
                     .out = out.data(),
                     .out_stride = kDim,
                     .max = max.data(),
                     .sum = sum.data()});
    CHECK(max[0] == -std::numeric_limits<float>::infinity());
    CHECK(sum[0] == 0);
    for (size_t i = 1; i < kQueries; ++i) {
      std::vector<double> expected(kDim);
      double total = 0;
      for (auto p = static_cast<size_t>(begin[i]); p < static_cast<size_t>(end[i]); ++p) {
        double score = 0;
        for (size_t d = 0; d < kDim; ++d) score += double{q[i * kDim + d]} * k[p * kDim + d];
        const double e = std::exp(0.5 * score);
        total += e;
        for (size_t d = 0; d < kDim; ++d) expected[d] += e * v[p * kDim + d];
      }
      for (size_t d = 0; d < kDim; ++d) {
        CHECK(std::abs(out[i * kDim + d] / sum[i] - expected[d] / total) <= 3e-6);
      }
      CHECK(double{max[i]} * std::log(2.0) + std::log(sum[i]) == doctest::Approx(std::log(total)));
    }
  }
}

}  // namespace edgeinfer
