// A gated delta net in place of attention (Yang et al., "Gated Delta Networks", 2024,
// arXiv:2412.06464), as Qwen3-Next has it.
#include "engine/decoder.h"

namespace edgeinfer {

// y = Out (norm(delta rule(silu(conv(QKV h)), decay, beta)) * silu(Z h))
void Decoder::recur(Team& team, const Layer& layer, int64_t i, const Activations& h) {
  const int64_t n = config_.mixed_width(Mixer::kDeltaNet);
  if (layer.beta_alpha)
    project(
        team, h,
        {{layer.mix_in, s_.projected}, {layer.delta_gate, s_.gate}, {layer.beta_alpha, s_.steps}});
  else
    project(team, h,
            {{layer.mix_in, s_.projected},
             {layer.delta_gate, s_.gate},
             {layer.beta, s_.steps},
             {layer.alpha, s_.steps + tokens_ * config_.delta_heads}});
  const Channels qkv = delta_net_.inputs();
  for_each_token(team, [&](int64_t t) {
    causal_conv_.run(i, t, qkv, layer.conv, true, s_.convolved + t * qkv.count);
    delta_net_.prepare(layer, t, tokens_);
  });
  delta_net_.run(team, i);
  causal_conv_.keep(team, i, qkv);
  for_each_token(team, [&](int64_t t) {
    delta_net_.gate(layer, t);
    record(&InputRecord::o, i, s_.gate, n, t);
    quantise(s_.gate, n, t, t + 1);
  });
  project(team, {s_.gate, s_.blocks, n, tokens_, tokens_, n}, {{layer.mix_out, s_.y}});
}

}  // namespace edgeinfer
