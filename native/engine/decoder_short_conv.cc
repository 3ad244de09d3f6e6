// A gated short convolution in place of attention (LFM2: Liquid AI, 2025, arXiv:2511.23404).
#include "engine/decoder.h"

namespace edgeinfer {

// y = Out (C h * conv(B h * X h)), where B, C and X are one matrix.
void Decoder::convolve(Team& team, const Layer& layer, int64_t i, const Activations& h) {
  const int64_t n = config_.width;
  project(team, h, {{layer.mix_in, s_.projected}});
  // (tokens, 3, width): B h, C h and X h
  for_each_token(team, [&](int64_t t) {
    float* const row = s_.projected + t * 3 * n;
    kernels_.multiply(row + 2 * n, row, n);
  });
  const Channels gated{s_.projected + 2 * n, 3 * n, n};
  for_each_token(team, [&](int64_t t) {
    float* const out = s_.q + t * n;
    causal_conv_.run(i, t, gated, layer.conv, false, out);
    kernels_.multiply(out, s_.projected + (3 * t + 1) * n, n);
    record(&InputRecord::o, i, s_.q, n, t);
    quantise(s_.q, n, t, t + 1);
  });
  causal_conv_.keep(team, i, gated);
  project(team, {s_.q, s_.blocks, n, tokens_, tokens_, n}, {{layer.mix_out, s_.y}});
}

}  // namespace edgeinfer
