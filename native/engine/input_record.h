// InputRecord: what a model's matrices are multiplied with, for calibration.
#pragma once

#include <cstdint>

namespace edgeinfer {

/// Where a step leaves a copy of what its matrices are multiplied with, for calibration. Each
/// field is (layers, tokens, columns); `token` is the first one of the run in progress.
struct InputRecord {
  float* qkv;         // (.., width)
  float* o;           // (.., mixed_width)
  float* ffn;         // (.., width) of gate and up
  float* down;        // (.., experts used, ff_width); a narrower layer fills a part of it
  float* dense;       // (.., width) of gate and up beside experts, null if there is no such block
  float* dense_down;  // (.., dense_ff_width) beside experts or in layers without
  float* input_gate;  // (.., width) where layers have inputs of their own
  float* input_proj;  // (.., per_layer_width)
  int32_t* experts;   // (.., experts used) which they were, in layers with experts
  int64_t tokens;
  int64_t token = 0;
};

}  // namespace edgeinfer
