#include "engine/weights.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <set>
#include <stdexcept>

#include "core/input_file.h"
#include "quant/quant.h"

namespace edgeinfer {
namespace {

constexpr size_t kAlignment = 64;
constexpr char kEmbedding[] = "token_embd.weight";
constexpr char kPositions[] = "position_embd.weight";
constexpr char kTokenTypes[] = "token_types.weight";
constexpr char kLayerInputs[] = "per_layer_token_embd.weight";
// What the names of vectors end with.
constexpr const char* kVectors[] = {"_norm.weight", "_norm_1.weight",    "_norm_2.weight",
                                    ".bias",        "attn_sinks.weight", ".ssm_a",
                                    ".scale",       "_scale.weight"};

// What the names of matrices end with that lie as floats, column by column.
constexpr const char* kColumns[] = {"conv.weight", "conv1d.weight", "_coef.weight"};

// Source bytes that a thread reads at a time: they stay in its second-level cache.
constexpr int64_t kPackWindow = int64_t{256} << 10;

bool ends_with(const std::string& s, const char* suffix) {
  const std::string tail(suffix);
  return s.size() >= tail.size() && s.compare(s.size() - tail.size(), tail.size(), tail) == 0;
}

std::string shape_text(int64_t rows, int64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

}  // namespace

void Table::read(int64_t row, float* out) const {
  const QuantInfo& info = quant_info(type);
  info.decode(rows + row * info.row_bytes(cols), cols, out);
}

bool Matrix::quantised() const { return !quant_info(type).is_float; }

// One thread's way to the files.
class Weights::Reader {
 public:
  /// The bytes of a tensor, in a buffer that the next call uses again.
  const uint8_t* read(const TensorSource& source, uint64_t offset, size_t size) {
    if (buffer_.size() < size) buffer_.resize(size);
    read(source, offset, size, buffer_.data());
    return buffer_.data();
  }
  void read(const TensorSource& source, uint64_t offset, size_t size, uint8_t* to) {
    if (!file_ || file_->path() != source.path) file_ = std::make_unique<InputFile>(source.path);
    if (!file_->read(source.offset + offset, size, to))
      throw std::invalid_argument("tensor " + source.name + " leaves the file " + source.path);
  }

 private:
  std::unique_ptr<InputFile> file_;
  std::vector<uint8_t> buffer_;
};

// A tensor's place in the region and what is done with it on the way there.
struct Weights::Slot {
  enum class Kind { kVector, kMatrix, kRows, kColumns };
  TensorSource source;
  Kind kind;
  size_t offset;
  size_t bytes;

  int64_t groups() const {
    return kind == Kind::kColumns ? 1 : (source.rows + kGroupRows - 1) / kGroupRows;
  }
  int64_t row_bytes() const { return quant_info(source.type).row_bytes(source.cols); }
  /// Bytes of a group of rows in the region.
  int64_t group_bytes() const {
    return kind == Kind::kMatrix ? quant_info(source.type).packed_bytes(kGroupRows, source.cols)
                                 : kGroupRows * row_bytes();
  }

  /// Brings the rows of groups [begin, end) to where they belong.
  void load(int64_t begin, int64_t end, Reader& reader, const KernelSet& kernels,
            uint8_t* to) const {
    const int64_t row = begin * kGroupRows;
    const int64_t rows = (end == groups() ? source.rows : end * kGroupRows) - row;
    const auto from = static_cast<uint64_t>(row * row_bytes());
    const auto size = static_cast<size_t>(rows * row_bytes());
    if (kind == Kind::kRows)
      reader.read(source, from, size, to);
    else
      place(reader.read(source, from, size), rows, kernels, to);
  }

  /// Brings `rows` rows in the file's form to where they belong.
  void place(const uint8_t* data, int64_t rows, const KernelSet& kernels, uint8_t* to) const {
    switch (kind) {
      case Kind::kRows:
        std::copy_n(data, rows * row_bytes(), to);
        return;
      case Kind::kVector:
        return quant_info(source.type).decode(data, source.cols, reinterpret_cast<float*>(to));
      case Kind::kColumns: {
        std::vector<float> values(static_cast<size_t>(rows * source.cols));
        quant_info(source.type).decode(data, rows * source.cols, values.data());
        for (int64_t i = 0; i < rows * source.cols; ++i)
          reinterpret_cast<float*>(to)[i % source.cols * rows + i / source.cols] =
              values[static_cast<size_t>(i)];
        return;
      }
      case Kind::kMatrix:
        return kernels.pack[source.type](data, rows, source.cols, to);
    }
  }
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
    Slot slot{s, Slot::Kind::kMatrix, total, 0};
    const auto is_one = [&](const char* suffix) { return ends_with(s.name, suffix); };
    if (std::any_of(std::begin(kVectors), std::end(kVectors), is_one)) {
      slot.kind = Slot::Kind::kVector;
      slot.bytes = static_cast<size_t>(s.cols) * sizeof(float);
    } else if (std::any_of(std::begin(kColumns), std::end(kColumns), is_one)) {
      slot.kind = Slot::Kind::kColumns;
      slot.bytes = static_cast<size_t>(s.rows * s.cols) * sizeof(float);
    } else if (s.name == kPositions || s.name == kTokenTypes || s.name == kLayerInputs ||
               (s.name == kEmbedding && !(config.causal && config.tied_output))) {
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
                 ThreadPool& pool, const KernelSet& kernels)
    : width_(config.width) {
  size_t total = 0;
  slots_ = layout(config, sources, total);
  region_ = MemoryRegion(total, MemoryRegion::Pages::kHuge);
  bind(config);
  load(pool, kernels);
  if (token_types_) {
    token_type_.resize(static_cast<size_t>(width_));
    token_types_.read(0, token_type_.data());
  }
}

Weights::~Weights() = default;

void Weights::replace(const std::string& tensor, const uint8_t* data, size_t bytes,
                      const KernelSet& kernels) {
  const auto slot = std::find_if(slots_.begin(), slots_.end(),
                                 [&](const Slot& s) { return s.source.name == tensor; });
  if (slot == slots_.end()) throw std::invalid_argument("no tensor is called " + tensor);
  const TensorSource& s = slot->source;
  if (const auto expected = static_cast<size_t>(s.rows * slot->row_bytes()); bytes != expected)
    throw std::invalid_argument("tensor " + tensor + " takes " + std::to_string(expected) +
                                " bytes, not " + std::to_string(bytes));
  slot->place(data, s.rows, kernels, region_.data() + slot->offset);
}

void Weights::load(ThreadPool& pool, const KernelSet& kernels) {
  std::vector<std::exception_ptr> errors(static_cast<size_t>(pool.size()));
  std::atomic<bool> failed = false;
  pool.run([&](Team& team) {
    Reader reader;  // a file of its own: the kernel reads ahead of each
    for (const Slot& slot : slots_) {
      const int64_t group_bytes = slot.group_bytes();
      const int64_t window = std::max<int64_t>(1, kPackWindow / group_bytes);
      uint8_t* const to = region_.data() + slot.offset;
      team.for_each(slot.groups(), window, [&](int64_t begin, int64_t end) {
        if (failed.load(std::memory_order_relaxed)) return;
        try {
          slot.load(begin, end, reader, kernels, to + begin * group_bytes);
        } catch (...) {  // the region itself may not throw
          errors[static_cast<size_t>(team.index())] = std::current_exception();
          failed.store(true, std::memory_order_relaxed);
        }
      });
    }
  });
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

void Weights::bind(const ModelConfig& c) {
  std::map<std::string, const Slot*> by_name;
  for (const Slot& slot : slots_)
    if (!by_name.emplace(slot.source.name, &slot).second)
      throw std::invalid_argument("tensor " + slot.source.name + " occurs twice");
  std::set<std::string> used;

  const auto find = [&](const std::string& name, int64_t rows, int64_t cols) -> const Slot* {
    const auto it = by_name.find(name);
    if (it == by_name.end()) return nullptr;
    const TensorSource& s = it->second->source;
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
  const auto columns = [&](const std::string& name, int64_t rows, int64_t cols) {
    const Slot* slot = find(name, rows, cols);
    if (!slot) throw std::invalid_argument("tensor " + name + " is missing");
    return reinterpret_cast<const float*>(region_.data() + slot->offset);
  };
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    const Slot* slot = find(name + ".weight", rows, cols);
    if (!slot) throw std::invalid_argument("tensor " + name + ".weight is missing");
    return Matrix{region_.data() + slot->offset, slot->source.type, rows, cols,
                  vector(name + ".bias", rows)};
  };

  const auto table = [&](const std::string& name, int64_t rows, int64_t cols) {
    const Slot* slot = find(name, rows, cols);
    if (!slot) throw std::invalid_argument("tensor " + name + " is missing");
    return Table{region_.data() + slot->offset, slot->source.type, cols};
  };

  const auto norm = [&](const std::string& name) {
    NormWeights found{vector(name + ".weight", c.width), vector(name + ".bias", c.width)};
    if (found && c.norm == Norm::kLayer && !found.bias) {
      no_bias_.resize(static_cast<size_t>(c.width));
      found.bias = no_bias_.data();
    }
    return found;
  };

  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string b = "blk." + std::to_string(i) + ".";
    Layer layer{};
    layer.attn_norm = norm(b + "attn_norm");
    layer.attn_post_norm = norm(b + "post_attention_norm");
    layer.attn_sum_norm = norm(b + "attn_output_norm");
    layer.ffn_norm = norm(b + "ffn_norm");
    layer.ffn_post_norm = norm(b + "post_ffw_norm");
    layer.ffn_sum_norm = norm(b + "layer_output_norm");
    // An encoder's embedding has a norm of its own, so that its first block may have none.
    if (!layer.attn_norm && !layer.attn_post_norm && !layer.attn_sum_norm && (c.causal || i))
      throw std::invalid_argument("tensor " + b + "attn_norm.weight is missing");
    if (!layer.ffn_norm && !layer.ffn_post_norm && !layer.ffn_sum_norm)
      throw std::invalid_argument("tensor " + b + "ffn_norm.weight is missing");
    if (c.mixer(i) == Mixer::kShortConv) {
      layer.mix_in = matrix(b + "shortconv.in_proj", 3 * c.width, c.width);
      layer.conv = columns(b + "shortconv.conv.weight", c.width, c.conv_taps);
      layer.mix_out = matrix(b + "shortconv.out_proj", c.width, c.width);
    }
    if (c.mixer(i) == Mixer::kDeltaNet) {
      const int64_t channels = c.conv_width(Mixer::kDeltaNet);
      const int64_t mixed = c.mixed_width(Mixer::kDeltaNet), heads = c.delta_heads;
      layer.mix_in = matrix(b + "ssm_qkv", channels, c.width);
      layer.delta_gate = matrix(b + "ssm_gate", mixed, c.width);
      if (c.delta_tiled) {
        layer.beta = matrix(b + "ssm_beta", heads, c.width);
        layer.alpha = matrix(b + "ssm_alpha", heads, c.width);
      } else {
        layer.beta_alpha = matrix(b + "ssm_ba", 2 * heads, c.width);
      }
      layer.conv = columns(b + "ssm_conv1d.weight", channels, c.conv_taps);
      layer.delta_a = vector(b + "ssm_a", heads);
      layer.delta_dt = vector(b + "ssm_dt.bias", heads);
      layer.delta_norm = vector(b + "ssm_norm.weight", c.delta_dim);
      if (!layer.delta_a || !layer.delta_dt || !layer.delta_norm)
        throw std::invalid_argument("tensor " + b + "ssm_a, ssm_dt or ssm_norm is missing");
      layer.mix_out = matrix(b + "ssm_out", c.width, mixed);
    }
    const bool attends = c.mixer(i) == Mixer::kAttention;
    const int64_t q_width = c.q_width_of(i), kv_width = c.kv_width_of(i);
    if (attends && c.qk_norm != QkNorm::kNone) {
      const bool full = c.qk_norm == QkNorm::kFull;
      layer.q_norm = vector(b + "attn_q_norm.weight", full ? q_width : c.head_dim_of(i));
      if (c.has_kv(i))
        layer.k_norm = vector(b + "attn_k_norm.weight", full ? kv_width : c.head_dim_of(i));
      if (!layer.q_norm || (c.has_kv(i) && !layer.k_norm))
        throw std::invalid_argument("tensor " + b + "attn_q_norm.weight or attn_k_norm.weight " +
                                    "is missing");
    }
    if (attends) {
      layer.sinks = vector(b + "attn_sinks.weight", c.heads);
      layer.q = matrix(b + "attn_q", (c.attention_gate ? 2 : 1) * q_width, c.width);
      if (c.has_kv(i)) layer.k = matrix(b + "attn_k", kv_width, c.width);
      if (c.has_kv(i) && !c.key_is_value(i)) layer.v = matrix(b + "attn_v", kv_width, c.width);
      layer.o = matrix(b + "attn_output", c.width, q_width);
    }
    const auto feed_forward = [&](const std::string& suffix, int64_t ff_width) {
      return FeedForward{c.gated ? matrix(b + "ffn_gate" + suffix, ff_width, c.width) : Matrix{},
                         matrix(b + "ffn_up" + suffix, ff_width, c.width),
                         matrix(b + "ffn_down" + suffix, c.width, ff_width)};
    };
    if (!c.has_experts(i)) layer.experts.push_back(feed_forward("", c.ff_width_of(i)));
    if (c.has_experts(i)) layer.router = matrix(b + "ffn_gate_inp", c.experts, c.width);
    for (int64_t e = 0; c.has_experts(i) && e < c.experts; ++e) {
      std::string suffix(".");
      suffix += std::to_string(e);
      layer.experts.push_back(feed_forward(suffix, c.ff_width));
    }
    if (c.has_experts(i) && c.router == Router::kSigmoid) {
      layer.expert_bias = vector(b + "exp_probs_b.bias", c.experts);
      if (!layer.expert_bias)
        throw std::invalid_argument("tensor " + b + "exp_probs_b.bias is missing");
    }
    if (c.has_experts(i) && c.shared_expert) {
      layer.experts.push_back(feed_forward("_shexp", c.ff_width));
      layer.shared_gate = matrix(b + "ffn_gate_inp_shexp", 1, c.width);
    }
    if (c.has_beside()) {
      layer.beside.push_back(feed_forward("", c.dense_ff_width));
      layer.beside_post_norm = norm(b + "post_ffw_norm_1");
      layer.router_norm = {vector(b + "ffn_gate_inp.scale", c.width)};
      layer.experts_norm = norm(b + "pre_ffw_norm_2");
      layer.experts_post_norm = norm(b + "post_ffw_norm_2");
      layer.expert_scale = vector(b + "ffn_down_exps.scale", c.experts);
      if (!layer.beside_post_norm || !layer.router_norm || !layer.experts_norm ||
          !layer.experts_post_norm || !layer.expert_scale)
        throw std::invalid_argument("tensor " + b + "post_ffw_norm_1.weight, pre_ffw_norm_2, " +
                                    "post_ffw_norm_2, ffn_gate_inp.scale or ffn_down_exps.scale " +
                                    "is missing");
    }
    if (c.per_layer_width) {
      layer.input_gate = matrix(b + "inp_gate", c.per_layer_width, c.width);
      layer.input_proj = matrix(b + "proj", c.width, c.per_layer_width);
      layer.input_post_norm = norm(b + "post_norm");
      if (!layer.input_post_norm)
        throw std::invalid_argument("tensor " + b + "post_norm.weight is missing");
    }
    layer.scale = vector(b + "layer_output_scale.weight", 1);
    if (const int64_t n = c.streams; n > 1) {
      layer.stream_router = matrix(b + "altup_router", n, c.width);
      layer.stream_norm = norm(b + "altup_router_norm");
      layer.predict_coef = columns(b + "altup_predict_coef.weight", n * n, n);
      layer.correct_coef = columns(b + "altup_correct_coef.weight", n, n);
      layer.correct_scale = vector(b + "altup_correct_scale.weight", c.width);
      if (!layer.stream_norm || !layer.correct_scale)
        throw std::invalid_argument("tensor " + b + "altup_router_norm.weight or " +
                                    "altup_correct_scale.weight is missing");
    }
    if (c.laurel_rank) {
      layer.narrow_in = matrix(b + "laurel_l", c.laurel_rank, c.width);
      layer.narrow_out = matrix(b + "laurel_r", c.width, c.laurel_rank);
      layer.narrow_post_norm = norm(b + "laurel_post_norm");
      if (!layer.narrow_post_norm)
        throw std::invalid_argument("tensor " + b + "laurel_post_norm.weight is missing");
    }
    layers_.push_back(std::move(layer));
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    const auto adapt = [&](const char* name, Matrix& m) {
      m.adaptable = static_cast<int32_t>(adaptable_.size());
      adaptable_["blk." + std::to_string(i) + "." + name + ".weight"] = &m;
    };
    if (layer.o) {
      adapt("attn_q", layer.q);
      if (layer.k) adapt("attn_k", layer.k);
      if (layer.v) adapt("attn_v", layer.v);
      adapt("attn_output", layer.o);
    } else if (c.mixer(static_cast<int64_t>(i)) == Mixer::kShortConv) {
      adapt("shortconv.in_proj", layer.mix_in);
      adapt("shortconv.out_proj", layer.mix_out);
    } else {
      adapt("ssm_qkv", layer.mix_in);
      adapt("ssm_gate", layer.delta_gate);
      if (c.delta_tiled) {
        adapt("ssm_beta", layer.beta);
        adapt("ssm_alpha", layer.alpha);
      } else {
        adapt("ssm_ba", layer.beta_alpha);
      }
      adapt("ssm_out", layer.mix_out);
    }
    if (layer.router && layer.beside.empty()) continue;
    FeedForward& ff = layer.router ? layer.beside.front() : layer.experts.front();
    if (c.gated) adapt("ffn_gate", ff.gate);
    adapt("ffn_up", ff.up);
    adapt("ffn_down", ff.down);
  }
  output_norm_ = norm("output_norm");
  if (!output_norm_ && c.causal)
    throw std::invalid_argument("tensor output_norm.weight is missing");
  embedding_norm_ = norm("token_embd_norm");
  if (!c.causal) {
    embedding_ = table(kEmbedding, c.vocab_size, c.width);
  } else if (c.tied_output) {
    output_ = matrix("token_embd", c.vocab_size, c.width);
  } else {
    output_ = matrix("output", c.vocab_size, c.width);
    embedding_ = table(kEmbedding, c.vocab_size, c.width);
  }
  if (c.positions) positions_ = table(kPositions, c.positions, c.width);
  if (c.token_types) token_types_ = table(kTokenTypes, c.token_types, c.width);
  if (const int64_t n = c.per_layer_width) {
    layer_inputs_ = table(kLayerInputs, c.vocab_size, c.layers * n);
    layer_inputs_projection_ = matrix("per_layer_model_proj", c.layers * n, c.width);
    layer_inputs_norm_ = vector("per_layer_proj_norm.weight", n);
    if (!layer_inputs_norm_)
      throw std::invalid_argument("tensor per_layer_proj_norm.weight is missing");
  }
  for (int64_t j = 0; j + 1 < c.streams; ++j) {
    to_streams_.push_back(matrix("altup_proj." + std::to_string(j), c.width, c.width));
    from_streams_.push_back(matrix("altup_unembd_proj." + std::to_string(j), c.width, c.width));
  }
  for (const auto& [name, slot] : by_name)
    if (!used.contains(name)) throw std::invalid_argument("tensor " + name + " is not known");
}

void Weights::embed(int32_t token, float* out) const {
  if (embedding_)
    embedding_.read(token, out);
  else
    quant_info(output_.type).unpack_row(output_.packed, width_, token, out);
}

}  // namespace edgeinfer
