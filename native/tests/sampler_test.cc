// The sampler's own arithmetic; its equality with the numpy reference is tested in Python.
#include "engine/sampler.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

using namespace edgeinfer;

namespace {

SamplerParams keep_all() {
  SamplerParams params;
  params.temperature = 1;
  params.top_k = 0;
  params.top_p = 1;
  params.min_p = 0;
  return params;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("the random stream is PCG64's") {
  // numpy.random.PCG64 with the state that seed 42 sets (edgeinfer.runtime.sampler.pcg64).
  Pcg64 random(42);
  const uint64_t expected[] = {0x287472e87ff5705au, 0xbbd190b04ed0b545u, 0xb6cee3580db14880u,
                               0xbf5f7d7e4c3d1864u};
  for (const uint64_t value : expected) CHECK(random.next() == value);
}

TEST_CASE("uniform numbers stay below one") {
  Pcg64 random(0);
  for (int i = 0; i < 100000; ++i) {
    const double x = random.uniform();
    REQUIRE(x >= 0);
    REQUIRE(x < 1);
  }
}

TEST_CASE("greedy takes the best, of equals the first") {
  SamplerParams params = keep_all();
  params.temperature = 0;
  Sampler sampler(4, params, 1);
  CHECK(sampler.sample(std::vector<float>{1, 5, 5, 2}).token == 1);
}

TEST_CASE("a vocabulary of one token") {
  Sampler sampler(1, SamplerParams{}, 1);
  const Draw draw = sampler.sample(std::vector<float>{-3});
  CHECK(draw.token == 0);
  CHECK(draw.logprob == doctest::Approx(0));
}

TEST_CASE("the penalties forget what leaves the window") {
  SamplerParams params = keep_all();
  params.presence_penalty = 100;
  params.repeat_last_n = 2;
  Sampler sampler(3, params, 1);
  for (const int token : {0, 1, 1, 2}) sampler.accept(token);
  const auto kept = sampler.probabilities(std::vector<float>{0, 0, 0});
  REQUIRE(kept.size() == 3);
  CHECK(kept[0].second == doctest::Approx(1));
  CHECK(kept[1].second < 1e-40);
}

TEST_CASE("logits that are no numbers are refused") {
  Sampler sampler(3, keep_all(), 1);
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{0, NAN, 0}), std::domain_error);
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{0, kInfinity, 0}), std::domain_error);
  CHECK_THROWS_AS(sampler.sample(std::vector<float>(3, -kInfinity)), std::domain_error);
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{0, 0}), std::invalid_argument);
  CHECK_THROWS_AS(sampler.accept(3), std::out_of_range);
  CHECK(sampler.sample(std::vector<float>{-kInfinity, 0, -kInfinity}).token == 1);
}

TEST_CASE("a bias outside the vocabulary is refused") {
  SamplerParams params = keep_all();
  params.logit_bias = {{3, 1.0}};
  CHECK_THROWS_AS(Sampler(3, params, 1), std::invalid_argument);
}

TEST_CASE("the best are reported with the model's own log-probabilities") {
  SamplerParams params = keep_all();
  params.logprobs = 5;  // more than there are
  params.logit_bias = {{2, 50.0}};
  Sampler sampler(3, params, 1);
  const Draw draw = sampler.sample(std::vector<float>{0, 1, 0});
  CHECK(draw.token == 2);
  REQUIRE(draw.top.size() == 3);
  CHECK(draw.top[0].token == 1);
  CHECK(draw.top[0].logprob == doctest::Approx(1 - std::log(2 + std::exp(1.0))));
}
