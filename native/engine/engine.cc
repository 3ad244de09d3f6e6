#include "engine/engine.h"

#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>

namespace edgeinfer {
namespace {

constexpr int64_t kMarkEvery = 256;            // tokens of an answer between kept states
constexpr int64_t kCopied = int64_t{2} << 20;  // bytes of a state at a time: a large page

ModelConfig checked(ModelConfig c, const EngineOptions& options) {
  const auto require = [](bool good, const char* what) {
    if (!good) throw std::invalid_argument(what);
  };
  require(c.vocab_size > 0 && c.layers > 0 && c.width > 0 && c.ff_width > 0,
          "model sizes must be positive");
  require(c.gated || c.activation != Activation::kSilu,
          "a feed-forward block without a gate has gelu");
  require(c.kv_heads > 0 && c.heads > 0 && c.heads % c.kv_heads == 0,
          "heads must be a multiple of kv_heads");
  require(c.heads / c.kv_heads <= 64, "more than 64 heads share a KV head");
  require(c.head_dim > 0 && c.head_dim % 2 == 0 && c.head_dim <= kMaxHeadDim,
          "head_dim must be even and at most 512");
  for (const std::vector<int64_t>* each : {&c.layer_head_dim, &c.layer_kv_heads, &c.layer_ff_width})
    require(each->empty() || each->size() == static_cast<size_t>(c.layers),
            "what layers have of their own needs one entry per layer");
  require(c.layer_kv.empty() || c.layer_kv.size() == static_cast<size_t>(c.layers),
          "layer_kv needs one entry per layer");
  require(
      c.layer_key_is_value.empty() || c.layer_key_is_value.size() == static_cast<size_t>(c.layers),
      "layer_key_is_value needs one entry per layer");
  for (int64_t i = 0; i < c.layers; ++i) {
    const int64_t dim = c.head_dim_of(i), heads = c.kv_heads_of(i), kv = c.kv_of(i);
    require(dim > 0 && dim % 2 == 0 && dim <= c.head_dim && c.ff_width_of(i) > 0 &&
                c.ff_width_of(i) <= (i < c.dense_layers ? c.dense_ff_width : c.ff_width),
            "a layer is wider than all");
    require(heads > 0 && heads <= c.kv_heads && c.heads % heads == 0,
            "heads must be a multiple of a layer's kv_heads");
    require(dim % quant_info(options.kv_types.k).block == 0 &&
                dim % quant_info(options.kv_types.v).block == 0,
            "head_dim is no multiple of the KV type's block");
    require(kv == i || (kv >= 0 && kv < i && c.causal && c.has_kv(kv) && c.head_dim_of(kv) == dim &&
                        c.kv_heads_of(kv) == heads),
            "a layer can read the keys and values of an earlier one with the same heads");
  }
  require(c.most_sharing() <= 64, "more than 64 heads share a KV head");
  require(c.dense_ff_width == 0 || (c.dense_ff_width > 0 && c.experts && !c.shared_expert),
          "a block beside the experts has them beside it");
  require(c.dense_layers >= 0 && c.dense_layers < c.layers &&
              (!c.dense_layers || (c.dense_ff_width && c.layer_ff_width.empty())),
          "layers without experts come before those with them, and have a width of their own");
  require(c.per_layer_width >= 0 && (!c.per_layer_width || c.gated),
          "layers take their inputs through a gate");
  require(c.streams > 0 && c.streams <= kMostStreams, "streams must be in 1..8");
  require(c.laurel_rank >= 0, "laurel_rank is negative");
  require(c.layer_cutoff.empty() ||
              (c.layer_cutoff.size() == static_cast<size_t>(c.layers) && c.gated && !c.experts),
          "layer_cutoff needs one entry per layer, of one block's gates");
  require(c.layer_rope.size() == static_cast<size_t>(c.layers) &&
              c.layer_window.size() == static_cast<size_t>(c.layers),
          "layer_rope and layer_window need one entry per layer");
  for (int64_t i = 0; i < c.layers; ++i) {
    const int32_t table = c.layer_rope[static_cast<size_t>(i)];
    require(table >= -1 && table < static_cast<int32_t>(c.rope_tables.size()),
            "layer_rope names a table that does not exist");
    require(table < 0 ||
                static_cast<int64_t>(
                    2 * c.rope_tables[static_cast<size_t>(table)].inverse_frequencies.size()) <=
                    c.head_dim_of(i),
            "a rope table is wider than head_dim");
  }
  for (const int32_t window : c.layer_window) require(window >= 0, "a window is negative");
  require(c.layer_mixer.empty() || c.layer_mixer.size() == static_cast<size_t>(c.layers),
          "layer_mixer needs one entry per layer");
  require(
      c.layers_with(Mixer::kAttention) == c.layers || (c.conv_taps > 1 && c.conv_taps <= kMostTaps),
      "conv_taps must be in 2..16");
  require(!c.has(Mixer::kDeltaNet) ||
              (c.delta_dim > 0 && c.delta_dim % kDeltaTile == 0 && c.delta_key_heads > 0 &&
               c.delta_heads > 0 && c.delta_heads % c.delta_key_heads == 0),
          "a delta net has heads of whole 16s, as many of values as of keys or a multiple");
  require(!c.shared_expert || c.experts, "a shared expert is one among others");
  require(options.context > 0 && options.context < (int64_t{1} << 30),
          "context must be positive and below 2^30");
  require(c.positions == 0 || options.context <= c.positions,
          "context is longer than the table of positions");
  require(options.batch > 0 && options.batch <= 65536, "batch must be in 1..65536");
  require(options.threads > 0 && options.threads <= 1024, "threads must be in 1..1024");
  require(options.batch_threads >= 0 && options.batch_threads <= 1024,
          "batch_threads must be in 0..1024");
  return c;
}

}  // namespace

Engine::Engine(ModelConfig config, const std::vector<TensorSource>& tensors, EngineOptions options,
               const KernelSet& kernels)
    : config_(checked(std::move(config), options)),
      options_(options),
      kernels_(kernels),
      process_(::getpid()),
      pool_(std::max(options.threads, options.batch_threads)),
      weights_(config_, tensors, pool_, kernels),
      decoder_(config_, weights_, kernels, pool_, options.batch, options.kv_types, options.threads,
               options.batch_threads ? options.batch_threads : options.threads) {}

EngineMemory Engine::memory(const ModelConfig& config, const std::vector<TensorSource>& tensors,
                            const EngineOptions& options) {
  const size_t kv = KvCache::bytes(
      config, config.causal ? options.context : Attention::places(options.batch), options.kv_types);
  const size_t scratch = Scratch::bytes(config, options.batch);
  if (config.causal) return {Weights::bytes(config, tensors), kv, scratch};
  return {Weights::bytes(config, tensors), 0, scratch + kv};
}

int64_t Engine::open() {
  const std::lock_guard lock(mutex_);
  sequences_[next_sequence_] =
      std::make_unique<KvCache>(config_, config_.causal ? options_.context : 0, options_.kv_types);
  return next_sequence_++;
}

void Engine::close(int64_t sequence) {
  const std::lock_guard lock(mutex_);
  sequences_.erase(sequence);
}

int64_t Engine::trim(int64_t sequence, int64_t length) {
  const std::lock_guard lock(mutex_);
  KvCache& c = cache(sequence);
  if (length < 0 || length > c.length)
    throw std::invalid_argument("cannot trim a sequence of " + std::to_string(c.length) +
                                " tokens to " + std::to_string(length));
  c.trim(length);
  return c.length;
}

int64_t Engine::length(int64_t sequence) const {
  const std::lock_guard lock(mutex_);
  return cache(sequence).length;
}

void Engine::state(int64_t sequence, const std::function<uint8_t*(size_t)>& room) {
  const std::lock_guard lock(mutex_);
  require_own_process();
  const KvCache& c = cache(sequence);
  const size_t bytes = c.used_bytes(c.length);
  uint8_t* const to = room(bytes + c.state.size());
  copy(c.data(), bytes, to);
  copy(reinterpret_cast<const uint8_t*>(c.state.current()), c.state.size(), to + bytes);
}

void Engine::restore(int64_t sequence, const uint8_t* state, size_t bytes, int64_t length) {
  const std::lock_guard lock(mutex_);
  require_own_process();
  KvCache& c = cache(sequence);
  if (c.length != 0) throw std::invalid_argument("the sequence is not empty");
  const size_t kv_bytes = length < 0 || length > options_.context ? 0 : c.used_bytes(length);
  if (length < 0 || length > options_.context || bytes != kv_bytes + c.state.size())
    throw std::invalid_argument(std::to_string(bytes) + " bytes are no state of " +
                                std::to_string(length) + " tokens");
  copy(state, kv_bytes, c.data());
  copy(state + kv_bytes, c.state.size(), reinterpret_cast<uint8_t*>(c.state.current()));
  c.state.forget();
  c.length = length;
}

// By all threads: the pages that are written come into being meanwhile, which takes far longer
// than the copy (under a hypervisor that has to find the memory first, 2 ms a MB and thread).
void Engine::copy(const uint8_t* from, size_t bytes, uint8_t* to) {
  pool_.run([&](Team& team) {
    team.for_each(static_cast<int64_t>(bytes), kCopied, [&](int64_t begin, int64_t end) {
      std::copy(from + begin, from + end, to + begin);
    });
  });
}

int64_t Engine::add_adapter(const NextLowRank& next) {
  auto adapter = std::make_shared<const Adapter>(weights_, next, kernels_);
  const std::lock_guard lock(mutex_);
  adapters_[next_adapter_] = std::move(adapter);
  return next_adapter_++;
}

void Engine::remove_adapter(int64_t adapter) {
  const std::lock_guard lock(mutex_);
  adapters_.erase(adapter);
}

void Engine::set_adapters(int64_t sequence,
                          const std::vector<std::pair<int64_t, float>>& adapters) {
  const std::lock_guard lock(mutex_);
  KvCache& c = cache(sequence);
  if (c.length != 0) throw std::invalid_argument("the sequence is not empty");
  std::vector<AdapterUse> uses;
  for (const auto& [number, scale] : adapters) {
    const auto it = adapters_.find(number);
    if (it == adapters_.end())
      throw std::invalid_argument("adapter " + std::to_string(number) + " is not there");
    uses.push_back({it->second, scale});
  }
  c.adapters = std::move(uses);
}

KvCache& Engine::cache(int64_t sequence) const {
  const auto it = sequences_.find(sequence);
  if (it == sequences_.end()) throw Closed("sequence " + std::to_string(sequence) + " is not open");
  return *it->second;
}

int64_t Engine::wanted_rows(const std::vector<Slice>& batch) {
  int64_t rows = 0;
  for (const Slice& slice : batch) {
    if (slice.wanted < 0 || slice.wanted > static_cast<int64_t>(slice.tokens.size()))
      throw std::invalid_argument("outputs of " + std::to_string(slice.wanted) +
                                  " tokens wanted of a slice of " +
                                  std::to_string(slice.tokens.size()));
    rows += slice.wanted;
  }
  return rows;
}

// A fork has none of the pool's threads.
void Engine::require_own_process() const {
  if (::getpid() != process_)
    throw Closed("the engine was loaded before this process was forked; load it in the child");
}

// Everything that can be wrong is found before any sequence is changed.
void Engine::check(const std::vector<Slice>& batch) const {
  require_own_process();
  wanted_rows(batch);
  std::set<int64_t> seen;
  for (const Slice& slice : batch) {
    const KvCache& c = cache(slice.sequence);
    const auto count = static_cast<int64_t>(slice.tokens.size());
    if (!seen.insert(slice.sequence).second)
      throw std::invalid_argument("sequence " + std::to_string(slice.sequence) +
                                  " occurs twice in a batch");
    if (count == 0) throw std::invalid_argument("a slice has no tokens");
    for (const int32_t token : slice.tokens)
      if (token < 0 || token >= config_.vocab_size)
        throw std::invalid_argument("token " + std::to_string(token) +
                                    " is outside the vocabulary of " +
                                    std::to_string(config_.vocab_size));
    if (c.length + count > options_.context)
      throw ContextFull(std::to_string(c.length) + " + " + std::to_string(count) +
                        " tokens do not fit a context of " + std::to_string(options_.context));
    if (!config_.causal && count > options_.batch)
      throw ContextFull("a text of " + std::to_string(count) + " tokens: at most " +
                        std::to_string(options_.batch) + " are read in one step");
  }
}

// Where in tokens [done, done + take) of a slice a state is kept that one may want to go back to.
int64_t Engine::mark(const KvCache& c, const Slice& slice, int64_t done, int64_t take) {
  const auto count = static_cast<int64_t>(slice.tokens.size());
  if (c.state.empty()) return 0;
  if (count == 1) return (c.length + 1) % kMarkEvery == 0;
  if (done + take < count || slice.wanted == 0) return take;  // a part of a long text
  // Of several wanted outputs all but the first are of guesses, which may prove wrong; a text of
  // which one is wanted may be asked for again, for another answer.
  const int64_t certain = slice.wanted > 1 ? count - slice.wanted + 1 : count - 1;
  return std::max<int64_t>(certain - done, 0);
}

void Engine::step(const std::vector<Slice>& batch, Decoder::Output output, float* out,
                  InputRecord* record) {
  const std::lock_guard lock(mutex_);
  check(batch);
  if (!config_.causal && (output == Decoder::Output::kLogits || record))
    throw std::invalid_argument("a model that reads texts both ways has no logits");
  const int64_t row = output == Decoder::Output::kLogits ? config_.vocab_size : config_.width;

  std::vector<Span> spans;
  std::vector<int64_t> wanted;
  int64_t tokens = 0, places = 0;
  const auto flush = [&] {
    if (tokens == 0) return;
    decoder_.run(spans, wanted, output, out, record);
    if (record) record->token += tokens;
    out += static_cast<int64_t>(wanted.size()) * row;
    spans.clear();
    wanted.clear();
    tokens = places = 0;
  };
  for (const Slice& slice : batch) {
    const auto count = static_cast<int64_t>(slice.tokens.size());
    if (!config_.causal) {  // whole
      const bool fits =
          tokens + count <= options_.batch &&
          Attention::place(places, count) + count <= Attention::places(options_.batch);
      if (!fits) flush();
      places = Attention::place(places, count) + count;
    }
    for (int64_t done = 0; done < count;) {
      const int64_t take = std::min(count - done, options_.batch - tokens);
      KvCache& c = cache(slice.sequence);
      spans.push_back({&c, slice.tokens.data() + done, take, mark(c, slice, done, take)});
      for (int64_t i = 0; i < take; ++i)
        if (done + i >= count - slice.wanted) wanted.push_back(tokens + i);
      done += take;
      tokens += take;
      if (tokens == options_.batch) flush();
    }
  }
  flush();
}

void Engine::replace(const std::string& tensor, const uint8_t* data, size_t bytes) {
  const std::lock_guard lock(mutex_);
  weights_.replace(tensor, data, bytes, kernels_);
}

}  // namespace edgeinfer
