// Engine: a loaded model and the sequences it has opened.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/thread_pool.h"
#include "engine/adapter.h"
#include "engine/decoder.h"
#include "engine/kv_cache.h"
#include "engine/model_config.h"
#include "engine/weights.h"
#include "kernels/kernel_set.h"

namespace edgeinfer {

/// A slice does not fit the context; no sequence was changed.
struct ContextFull : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The engine or the sequence is closed, or belongs to the process this one was forked from.
struct Closed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct EngineOptions {
  int64_t context = 0;  // tokens a sequence can hold
  int64_t batch = 0;    // tokens that go through the model at a time
  int threads = 1;
  KvTypes kv_types;
  int batch_threads = 0;  // for steps of many tokens; 0: as many as threads
};

/// Resident bytes at the peak.
struct EngineMemory {
  size_t weights;
  size_t kv;  // of one full sequence
  size_t scratch;
};

/// Tokens that one sequence advances by, and how many of the last ones' outputs are wanted.
struct Slice {
  int64_t sequence;
  std::vector<int32_t> tokens;
  int64_t wanted;
};

/// All methods may be called from any thread; steps run one at a time.
class Engine {
 public:
  Engine(ModelConfig config, const std::vector<TensorSource>& tensors, EngineOptions options,
         const KernelSet& kernels);

  /// What an engine would take, from the tensors' shapes alone.
  static EngineMemory memory(const ModelConfig& config, const std::vector<TensorSource>& tensors,
                             const EngineOptions& options);

  const ModelConfig& config() const { return config_; }
  const EngineOptions& options() const { return options_; }

  int64_t open();
  void close(int64_t sequence);
  /// Forgets all but the first `length` tokens and returns how many are left: fewer where
  /// recurrent layers have no state of that length.
  int64_t trim(int64_t sequence, int64_t length);
  int64_t length(int64_t sequence) const;

  /// The keys and values of a sequence, whole blocks of them, and its running state, in what
  /// room(bytes) returns.
  void state(int64_t sequence, const std::function<uint8_t*(size_t)>& room);
  /// Makes an empty sequence as if it had read the `length` tokens of a state.
  void restore(int64_t sequence, const uint8_t* state, size_t bytes, int64_t length);

  /// Takes low-rank changes of the weights in, as long as `next` gives one, and returns their
  /// number.
  int64_t add_adapter(const NextLowRank& next);
  /// Forgets it; sequences that use it still do.
  void remove_adapter(int64_t adapter);
  /// Computes an empty sequence with adapters, each with a scale, from now on.
  void set_adapters(int64_t sequence, const std::vector<std::pair<int64_t, float>>& adapters);

  /// Rows that step() will write for a batch.
  static int64_t wanted_rows(const std::vector<Slice>& batch);
  /// Appends the slices to their sequences and writes the wanted rows, in order: logits
  /// (vocab_size,) or normalised hidden states (width,).
  void step(const std::vector<Slice>& batch, Decoder::Output output, float* out,
            InputRecord* record = nullptr);

  /// Gives a tensor other values: rows of the file's type and size, packed where the old ones
  /// lie. What sequences hold was computed with the old ones.
  void replace(const std::string& tensor, const uint8_t* data, size_t bytes);

 private:
  KvCache& cache(int64_t sequence) const;
  void require_own_process() const;
  void copy(const uint8_t* from, size_t bytes, uint8_t* to);
  void check(const std::vector<Slice>& batch) const;
  static int64_t mark(const KvCache& c, const Slice& slice, int64_t done, int64_t take);

  const ModelConfig config_;
  const EngineOptions options_;
  const KernelSet& kernels_;
  const int process_;
  mutable std::mutex mutex_;
  ThreadPool pool_;
  Weights weights_;
  Decoder decoder_;
  std::map<int64_t, std::unique_ptr<KvCache>> sequences_;
  int64_t next_sequence_ = 0;
  std::map<int64_t, std::shared_ptr<const Adapter>> adapters_;
  int64_t next_adapter_ = 0;
};

}  // namespace edgeinfer
