// Every usable instruction set against scalar: equal bits where the arithmetic is exact, else the
// rounding of float32 apart. kernels_test.cc compares them with double precision.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "quant/quant.h"

namespace edgeinfer {
namespace {

using Floats = std::vector<float>;

template <class Body>
void for_each_isa(const Body& body) {
  for (const KernelSet* kernels : usable_kernels()) {
    CAPTURE(std::string(kernels->name));
    body(*kernels);
  }
}

template <class Body>
void for_each_quantised_type(const Body& body) {
  for (int i = 0; i < kQuantTypeCount; ++i) {
    const auto type = static_cast<QuantType>(i);
    if (quant_info(type).is_float) continue;
    CAPTURE(std::string(quant_info(type).name));
    body(type);
  }
}

const KernelSet& scalar() { return find_kernels("scalar"); }

Floats normal(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  Floats x(static_cast<size_t>(count));
  for (float& v : x) v = distribution(random);
  return x;
}

/// Largest difference over the largest expected value; infinity if one is not a number.
double apart(const Floats& got, const Floats& expected) {
  double worst = 0, size = 1e-30;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs(double{got[i]} - double{expected[i]});
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, difference);
    size = std::max(size, std::fabs(double{expected[i]}));
  }
  return worst / size;
}

std::vector<ActBlock> quantised(const KernelSet& kernels, const Floats& x, int64_t cols) {
  const int64_t tokens = static_cast<int64_t>(x.size()) / cols;
  std::vector<ActBlock> blocks(x.size() / 32);
  kernels.quantize(x.data(), cols, cols, tokens, 0, tokens, blocks.data());
  return blocks;
}

struct Matrix {
  QuantType type;
  int64_t rows, cols;
  std::vector<uint8_t> packed;

  /// x (rows, cols) in the type.
  Matrix(QuantType t, int64_t r, int64_t c, const Floats& x) : type(t), rows(r), cols(c) {
    const QuantInfo& info = quant_info(type);
    std::vector<uint8_t> data(static_cast<size_t>(rows * info.row_bytes(cols)));
    packed.resize(static_cast<size_t>(info.packed_bytes(rows, cols)));
    info.encode(x.data(), nullptr, rows * cols, data.data());
    info.pack(data.data(), rows, cols, packed.data());
  }

  /// (tokens, rows) of x (tokens, cols).
  Floats times(const KernelSet& kernels, const Floats& x) const {
    const int64_t tokens = static_cast<int64_t>(x.size()) / cols;
    const auto blocks = quantised(kernels, x, cols);
    Floats y(static_cast<size_t>(tokens * rows));
    kernels.matmul[type](packed.data(), rows, 0, (rows + 15) / 16,
                         {x.data(), blocks.data(), cols, tokens, tokens, cols}, y.data(), rows);
    return y;
  }
};

TEST_CASE("quantised activations are the same bits") {
  Floats x = normal(3 * 96, 1);
  for (size_t i = 0; i < 16; ++i) x[i] = 0;
  for (size_t i = 16; i < 32; ++i) x[i] = static_cast<float>(i) - 24.5f;  // ties
  x[16] = 127;
  for (size_t i = 32; i < 48; ++i) x[i] *= 1e-38f;
  const auto expected = quantised(scalar(), x, 96);
  for (size_t i = 0; i < 32; ++i) CHECK(expected[0].q[i] == std::lrint(x[i]));
  for_each_isa([&](const KernelSet& kernels) {
    const auto blocks = quantised(kernels, x, 96);
    CHECK(std::memcmp(blocks.data(), expected.data(), sizeof(ActBlock) * blocks.size()) == 0);
  });
}

TEST_CASE("activations that are not finite stay visible in the scale") {
  for_each_isa([](const KernelSet& kernels) {
    for (const float odd : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
      Floats x = normal(64, 1);
      x[3] = odd;
      const auto blocks = quantised(kernels, x, 64);
      CHECK(std::isnan(blocks[0].scale));
      CHECK(std::isfinite(blocks[1].scale));
      for (const int8_t q : blocks[0].q) CHECK(std::abs(q) <= 127);
    }
  });
}

TEST_CASE("every type packs to the same bytes") {
  std::mt19937 random(5);
  for (int type = 0; type < kQuantTypeCount; ++type) {
    const QuantInfo& info = quant_info(static_cast<QuantType>(type));
    for (const int64_t rows : {1, 16, 33}) {
      const int64_t cols = 19 * info.block;
      // One byte in, so that the blocks are unaligned, as in a file.
      std::vector<uint8_t> data(static_cast<size_t>(1 + rows * info.row_bytes(cols)));
      for (auto& byte : data) byte = static_cast<uint8_t>(random());
      std::vector<uint8_t> plain(static_cast<size_t>(info.packed_bytes(rows, cols)));
      info.pack(data.data() + 1, rows, cols, plain.data());
      for_each_isa([&](const KernelSet& kernels) {
        std::vector<uint8_t> packed(plain.size());
        kernels.pack[type](data.data() + 1, rows, cols, packed.data());
        CHECK(packed == plain);
      });
    }
  }
}

TEST_CASE("integer sums are exact") {
  std::mt19937 random(6);
  const auto code = [&] { return static_cast<float>(static_cast<int>(random() % 255) - 127); };
  Floats w(16 * 64), q(7 * 64);
  for (float& v : w) v = code();
  for (float& v : q) v = code();
  for (size_t i = 0; i < w.size(); i += 32) w[i] = -127;  // so that every scale is 1
  for (size_t i = 0; i < q.size(); i += 16) q[i] = 127;
  const Matrix matrix(kQ8_0, 16, 64, w);
  for_each_isa([&](const KernelSet& kernels) {
    const Floats y = matrix.times(kernels, q);
    for (size_t i = 0; i < y.size(); ++i) {
      double sum = 0;
      for (size_t k = 0; k < 64; ++k) sum += double{w[i % 16 * 64 + k]} * q[i / 16 * 64 + k];
      CHECK(double{y[i]} == sum);
    }
  });
}

TEST_CASE("the largest codes times the largest activations do not overflow") {
  for_each_quantised_type([](QuantType type) {
    Floats ends(16 * 256);  // a lone opposite value puts the others at the end of the range
    for (size_t i = 0; i < ends.size(); ++i) {
      ends[i] = (i / 256 % 2 ? 1.0f : -1.0f) * (i % 32 == 0 ? -1.0f : 1.0f);
    }
    const Matrix w(type, 16, 256, ends);
    Floats x(6 * 256);
    for (size_t i = 0; i < x.size(); ++i) x[i] = i / 256 % 2 ? 1.0f : -1.0f;
    const Floats one(x.begin(), x.begin() + 256), expected = w.times(scalar(), x);
    CHECK(std::fabs(expected[0]) > 200);  // of 256, the signs aligned
    for_each_isa([&](const KernelSet& kernels) {
      CHECK(apart(w.times(kernels, x), expected) < 1e-6);
      CHECK(apart(w.times(kernels, one), {expected.begin(), expected.begin() + 16}) < 1e-6);
    });
  });
}

TEST_CASE("a token's product is the same bits in any company") {
  for_each_quantised_type([](QuantType type) {
    constexpr int64_t kRows = 33, kCols = 256, kMost = 33;
    const Matrix w(type, kRows, kCols, normal(kRows * kCols, 4));
    const Floats x = normal(kMost * kCols, 5);
    for_each_isa([&](const KernelSet& kernels) {
      Floats alone;
      for (auto token = x.begin(); token != x.end(); token += kCols) {
        const Floats y = w.times(kernels, Floats(token, token + kCols));
        alone.insert(alone.end(), y.begin(), y.end());
      }
      for (int64_t count = 2; count <= kMost; ++count) {
        CAPTURE(count);
        const Floats together = w.times(kernels, Floats(x.begin(), x.begin() + count * kCols));
        CHECK(together == Floats(alone.begin(), alone.begin() + count * kRows));
      }
    });
  });
}

TEST_CASE("gates and sums of any length; gates far out, and not a number") {
  for (const int64_t count : {1, 3, 16, 17, 100}) {
    const Floats x = normal(count, 7), w = normal(count, 8);
    const auto all = [&](const KernelSet& kernels) {
      Floats silu = x, gelu = x, erf = x, clamped = x, sum = w;
      kernels.silu_mul(silu.data(), w.data(), count);
      kernels.gelu_mul(gelu.data(), w.data(), count);
      kernels.gelu_erf_mul(erf.data(), w.data(), count);
      kernels.clamped_swiglu(clamped.data(), w.data(), count);
      kernels.add_scaled(sum.data(), x.data(), 0.3f, count);
      silu.insert(silu.end(), gelu.begin(), gelu.end());
      silu.insert(silu.end(), erf.begin(), erf.end());
      silu.insert(silu.end(), clamped.begin(), clamped.end());
      silu.insert(silu.end(), sum.begin(), sum.end());
      return silu;
    };
    const Floats expected = all(scalar());
    for_each_isa([&](const KernelSet& kernels) { CHECK(apart(all(kernels), expected) < 1e-6); });
  }
  for_each_isa([](const KernelSet& kernels) {
    for (const auto gate : {kernels.silu_mul, kernels.gelu_mul, kernels.gelu_erf_mul}) {
      Floats x = {-1000, 1000, 1e30f, std::nanf(""), 0}, ones(5, 1);
      gate(x.data(), ones.data(), 5);
      CHECK(std::fabs(x[0]) < 1e-30f);
      CHECK(x[1] == 1000);
      CHECK(x[2] == 1e30f);
      CHECK(std::isnan(x[3]));
      CHECK(x[4] == 0);
    }
  });
}

/// One head's attention over 300 random positions; out, max and sum in one row.
Floats attended(const KernelSet& kernels, int64_t dim, QuantType type, float softcap) {
  constexpr int64_t kPositions = 300, kQueries = 13;
  const Floats q = normal(kQueries * dim, 11), k = normal(kPositions * dim, 12),
               v = normal(kPositions * dim, 13);
  const int64_t half_bytes = kKvBlock * quant_info(type).row_bytes(dim);
  std::vector<uint8_t> cache(static_cast<size_t>(2 * 2 * half_bytes));
  for (int64_t i = 0; i < kPositions; ++i) {
    uint8_t* block = cache.data() + i / kKvBlock * 2 * half_bytes;
    kernels.store_key[type](k.data() + i * dim, dim, i % kKvBlock, block);
    kernels.store_value[type](v.data() + i * dim, dim, i % kKvBlock, block + half_bytes);
  }
  std::vector<int32_t> begin, end;
  for (int32_t i = 0; i < kQueries; ++i) {
    begin.push_back(i % 3 ? 5 * i : 0);
    end.push_back(300 - i);
  }
  const auto outs = static_cast<size_t>(kQueries * dim);
  Floats out(outs + 2 * kQueries);
  kernels.attend({.q = q.data(),
                  .q_stride = dim,
                  .k = cache.data(),
                  .v = cache.data() + half_bytes,
                  .block_stride = 2 * half_bytes,
                  .k_type = type,
                  .v_type = type,
                  .head_dim = dim,
                  .queries = kQueries,
                  .begin = begin.data(),
                  .end = end.data(),
                  .first = 0,
                  .last = kPositions,
                  .scale = 0.2f,
                  .softcap = softcap,
                  .out = out.data(),
                  .out_stride = dim,
                  .max = out.data() + outs,
                  .sum = out.data() + outs + kQueries});
  return out;
}

TEST_CASE("attention on caches of every type, with and without softcap") {
  for (int i = 0; i < kQuantTypeCount; ++i) {
    const auto type = static_cast<QuantType>(i);
    if (!scalar().store_key[type]) continue;
    for (const int64_t dim : {2, 20, 64, 80, 96}) {
      if (dim % quant_info(type).block != 0) continue;
      for (const float softcap : {0.0f, 3.0f}) {
        CAPTURE(quant_info(type).name);
        CAPTURE(dim);
        CAPTURE(softcap);
        const Floats expected = attended(scalar(), dim, type, softcap);
        for_each_isa([&](const KernelSet& kernels) {
          CHECK(apart(attended(kernels, dim, type, softcap), expected) < 3e-6);
        });
      }
    }
  }
}

TEST_CASE("the Walsh-Hadamard turn") {
  for (const int64_t size : {16, 32, 64}) {
    const Floats x = normal(2 * size, 5);
    Floats expected = x;
    scalar().hadamard(expected.data(), size, 2 * size);
    for_each_isa([&](const KernelSet& kernels) {
      Floats y = x;
      kernels.hadamard(y.data(), size, 2 * size);
      CHECK(apart(y, expected) < 1e-6);
      kernels.hadamard(y.data(), size, 2 * size);
      CHECK(apart(y, x) < 1e-6);
    });
  }
}

}  // namespace
}  // namespace edgeinfer
