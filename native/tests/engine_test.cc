// The engine against a plain float64 forward pass of the same random model.
#include "engine/engine.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "quant/quant.h"

using namespace edgeinfer;

namespace {

using Row = std::vector<double>;

/// A random model: its tensors in a file and as float64 matrices.
struct TinyModel {
  ModelConfig config;
  std::vector<TensorSource> sources;
  std::map<std::string, std::vector<Row>> values;
  std::string path;

  explicit TinyModel(QuantType type) {
    config.vocab_size = 101;
    config.layers = 2;
    config.width = 64;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_dim = 32;
    config.ff_width = 96;
    config.norm_eps = 1e-5f;
    config.attention_scale = 1 / std::sqrt(32.0f);
    config.layer_rope = {0, -1};
    config.layer_window = {0, 5};
    RopeTable rope;
    for (int i = 0; i < 16; ++i)
      rope.inverse_frequencies.push_back(static_cast<float>(std::pow(10000.0, -i / 16.0)));
    config.rope_tables = {rope};

    char name[] = "/tmp/edgeinfer_engine_test_XXXXXX";
    const int fd = ::mkstemp(name);
    REQUIRE(fd >= 0);
    ::close(fd);
    path = name;
    std::ofstream out(path, std::ios::binary);
    std::mt19937 random(7);
    const auto add = [&](const std::string& tensor, int64_t rows, int64_t cols, QuantType t,
                         double mean, double deviation) {
      std::normal_distribution<float> normal(static_cast<float>(mean),
                                             static_cast<float>(deviation));
      std::vector<float> row(static_cast<size_t>(cols));
      const QuantInfo& info = quant_info(t);
      std::vector<uint8_t> data(static_cast<size_t>(info.row_bytes(cols)));
      sources.push_back({tensor, path, t, static_cast<uint64_t>(out.tellp()), rows, cols});
      for (int64_t r = 0; r < rows; ++r) {
        for (float& x : row) x = normal(random);
        info.encode(row.data(), nullptr, cols, data.data());
        info.decode(data.data(), cols, row.data());
        values[tensor].emplace_back(row.begin(), row.end());
        out.write(reinterpret_cast<const char*>(data.data()),
                  static_cast<std::streamsize>(data.size()));
      }
    };
    const ModelConfig& c = config;
    add("token_embd.weight", c.vocab_size, c.width, type, 0, 1);
    add("output.weight", c.vocab_size, c.width, type, 0, 0.3);
    add("output_norm.weight", 1, c.width, kF32, 1, 0.1);
    for (int64_t i = 0; i < c.layers; ++i) {
      const std::string b = "blk." + std::to_string(i) + ".";
      add(b + "attn_norm.weight", 1, c.width, kF32, 1, 0.1);
      add(b + "ffn_norm.weight", 1, c.width, kF32, 1, 0.1);
      add(b + "attn_q.weight", c.q_width(), c.width, type, 0, 0.15);
      add(b + "attn_q.bias", 1, c.q_width(), kF32, 0, 0.1);
      add(b + "attn_k.weight", c.kv_width(), c.width, type, 0, 0.15);
      add(b + "attn_v.weight", c.kv_width(), c.width, type, 0, 0.15);
      add(b + "attn_output.weight", c.width, c.q_width(), type, 0, 0.15);
      add(b + "ffn_gate.weight", c.ff_width, c.width, type, 0, 0.15);
      add(b + "ffn_up.weight", c.ff_width, c.width, type, 0, 0.15);
      add(b + "ffn_down.weight", c.width, c.ff_width, type, 0, 0.15);
    }
  }
  ~TinyModel() { std::remove(path.c_str()); }

  Row product(const std::string& tensor, const Row& x) const {
    const auto& w = values.at(tensor + ".weight");
    Row y(w.size());
    for (size_t r = 0; r < w.size(); ++r)
      for (size_t k = 0; k < x.size(); ++k) y[r] += w[r][k] * x[k];
    if (const auto bias = values.find(tensor + ".bias"); bias != values.end())
      for (size_t r = 0; r < y.size(); ++r) y[r] += bias->second[0][r];
    return y;
  }
  Row norm(const std::string& tensor, const Row& x) const {
    double squares = 0;
    for (const double v : x) squares += v * v;
    Row y(x.size());
    for (size_t i = 0; i < x.size(); ++i)
      y[i] = x[i] /
             std::sqrt(squares / static_cast<double>(x.size()) +
                       static_cast<double>(config.norm_eps)) *
             values.at(tensor)[0][i];
    return y;
  }

  /// Logits of every token, (tokens, vocab).
  std::vector<Row> logits(const std::vector<int32_t>& tokens) const {
    const ModelConfig& c = config;
    const auto d = static_cast<size_t>(c.head_dim), half = d / 2;
    std::vector<Row> x;
    for (const int32_t t : tokens)
      x.push_back(values.at("token_embd.weight")[static_cast<size_t>(t)]);
    for (int64_t i = 0; i < c.layers; ++i) {
      const std::string b = "blk." + std::to_string(i) + ".";
      std::vector<Row> q, k, v;
      for (size_t t = 0; t < x.size(); ++t) {
        const Row h = norm(b + "attn_norm.weight", x[t]);
        q.push_back(product(b + "attn_q", h));
        k.push_back(product(b + "attn_k", h));
        v.push_back(product(b + "attn_v", h));
        if (c.layer_rope[static_cast<size_t>(i)] < 0) continue;
        for (Row* rows : {&q.back(), &k.back()})
          for (size_t base = 0; base < rows->size(); base += d)
            for (size_t j = 0; j < half; ++j) {
              const double angle = static_cast<double>(t) * c.rope_tables[0].inverse_frequencies[j];
              double &re = (*rows)[base + j], &im = (*rows)[base + j + half];
              const double turned = re * std::cos(angle) - im * std::sin(angle);
              im = re * std::sin(angle) + im * std::cos(angle);
              re = turned;
            }
      }
      for (size_t t = x.size(); t-- > 0;) {
        const auto window = static_cast<size_t>(c.layer_window[static_cast<size_t>(i)]);
        const size_t begin = window && t + 1 > window ? t + 1 - window : 0;
        Row mixed(static_cast<size_t>(c.q_width()));
        for (size_t head = 0; head < static_cast<size_t>(c.heads); ++head) {
          const size_t kv = head * static_cast<size_t>(c.kv_heads) / static_cast<size_t>(c.heads);
          Row p;
          double sum = 0;
          for (size_t s = begin; s <= t; ++s) {
            double score = 0;
            for (size_t j = 0; j < d; ++j) score += q[t][head * d + j] * k[s][kv * d + j];
            p.push_back(std::exp(score * static_cast<double>(c.attention_scale)));
            sum += p.back();
          }
          for (size_t s = begin; s <= t; ++s)
            for (size_t j = 0; j < d; ++j)
              mixed[head * d + j] += p[s - begin] / sum * v[s][kv * d + j];
        }
        const Row attended = product(b + "attn_output", mixed);
        for (size_t j = 0; j < x[t].size(); ++j) x[t][j] += attended[j];
        const Row h = norm(b + "ffn_norm.weight", x[t]);
        Row gate = product(b + "ffn_gate", h);
        const Row up = product(b + "ffn_up", h);
        for (size_t j = 0; j < gate.size(); ++j)
          gate[j] = gate[j] / (1 + std::exp(-gate[j])) * up[j];
        const Row down = product(b + "ffn_down", gate);
        for (size_t j = 0; j < x[t].size(); ++j) x[t][j] += down[j];
      }
    }
    std::vector<Row> out;
    for (const Row& row : x) out.push_back(product("output", norm("output_norm.weight", row)));
    return out;
  }
};

std::vector<int32_t> some_tokens(int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * 37 + 11) % 101);
  return tokens;
}

/// Largest difference over the range of the reference.
double relative_error(const std::vector<Row>& expected, const std::vector<float>& got) {
  double low = 1e30, high = -1e30, worst = 0;
  size_t i = 0;
  for (const Row& row : expected)
    for (const double y : row) {
      low = std::min(low, y);
      high = std::max(high, y);
      worst = std::max(worst, std::fabs(y - static_cast<double>(got[i++])));
    }
  return worst / (high - low);
}

std::vector<float> run(Engine& engine, const std::vector<int32_t>& tokens, size_t piece) {
  const int64_t sequence = engine.open();
  const auto vocab = static_cast<size_t>(engine.config().vocab_size);
  std::vector<float> logits(tokens.size() * vocab);
  for (size_t t = 0; t < tokens.size(); t += piece) {
    const size_t end = std::min(tokens.size(), t + piece);
    const Slice slice{
        sequence,
        {tokens.begin() + static_cast<long>(t), tokens.begin() + static_cast<long>(end)},
        static_cast<int64_t>(end - t)};
    engine.step({slice}, Decoder::Output::kLogits, logits.data() + t * vocab);
  }
  engine.close(sequence);
  return logits;
}

}  // namespace

TEST_CASE("logits agree with float64, whole, in chunks and token by token, on every ISA") {
  const auto tokens = some_tokens(40);
  for (const auto& [type, tolerance] :
       {std::pair{kF32, 1e-5}, {kF16, 1e-5}, {kQ8_0, 2e-2}, {kQ4_0, 2e-2}}) {
    const TinyModel model(type);
    const auto expected = model.logits(tokens);
    for (const KernelSet* kernels : usable_kernels())
      for (const int threads : {1, 3})
        for (const int64_t batch : {7, 64}) {
          Engine engine(model.config, model.sources, {64, batch, threads, {kF32, kF32}}, *kernels);
          CAPTURE(kernels->name);
          CAPTURE(threads);
          for (const size_t piece : {size_t{40}, size_t{7}, size_t{1}})
            CHECK(relative_error(expected, run(engine, tokens, piece)) < tolerance);
        }
  }
}

TEST_CASE("sequences in one batch do not see each other, and trim forgets") {
  const TinyModel model(kF32);
  Engine engine(model.config, model.sources, {64, 16, 2, {}}, *usable_kernels().front());
  const auto tokens = some_tokens(12);
  const auto alone = run(engine, tokens, 12);

  const int64_t a = engine.open(), b = engine.open();
  std::vector<float> both(2 * 101);
  engine.step({{a, tokens, 1}, {b, {5, 6, 7}, 1}}, Decoder::Output::kLogits, both.data());
  for (size_t i = 0; i < 101; ++i)
    CHECK(both[i] == doctest::Approx(alone[11 * 101 + i]).epsilon(1e-4));

  engine.trim(a, 4);
  std::vector<float> again(101);
  engine.step({{a, {tokens.begin() + 4, tokens.end()}, 1}}, Decoder::Output::kLogits, again.data());
  for (size_t i = 0; i < 101; ++i) CHECK(again[i] == doctest::Approx(both[i]).epsilon(1e-4));
}

TEST_CASE("a full context, a closed sequence and bad tokens change nothing") {
  const TinyModel model(kF32);
  Engine engine(model.config, model.sources, {8, 16, 1, {}}, *usable_kernels().front());
  std::vector<float> out(101);
  const int64_t a = engine.open(), b = engine.open();
  engine.step({{a, {1, 2, 3}, 1}}, Decoder::Output::kLogits, out.data());
  CHECK_THROWS_AS(
      engine.step({{b, {1}, 1}, {a, some_tokens(6), 1}}, Decoder::Output::kLogits, out.data()),
      ContextFull);
  CHECK(engine.length(a) == 3);
  CHECK(engine.length(b) == 0);
  CHECK_THROWS_AS(engine.step({{a, {101}, 1}}, Decoder::Output::kLogits, out.data()),
                  std::invalid_argument);
  engine.close(b);
  CHECK_THROWS_AS(engine.length(b), Closed);
}

TEST_CASE("a missing, misshapen or unknown tensor is named") {
  TinyModel model(kF32);
  const auto load = [&](const std::vector<TensorSource>& sources) {
    Engine engine(model.config, sources, {8, 8, 1, {}}, *usable_kernels().front());
  };
  auto missing = model.sources;
  missing.pop_back();
  CHECK_THROWS_WITH(load(missing), doctest::Contains("blk.1.ffn_down.weight"));
  auto misshapen = model.sources;
  misshapen[0].rows -= 1;
  CHECK_THROWS_WITH(load(misshapen), doctest::Contains("token_embd.weight"));
  auto unknown = model.sources;
  unknown.push_back(unknown.back());
  unknown.back().name = "blk.9.what.weight";
  CHECK_THROWS_WITH(load(unknown), doctest::Contains("blk.9.what.weight"));
}
