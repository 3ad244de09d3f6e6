// What a step leaves behind for calibration.
#include <algorithm>

#include "engine/decoder.h"

namespace edgeinfer {

// Nothing in a step without a record.
void Decoder::record(float* InputRecord::* field, int64_t layer, const float* x, int64_t cols,
                     int64_t t) {
  if (!record_) return;
  const int64_t row = layer * record_->tokens + record_->token + t;
  // What mixers and gates make is not of the same width in all layers.
  const int64_t stride = field == &InputRecord::o ? config_.mixed_width() : cols;
  std::copy_n(x + t * cols, cols, record_->*field + row * stride);
}

// The rows of a token's experts, in the order in which it chose them.
void Decoder::record_gated(const Layer& layer, int64_t index, int64_t t) {
  const int64_t used = config_.ff_rows_per_token(), n = layer.experts.front().up.rows;
  const int64_t first = (index * record_->tokens + record_->token) * used;
  for (int64_t i = t * used; i < (t + 1) * used; ++i) {
    const int64_t row = layer.router ? s_.row[i] : i;
    std::copy_n(s_.gated + row * n, n, record_->down + (first + i) * config_.ff_width);
    if (layer.router) record_->experts[first + i] = s_.chosen[i];
  }
}

}  // namespace edgeinfer
