#include "engine/sampler.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgeinfer {
namespace {

using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::span<const float> span(const Logits& logits) { return {logits.data(), logits.size()}; }

}  // namespace

void bind_sampler(nb::module_& m) {
  nb::class_<Sampler>(m, "Sampler", "Chooses the next token; see edgeinfer.runtime.sampler.")
      .def(
          "__init__",
          [](Sampler* self, int vocab_size, uint64_t seed, double temperature, int top_k,
             double top_p, double min_p, double typical_p, double repeat_penalty,
             double presence_penalty, double frequency_penalty, int repeat_last_n,
             std::vector<std::pair<int, double>> logit_bias, int logprobs) {
            new (self) Sampler(vocab_size,
                               {.temperature = temperature,
                                .top_k = top_k,
                                .top_p = top_p,
                                .min_p = min_p,
                                .typical_p = typical_p,
                                .repeat_penalty = repeat_penalty,
                                .presence_penalty = presence_penalty,
                                .frequency_penalty = frequency_penalty,
                                .repeat_last_n = repeat_last_n,
                                .logit_bias = std::move(logit_bias),
                                .logprobs = logprobs},
                               seed);
          },
          nb::kw_only(), "vocab_size"_a, "seed"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a,
          "typical_p"_a, "repeat_penalty"_a, "presence_penalty"_a, "frequency_penalty"_a,
          "repeat_last_n"_a, "logit_bias"_a, "logprobs"_a)
      .def(
          "sample",
          [](Sampler& self, const Logits& logits) {
            Draw draw;
            {
              nb::gil_scoped_release release;
              draw = self.sample(span(logits));
            }
            std::vector<std::pair<int, double>> top;
            for (const TokenLogprob& entry : draw.top) top.emplace_back(entry.token, entry.logprob);
            return std::tuple(draw.token, draw.logprob, std::move(top));
          },
          "logits"_a.noconvert(),
          "Draws a token: (token, log-probability, best [(token, log-probability)]).")
      .def(
          "probabilities",
          [](Sampler& self, const Logits& logits) {
            nb::gil_scoped_release release;
            return self.probabilities(span(logits));
          },
          "logits"_a.noconvert(), "The kept tokens with their probabilities.")
      .def("accept", &Sampler::accept, "token"_a, "Remembers a token for the penalties.")
      .def("reset", &Sampler::reset, "Forgets the text and restarts the random stream.");
}

}  // namespace edgeinfer
