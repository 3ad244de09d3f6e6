#include "engine/weights.h"

#include <algorithm>
#include <set>
#include <stdexcept>

#include "core/mapped_file.h"
#include "quant/quant.h"

namespace edgeinfer {
namespace {

constexpr size_t kAlignment = 64;
constexpr char kEmbedding[] = "token_embd.weight";

// Source bytes that are mapped at a time while packing.
constexpr size_t kPackWindow = size_t{4} << 20;

bool ends_with(const std::string& s, const char* suffix) {
  const std::string tail(suffix);
  return s.size() >= tail.size() && s.compare(s.size() - tail.size(), tail.size(), tail) == 0;
}

std::string shape_text(int64_t rows, int64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

}  // namespace

bool Matrix::quantised() const { return !quant_info(type).is_float; }

// A tensor's place in the region and what is done with it on the way there.
struct Weights::Slot {
  enum class Kind { kVector, kMatrix, kRows };
  const TensorSource* source;
  Kind kind;
  size_t offset;
  size_t bytes;
};

std::vector<Weights::Slot> Weights::layout(const ModelConfig& config,
                                           const std::vector<TensorSource>& sources,
                                           size_t& total) {
  std::vector<Slot> slots;
  total = 0;
  for (const TensorSource& s : sources) {
    const QuantInfo& info = quant_info(s.type);
    if (s.rows <= 0 || s.cols <= 0 || s.cols % info.block != 0)
      throw std::invalid_argument("tensor " + s.name + ": impossible shape " +
                                  shape_text(s.rows, s.cols));
    Slot slot{&s, Slot::Kind::kMatrix, total, 0};
    if (ends_with(s.name, "_norm.weight") || ends_with(s.name, ".bias")) {
      slot.kind = Slot::Kind::kVector;
      slot.bytes = static_cast<size_t>(s.cols) * sizeof(float);
    } else if (s.name == kEmbedding && !config.tied_output) {
      slot.kind = Slot::Kind::kRows;
      slot.bytes = static_cast<size_t>(s.rows * info.row_bytes(s.cols));
    } else {
      slot.bytes = static_cast<size_t>(info.packed_bytes(s.rows, s.cols));
    }
    slots.push_back(slot);
    total += (slot.bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  return slots;
}

size_t Weights::bytes(const ModelConfig& config, const std::vector<TensorSource>& sources) {
  size_t total = 0;
  layout(config, sources, total);
  return total;
}

Weights::Weights(const ModelConfig& config, const std::vector<TensorSource>& sources,
                 ThreadPool& pool)
    : width_(config.width) {
  size_t total = 0;
  const std::vector<Slot> slots = layout(config, sources, total);
  region_ = MemoryRegion(total, MemoryRegion::Pages::kHuge);
  bind(config, slots);
  for (const Slot& slot : slots) load(slot, pool);
}

void Weights::load(const Slot& slot, ThreadPool& pool) {
  const TensorSource& s = *slot.source;
  const QuantInfo& info = quant_info(s.type);
  const int64_t stride = info.row_bytes(s.cols);
  const auto source_bytes = static_cast<size_t>(stride * s.rows);
  const MappedFile file(s.path);
  if (s.offset > file.size() || source_bytes > file.size() - s.offset)
    throw std::invalid_argument("tensor " + s.name + " leaves the file " + s.path);
  const uint8_t* from = file.data() + s.offset;
  uint8_t* to = region_.data() + slot.offset;

  if (slot.kind == Slot::Kind::kVector) {
    info.decode(from, s.cols, reinterpret_cast<float*>(to));
    return;
  }
  const int64_t window =
      std::max<int64_t>(1, static_cast<int64_t>(kPackWindow) / (stride * kGroupRows));
  const int64_t groups = (s.rows + kGroupRows - 1) / kGroupRows;
  for (int64_t g = 0; g < groups; g += window) {
    const int64_t g_end = std::min(groups, g + window);
    const int64_t row = g * kGroupRows, row_end = std::min(s.rows, g_end * kGroupRows);
    pool.run([&](Team& team) {
      team.for_each(g_end - g, 1, [&](int64_t begin, int64_t end) {
        if (slot.kind == Slot::Kind::kMatrix) {
          info.pack_groups(from, s.rows, s.cols, g + begin, g + end, to);
        } else {
          const int64_t a = (g + begin) * kGroupRows;
          const int64_t b = std::min(s.rows, (g + end) * kGroupRows);
          std::copy(from + a * stride, from + b * stride, to + a * stride);
        }
      });
    });
    file.release(s.offset + static_cast<size_t>(row * stride),
                 static_cast<size_t>((row_end - row) * stride));
  }
}

void Weights::bind(const ModelConfig& c, const std::vector<Slot>& slots) {
  std::map<std::string, const Slot*> by_name;
  for (const Slot& slot : slots)
    if (!by_name.emplace(slot.source->name, &slot).second)
      throw std::invalid_argument("tensor " + slot.source->name + " occurs twice");
  std::set<std::string> used;

  const auto find = [&](const std::string& name, int64_t rows, int64_t cols) -> const Slot* {
    const auto it = by_name.find(name);
    if (it == by_name.end()) return nullptr;
    const TensorSource& s = *it->second->source;
    if (s.rows != rows || s.cols != cols)
      throw std::invalid_argument("tensor " + name + " is " + shape_text(s.rows, s.cols) +
                                  ", expected " + shape_text(rows, cols));
    used.insert(name);
    return it->second;
  };
  const auto vector = [&](const std::string& name, int64_t n) -> const float* {
    const Slot* slot = find(name, 1, n);
    return slot ? reinterpret_cast<const float*>(region_.data() + slot->offset) : nullptr;
  };
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    const Slot* slot = find(name + ".weight", rows, cols);
    if (!slot) throw std::invalid_argument("tensor " + name + ".weight is missing");
    return Matrix{region_.data() + slot->offset, slot->source->type, rows, cols,
                  vector(name + ".bias", rows)};
  };

  const int64_t qk_norm_q = c.qk_norm == QkNorm::kFull ? c.q_width() : c.head_dim;
  const int64_t qk_norm_k = c.qk_norm == QkNorm::kFull ? c.kv_width() : c.head_dim;
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string b = "blk." + std::to_string(i) + ".";
    Layer layer{};
    layer.attn_norm = vector(b + "attn_norm.weight", c.width);
    layer.attn_post_norm = vector(b + "post_attention_norm.weight", c.width);
    layer.ffn_norm = vector(b + "ffn_norm.weight", c.width);
    layer.ffn_post_norm = vector(b + "post_ffw_norm.weight", c.width);
    if (!layer.attn_norm && !layer.attn_post_norm)
      throw std::invalid_argument("tensor " + b + "attn_norm.weight is missing");
    if (!layer.ffn_norm && !layer.ffn_post_norm)
      throw std::invalid_argument("tensor " + b + "ffn_norm.weight is missing");
    if (c.qk_norm != QkNorm::kNone) {
      layer.q_norm = vector(b + "attn_q_norm.weight", qk_norm_q);
      layer.k_norm = vector(b + "attn_k_norm.weight", qk_norm_k);
      if (!layer.q_norm || !layer.k_norm)
        throw std::invalid_argument("tensor " + b + "attn_q_norm.weight or attn_k_norm.weight " +
                                    "is missing");
    }
    layer.q = matrix(b + "attn_q", c.q_width(), c.width);
    layer.k = matrix(b + "attn_k", c.kv_width(), c.width);
    layer.v = matrix(b + "attn_v", c.kv_width(), c.width);
    layer.o = matrix(b + "attn_output", c.width, c.q_width());
    layer.gate = matrix(b + "ffn_gate", c.ff_width, c.width);
    layer.up = matrix(b + "ffn_up", c.ff_width, c.width);
    layer.down = matrix(b + "ffn_down", c.width, c.ff_width);
    layers_.push_back(layer);
  }
  output_norm_ = vector("output_norm.weight", c.width);
  if (!output_norm_) throw std::invalid_argument("tensor output_norm.weight is missing");
  if (c.tied_output) {
    output_ = matrix("token_embd", c.vocab_size, c.width);
  } else {
    output_ = matrix("output", c.vocab_size, c.width);
    const Slot* slot = find(kEmbedding, c.vocab_size, c.width);
    if (!slot) throw std::invalid_argument(std::string("tensor ") + kEmbedding + " is missing");
    embedding_rows_ = region_.data() + slot->offset;
    embedding_type_ = slot->source->type;
  }
  for (const auto& [name, slot] : by_name)
    if (!used.contains(name)) throw std::invalid_argument("tensor " + name + " is not known");
}

void Weights::embed(int32_t token, float* out) const {
  if (embedding_rows_) {
    const QuantInfo& info = quant_info(embedding_type_);
    info.decode(embedding_rows_ + token * info.row_bytes(width_), width_, out);
  } else {
    quant_info(output_.type).unpack_row(output_.packed, width_, token, out);
  }
}

}  // namespace edgeinfer
