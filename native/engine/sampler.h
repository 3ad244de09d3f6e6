// Chooses the next token from the logits of the last one.
//
// The stages and their definitions are llama.cpp's, in its order: logit bias; repeat,
// presence and frequency penalties; top-k; typical; top-p; min-p; temperature; draw.
// edgeinfer/runtime/sampler.py is the same in numpy and says each stage in a line; both give
// the same kept tokens and the same probabilities, because both compute in double and add
// up in the same order: token order until a stage sorts, then by falling logit.
//
// A vocabulary has up to 262,144 entries and a token takes milliseconds, so nothing is
// sorted that is not kept: every stage selects a prefix, and the first, for which all logits
// are read, is TopK.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/top_k.h"
#include "kernels/dispatch.h"

namespace edgeinfer {

/// How tokens are chosen; each field as in edgeinfer.types.SamplingParams.
struct SamplerParams {
  double temperature = 0.8;  // 0 takes the best token
  int top_k = 40;            // 0 keeps all
  double top_p = 0.95;       // 1 keeps all
  double min_p = 0.05;       // 0 keeps all
  double typical_p = 1.0;    // 1 keeps all
  double repeat_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  int repeat_last_n = 64;                          // -1 looks back on everything
  std::vector<std::pair<int, double>> logit_bias;  // token, what is added
  int logprobs = 0;                                // alternatives reported with a token
};

/// PCG64 (XSL-RR, 128 bits of state; O'Neill 2014, HMC-CS-2014-0905) on its default stream,
/// seeded as its author's library does. numpy.random.PCG64 steps the same way.
class Pcg64 {
 public:
  explicit Pcg64(uint64_t seed);
  uint64_t next();
  /// A double in [0, 1) from the upper 53 bits.
  double uniform();

 private:
  unsigned __int128 state_;
};

struct TokenLogprob {
  int token;
  double logprob;
};

/// The chosen token. The log-probabilities are the model's own: of the softmax of the raw
/// logits, before bias, penalties, truncation and temperature.
struct Draw {
  int token;
  double logprob;
  std::vector<TokenLogprob> top;  // best first
};

class Sampler {
 public:
  Sampler(int vocab_size, SamplerParams params, uint64_t seed,
          const KernelSet& kernels = active_kernels());

  /// Draws a token; does not remember it.
  /// @param logits (n_vocab,), finite or -inf; std::domain_error otherwise.
  Draw sample(std::span<const float> logits);

  /// The kept tokens with their probabilities, in the order that the draw walks along.
  std::vector<std::pair<int, double>> probabilities(std::span<const float> logits);

  /// Remembers a token of the text, prompt or answer, for the penalties.
  void accept(int token);

  /// Forgets the text and starts the random stream again.
  void reset();

 private:
  void run_chain(std::span<const float> logits);
  void adjust(std::span<const float> logits);
  double penalised(double logit, double count) const;
  void keep_possible(size_t k);
  void keep_best(size_t k);
  void keep_typical();
  void keep_top_p();
  void keep_min_p();
  double weigh(double temperature);
  double max_logit() const;

  int vocab_size_;
  SamplerParams params_;
  uint64_t seed_;
  Pcg64 random_;
  std::deque<int> text_;                 // the tokens that the penalties look back on
  std::unordered_map<int, int> counts_;  // of the tokens in text_
  const KernelSet& kernels_;
  std::vector<Candidate> adjusted_;  // by bias and penalties, in the order of tokens
  std::vector<int> adjusted_tokens_;
  TopK others_;                  // the logits less the adjusted ones
  std::vector<Candidate> kept_;  // (kept,)
  double total_ = 0;             // sum of the weights of kept_
  bool sorted_ = false;          // kept_ is in order of falling logit
};

}  // namespace edgeinfer
