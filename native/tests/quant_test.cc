// Every quant type under the sanitizers: exact buffers, so that a byte too far is found.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "quant/quant.h"

namespace edgeinfer {
namespace {

constexpr int64_t kRows[] = {1, 15, 16, 17, 33};

template <class Body>
void for_each_type(const Body& body) {
  for (int i = 0; i < kQuantTypeCount; ++i) {
    const QuantInfo& info = quant_info(static_cast<QuantType>(i));
    INFO("type " << std::string(info.name));
    body(info);
  }
}

std::vector<uint8_t> random_bytes(int64_t count) {
  std::mt19937 random(static_cast<unsigned>(count));
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

/// Same bits, or both NaN.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], 4) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  }
  return a.size() == b.size();
}

std::vector<float> round_trip(const QuantInfo& info, const std::vector<float>& x,
                              const float* importance = nullptr) {
  const auto count = static_cast<int64_t>(x.size());
  std::vector<uint8_t> data(static_cast<size_t>(info.row_bytes(count)));
  std::vector<float> y(x.size());
  info.encode(x.data(), importance, count, data.data());
  info.decode(data.data(), count, y.data());
  return y;
}

TEST_CASE("a packed row reads back as its blocks decode") {
  for_each_type([](const QuantInfo& info) {
    for (const int64_t rows : kRows) {
      for (const int64_t blocks : {1, 3}) {
        const int64_t cols = blocks * info.block;
        // One byte in, so that the blocks are unaligned, as in a file.
        const std::vector<uint8_t> data = random_bytes(1 + rows * info.row_bytes(cols));
        std::vector<uint8_t> packed(static_cast<size_t>(info.packed_bytes(rows, cols)));

        info.pack(data.data() + 1, rows, cols, packed.data());

        for (int64_t row = 0; row < rows; ++row) {
          std::vector<float> expected(static_cast<size_t>(cols)), actual(expected.size());
          info.decode(data.data() + 1 + row * info.row_bytes(cols), cols, expected.data());
          info.unpack_row(packed.data(), cols, row, actual.data());
          REQUIRE(same(actual, expected));
        }
      }
    }
  });
}

TEST_CASE("encoding brings back what it was given, nearly") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(1024), importance(1024);
  for (auto& v : x) v = normal(random);
  for (auto& v : importance) v = std::exp(normal(random));
  for_each_type([&](const QuantInfo& info) {
    // The rate-distortion bound of a Gaussian is 4^-bits; uniform codes stay within a few times.
    const double bound = 6 * std::pow(4.0, -8.0 * info.block_bytes / info.block);
    const float* const choices[] = {nullptr, importance.data()};
    for (const float* weights : choices) {
      const std::vector<float> y = round_trip(info, x, weights);
      double error = 0, size = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        error += std::pow(x[i] - y[i], 2);
        size += x[i] * x[i];
      }
      CHECK(error / size <= std::max(bound, info.is_float ? 1e-5 : 1e-4));
    }
  });
}

TEST_CASE("wild values and wild importances end in finite weights") {
  const float wild[] = {0,
                        -0.0f,
                        1e-45f,
                        -1e-38f,
                        1e30f,
                        -std::numeric_limits<float>::max(),
                        std::numeric_limits<float>::infinity(),
                        -std::numeric_limits<float>::infinity(),
                        std::numeric_limits<float>::quiet_NaN()};
  std::mt19937 random(2);
  for_each_type([&](const QuantInfo& info) {
    if (info.is_float) return;
    for (int round = 0; round < 50; ++round) {
      std::vector<float> x(256), importance(256);
      for (auto& v : x) v = wild[random() % std::size(wild)];
      for (auto& v : importance) v = wild[random() % std::size(wild)];
      for (const float v : round_trip(info, x, importance.data())) REQUIRE(std::isfinite(v));
    }
  });
}

TEST_CASE("types are found by name and by number") {
  for_each_type([](const QuantInfo& info) {
    CHECK(&quant_info(find_quant_type(info.name)) == &info);
    CHECK(&quant_info(find_quant_type(info.ggml_id)) == &info);
  });
  CHECK(find_quant_type("q9_9") == kQuantTypeCount);
  CHECK(find_quant_type(-1) == kQuantTypeCount);
}

}  // namespace
}  // namespace edgeinfer
