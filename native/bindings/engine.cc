// The engine: configuration from a dict of plain numbers, steps with the GIL released.
#include "engine/engine.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <system_error>

#include "bindings/bindings.h"
#include "kernels/dispatch.h"
#include "quant/quant.h"

namespace nb = nanobind;

namespace edgeinfer {
namespace {

using Config = nb::typed<nb::dict, nb::str, nb::any>;
using Memory = nb::typed<nb::dict, nb::str, int>;
using Recorded = nb::typed<nb::dict, nb::str, nb::any>;
using FloatMatrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;
using ByteVector = nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>;
using TokenArray = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatArray = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ByteArray = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
// (name, path, type, offset, rows, cols)
using TensorTuple = std::tuple<std::string, std::string, std::string, uint64_t, int64_t, int64_t>;
using FloatRows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
// (name of a matrix, A (rank, columns), B (rows, rank))
using LowRankTuple = std::tuple<std::string, FloatRows, FloatRows>;
// (sequence, tokens, rows wanted)
using SliceTuple = std::tuple<int64_t, TokenArray, int64_t>;

template <class T>
T field(const nb::dict& d, const char* key) {
  if (!d.contains(key)) throw nb::key_error(key);
  return nb::cast<T>(d[key]);
}

Mixer mixer_from(const std::string& name) {
  if (name == "attention") return Mixer::kAttention;
  if (name == "short_conv") return Mixer::kShortConv;
  if (name == "delta_net") return Mixer::kDeltaNet;
  throw std::invalid_argument("a layer mixes tokens by " + name);
}

Router router_from(const std::string& name) {
  if (name == "softmax") return Router::kSoftmax;
  if (name == "sigmoid") return Router::kSigmoid;
  throw std::invalid_argument("experts are chosen by " + name);
}

Activation activation_from(const std::string& name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "gelu_erf") return Activation::kGeluErf;
  if (name == "clamped_swiglu") return Activation::kClampedSwiglu;
  throw std::invalid_argument("a feed-forward block has the activation " + name);
}

ModelConfig config_from(const nb::dict& d) {
  ModelConfig c;
  c.vocab_size = field<int64_t>(d, "vocab_size");
  c.positions = field<int64_t>(d, "positions");
  c.token_types = field<int64_t>(d, "token_types");
  c.causal = field<bool>(d, "causal");
  c.layers = field<int64_t>(d, "layers");
  c.width = field<int64_t>(d, "width");
  c.heads = field<int64_t>(d, "heads");
  c.kv_heads = field<int64_t>(d, "kv_heads");
  c.head_dim = field<int64_t>(d, "head_dim");
  c.ff_width = field<int64_t>(d, "ff_width");
  c.experts = field<int64_t>(d, "experts");
  c.experts_used = field<int64_t>(d, "experts_used");
  c.router = router_from(field<std::string>(d, "router"));
  c.expert_weights_norm = field<bool>(d, "expert_weights_norm");
  c.expert_weights_scale = field<float>(d, "expert_weights_scale");
  c.dense_layers = field<int64_t>(d, "dense_layers");
  c.norm_eps = field<float>(d, "norm_eps");
  c.norm = field<std::string>(d, "norm") == "layer" ? Norm::kLayer : Norm::kRms;
  c.gated = field<bool>(d, "gated");
  c.activation = activation_from(field<std::string>(d, "activation"));
  const auto qk_norm = field<std::string>(d, "qk_norm");
  c.qk_norm = qk_norm == "head" ? QkNorm::kHead : qk_norm == "full" ? QkNorm::kFull : QkNorm::kNone;
  c.rope_neighbours = field<std::string>(d, "rope_style") == "neighbours";
  for (auto& [frequencies, magnitude] :
       field<std::vector<std::tuple<FloatArray, float>>>(d, "rope_tables"))
    c.rope_tables.push_back(
        {{frequencies.data(), frequencies.data() + frequencies.size()}, magnitude});
  c.layer_rope = field<std::vector<int32_t>>(d, "layer_rope");
  c.layer_window = field<std::vector<int32_t>>(d, "layer_window");
  for (const std::string& mixer : field<std::vector<std::string>>(d, "layer_mixer"))
    c.layer_mixer.push_back(mixer_from(mixer));
  c.conv_taps = field<int64_t>(d, "conv_taps");
  c.delta_heads = field<int64_t>(d, "delta_heads");
  c.delta_key_heads = field<int64_t>(d, "delta_key_heads");
  c.delta_dim = field<int64_t>(d, "delta_dim");
  c.delta_tiled = field<bool>(d, "delta_tiled");
  c.attention_gate = field<bool>(d, "attention_gate");
  c.shared_expert = field<bool>(d, "shared_expert");
  c.dense_ff_width = field<int64_t>(d, "dense_ff_width");
  c.layer_head_dim = field<std::vector<int64_t>>(d, "layer_head_dim");
  c.layer_kv_heads = field<std::vector<int64_t>>(d, "layer_kv_heads");
  c.layer_ff_width = field<std::vector<int64_t>>(d, "layer_ff_width");
  c.layer_kv = field<std::vector<int32_t>>(d, "layer_kv");
  c.layer_key_is_value = field<std::vector<bool>>(d, "layer_key_is_value");
  c.value_norm = field<bool>(d, "value_norm");
  c.per_layer_width = field<int64_t>(d, "per_layer_width");
  c.streams = field<int64_t>(d, "streams");
  c.laurel_rank = field<int64_t>(d, "laurel_rank");
  c.layer_cutoff = field<std::vector<float>>(d, "layer_cutoff");
  c.attention_scale = field<float>(d, "attention_scale");
  c.attention_softcap = field<float>(d, "attention_softcap");
  c.output_softcap = field<float>(d, "output_softcap");
  c.embedding_scale = field<float>(d, "embedding_scale");
  c.residual_scale = field<float>(d, "residual_scale");
  c.output_scale = field<float>(d, "output_scale");
  c.tied_output = field<bool>(d, "tied_output");
  return c;
}

std::vector<TensorSource> sources_from(const std::vector<TensorTuple>& tensors) {
  std::vector<TensorSource> sources;
  for (const auto& [name, path, type_name, offset, rows, cols] : tensors) {
    const QuantType type = find_quant_type(type_name);
    if (type == kQuantTypeCount)
      throw std::invalid_argument("tensor " + name + " has the unknown type " + type_name);
    sources.push_back({name, path, type, offset, rows, cols});
  }
  return sources;
}

QuantType kv_type_from(const std::string& name) {
  const QuantType type = find_quant_type(name);
  if (type == kQuantTypeCount || !active_kernels().store_key[type])
    throw nb::value_error(("a KV cache cannot be of type " + name).c_str());
  return type;
}

EngineOptions options_from(int64_t context, int64_t batch, int threads, const std::string& k,
                           const std::string& v) {
  return {context, batch, threads, {kv_type_from(k), kv_type_from(v)}};
}

std::vector<std::string> kv_types() {
  std::vector<std::string> names;
  for (int i = 0; i < kQuantTypeCount; ++i)
    if (active_kernels().store_key[i])
      names.emplace_back(quant_info(static_cast<QuantType>(i)).name);
  return names;
}

Memory memory_dict(const EngineMemory& m) {
  Memory d;
  d["weights"] = m.weights;
  d["kv"] = m.kv;
  d["scratch"] = m.scratch;
  return d;
}

// What Python holds: the engine until shutdown().
class PyEngine {
 public:
  PyEngine(const Config& config, const std::vector<TensorTuple>& tensors, int64_t context,
           int threads, int64_t batch, const std::string& k, const std::string& v,
           int batch_threads) {
    const ModelConfig c = config_from(config);
    const std::vector<TensorSource> sources = sources_from(tensors);
    EngineOptions options = options_from(context, batch, threads, k, v);
    options.batch_threads = batch_threads;
    const nb::gil_scoped_release unlocked;
    memory_ = Engine::memory(c, sources, options);
    engine_ = std::make_shared<Engine>(c, sources, options, active_kernels());
  }

  FloatMatrix step(const std::vector<SliceTuple>& batch, Decoder::Output output) {
    const std::shared_ptr<Engine> engine = get();
    std::vector<Slice> slices;
    for (const auto& [sequence, tokens, wanted] : batch)
      slices.push_back({sequence, {tokens.data(), tokens.data() + tokens.size()}, wanted});
    const auto rows = static_cast<size_t>(Engine::wanted_rows(slices));
    const auto cols = static_cast<size_t>(
        output == Decoder::Output::kLogits ? engine->config().vocab_size : engine->config().width);
    auto out = std::make_unique_for_overwrite<float[]>(rows * cols);
    {
      const nb::gil_scoped_release unlocked;
      engine->step(slices, output, out.get());
    }
    float* data = out.get();
    nb::capsule owner(out.release(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return FloatMatrix(data, {rows, cols}, owner);
  }

  /// Inputs of every layer's matrices, and of the output matrix, for all tokens of a batch.
  Recorded record(const std::vector<SliceTuple>& batch) {
    const std::shared_ptr<Engine> engine = get();
    const ModelConfig& c = engine->config();
    std::vector<Slice> slices;
    int64_t count = 0;
    for (const auto& [sequence, tokens, wanted] : batch) {
      const auto all = static_cast<int64_t>(tokens.size());
      slices.push_back({sequence, {tokens.data(), tokens.data() + all}, all});
      count += all;
    }
    const auto rows = static_cast<size_t>(count), layers = static_cast<size_t>(c.layers);
    const auto width = static_cast<size_t>(c.width);
    const auto used = static_cast<size_t>(c.ff_rows_per_token());
    Recorded found;
    const auto array = [&](const char* name, std::vector<size_t> shape) {
      size_t size = 1;
      for (const size_t extent : shape) size *= extent;
      float* data = std::make_unique_for_overwrite<float[]>(size).release();
      nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
      found[name] = nb::ndarray<nb::numpy, float>(data, shape.size(), shape.data(), owner);
      return data;
    };
    float* output = array("output", {rows, width});
    InputRecord record{array("qkv", {layers, rows, width}),
                       array("o", {layers, rows, static_cast<size_t>(c.mixed_width())}),
                       array("ffn", {layers, rows, width}),
                       array("down", {layers, rows * used, static_cast<size_t>(c.ff_width)}),
                       nullptr,
                       nullptr,
                       nullptr,
                       nullptr,
                       nullptr,
                       count};
    if (c.has_beside()) record.dense = array("dense", {layers, rows, width});
    if (c.dense_ff_width) {
      record.dense_down =
          array("dense_down", {layers, rows, static_cast<size_t>(c.dense_ff_width)});
    }
    if (c.per_layer_width) {
      record.input_gate = array("input_gate", {layers, rows, width});
      record.input_proj =
          array("input_proj", {layers, rows, static_cast<size_t>(c.per_layer_width)});
    }
    // Some layers fill a part of these.
    if (!c.layer_mixer.empty() || !c.layer_head_dim.empty())
      std::fill_n(record.o, layers * rows * static_cast<size_t>(c.mixed_width()), 0.0f);
    if (!c.layer_ff_width.empty() || c.dense_layers)
      std::fill_n(record.down, layers * rows * used * static_cast<size_t>(c.ff_width), 0.0f);
    if (c.dense_layers)
      std::fill_n(record.dense_down, layers * rows * static_cast<size_t>(c.dense_ff_width), 0.0f);
    auto experts = std::make_unique_for_overwrite<int32_t[]>(layers * rows * used);
    std::fill_n(experts.get(), layers * rows * used, -1);  // of layers that have none
    record.experts = experts.get();
    {
      const nb::gil_scoped_release unlocked;
      engine->step(slices, Decoder::Output::kHidden, output, &record);
    }
    if (c.experts) {
      const size_t shape[] = {layers, rows, used};
      int32_t* data = experts.release();
      nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<int32_t*>(p); });
      found["experts"] = nb::ndarray<nb::numpy, int32_t>(data, 3, shape, owner);
    }
    return found;
  }

  std::shared_ptr<Engine> get() const {
    if (!engine_) throw Closed("the engine is closed");
    return engine_;
  }
  void shutdown() { engine_.reset(); }
  const EngineMemory& memory() const { return memory_; }

 private:
  std::shared_ptr<Engine> engine_;
  EngineMemory memory_{};
};

}  // namespace

void bind_engine(nb::module_& m) {
  nb::exception<ContextFull>(m, "ContextFull", PyExc_RuntimeError);
  nb::exception<Closed>(m, "Closed", PyExc_RuntimeError);
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const std::system_error& e) {
      PyErr_SetString(PyExc_OSError, e.what());
    }
  });

  m.def("kv_types", &kv_types, "Names of the types that a KV cache can have.");
  m.def(
      "engine_memory",
      [](const Config& config, const std::vector<TensorTuple>& tensors, int64_t context,
         int threads, int64_t batch, const std::string& k, const std::string& v) {
        return memory_dict(Engine::memory(config_from(config), sources_from(tensors),
                                          options_from(context, batch, threads, k, v)));
      },
      nb::arg("config"), nb::arg("tensors"), nb::arg("context"), nb::arg("threads"),
      nb::arg("batch"), nb::arg("kv_type_k"), nb::arg("kv_type_v"),
      "Resident bytes an engine would take: {'weights', 'kv', 'scratch'}, from shapes alone.");

  nb::class_<PyEngine>(m, "Engine", "A loaded model and the sequences it has opened.")
      .def(nb::init<const Config&, const std::vector<TensorTuple>&, int64_t, int, int64_t,
                    const std::string&, const std::string&, int>(),
           nb::arg("config"), nb::arg("tensors"), nb::arg("context"), nb::arg("threads"),
           nb::arg("batch"), nb::arg("kv_type_k"), nb::arg("kv_type_v"),
           nb::arg("batch_threads") = 0,
           "Packs the tensors (name, path, type, offset, rows, cols) into memory. Steps of many\n"
           "tokens take batch_threads (0: as many as threads).")
      .def(
          "open", [](PyEngine& e) { return e.get()->open(); }, "Opens an empty sequence.")
      .def(
          "step",
          [](PyEngine& e, const std::vector<SliceTuple>& batch) {
            return e.step(batch, Decoder::Output::kLogits);
          },
          nb::arg("batch"),
          "Appends (sequence, int32 tokens, wanted) slices; logits (sum of wanted, vocab).")
      .def(
          "embed",
          [](PyEngine& e, const std::vector<SliceTuple>& batch) {
            return e.step(batch, Decoder::Output::kHidden);
          },
          nb::arg("batch"), "As step, but returns normalised hidden states (wanted, width).")
      .def("record", &PyEngine::record, nb::arg("batch"),
           "Appends slices; what the matrices were multiplied with, float32: {'qkv', 'o', 'ffn',\n"
           "'down'} (layers, tokens, columns), and 'output' (tokens, width). With experts, 'down' "
           "has\n"
           "their rows one after the other and int32 'experts' (layers, tokens, used) says which.")
      .def(
          "replace",
          [](PyEngine& e, const std::string& tensor, const ByteArray& data) {
            const nb::gil_scoped_release unlocked;
            e.get()->replace(tensor, data.data(), data.size());
          },
          nb::arg("tensor"), nb::arg("data"),
          "Packs other rows, in the tensor's own type, over those of a tensor of the graph.")
      .def(
          "trim", [](PyEngine& e, int64_t s, int64_t length) { return e.get()->trim(s, length); },
          nb::arg("sequence"), nb::arg("length"),
          "Forgets all but the first `length` tokens, and returns how many are left: fewer where\n"
          "recurrent layers have no state of that length.")
      .def(
          "close", [](PyEngine& e, int64_t s) { e.get()->close(s); }, nb::arg("sequence"),
          "Closes a sequence and gives its memory back.")
      .def(
          "length", [](PyEngine& e, int64_t s) { return e.get()->length(s); }, nb::arg("sequence"),
          "Tokens stored in a sequence.")
      .def(
          "state",
          [](PyEngine& e, int64_t s) {
            const std::shared_ptr<Engine> engine = e.get();
            std::unique_ptr<uint8_t[]> state;
            size_t size = 0;
            {
              const nb::gil_scoped_release unlocked;
              engine->state(s, [&](size_t bytes) {
                size = bytes;
                state = std::make_unique_for_overwrite<uint8_t[]>(bytes);
                return state.get();
              });
            }
            uint8_t* data = state.get();
            nb::capsule owner(state.release(),
                              [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
            return ByteVector(data, {size}, owner);
          },
          nb::arg("sequence"), "The keys and values of a sequence, and its running state.")
      .def(
          "restore",
          [](PyEngine& e, int64_t s, const ByteArray& state, int64_t length) {
            const std::shared_ptr<Engine> engine = e.get();
            const nb::gil_scoped_release unlocked;
            engine->restore(s, state.data(), state.size(), length);
          },
          nb::arg("sequence"), nb::arg("state"), nb::arg("length"),
          "Makes an empty sequence as if it had read the tokens of a state.")
      .def(
          "add_adapter",
          [](PyEngine& e, const nb::iterable& changes) {
            const nb::iterator end = nb::iterator::sentinel();
            nb::iterator next = nb::iter(changes);
            LowRankTuple change;
            return e.get()->add_adapter([&](LowRankSource& source) {
              if (next == end) return false;
              change = nb::cast<LowRankTuple>(*next);
              ++next;
              const auto& [name, a, b] = change;
              if (a.shape(0) != b.shape(1))
                throw std::invalid_argument("the adapter's ranks of " + name + " differ");
              source = {name,
                        a.data(),
                        b.data(),
                        static_cast<int64_t>(a.shape(0)),
                        static_cast<int64_t>(b.shape(0)),
                        static_cast<int64_t>(a.shape(1))};
              return true;
            });
          },
          nb::arg("changes"),
          nb::sig("def add_adapter(self, changes: collections.abc.Iterable[tuple[str, "
                  "numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32]]]) "
                  "-> int"),
          "Takes low-rank changes in, (matrix, A (rank, columns), B (rows, rank)) each, one after\n"
          "the other, and returns the adapter's number.")
      .def(
          "remove_adapter", [](PyEngine& e, int64_t adapter) { e.get()->remove_adapter(adapter); },
          nb::arg("adapter"), "Forgets an adapter; sequences that use it still do.")
      .def(
          "set_adapters",
          [](PyEngine& e, int64_t s, const std::vector<std::pair<int64_t, float>>& adapters) {
            e.get()->set_adapters(s, adapters);
          },
          nb::arg("sequence"), nb::arg("adapters"),
          "Computes an empty sequence with adapters, (number, scale) each, from now on.")
      .def("shutdown", &PyEngine::shutdown, "Gives the weights back.")
      .def(
          "memory", [](const PyEngine& e) { return memory_dict(e.memory()); },
          "Resident bytes at the peak: {'weights', 'kv', 'scratch'}.");
}

}  // namespace edgeinfer
