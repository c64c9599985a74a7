#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base_matrices.h"
#include "core/device.h"
#include "core/encoder.h"
#include "core/input_components.h"
#include "core/loaded_adapter.h"
#include "core/model_parameters.h"
#include "core/training_step.h"

namespace peft {

struct SessionOptions {
  std::string weights_path;
  ModelShape shape;
  Pooling pooling = Pooling::kMean;
  std::string device = "cpu";
  int threads = 0;                            // 0: libtorch's default, one a physical core
  std::optional<WeightStorage> storage = {};  // without: as the file has them
  bool activation_checkpointing = false;
  bool trainable = false;  // the model itself trains, and not an adapter
};

struct SessionInfo {
  std::string device;
  int threads = 0;
  int64_t base_parameters = 0;
  int64_t trainable_parameters = 0;  // of all adapters
  int64_t frozen_bytes = 0;
};

/// What a run takes, in bytes, beside libtorch itself.
struct MemoryPlan {
  int64_t linear = 0;      // frozen matrices, with the packed copies that training in fp32 makes; the copies
                           // alone where they train
  int64_t embeddings = 0;  // tables
  int64_t other = 0;       // biases and LayerNorms
  int64_t adapter = 0;     // weights, what is packed of them, gradients, and weights with one merged in, of
                           // all adapters; or of the model itself where that trains
  int64_t optimizer = 0;   // Adam's two moments
  int64_t activations = 0;
  int64_t float32_weights = 0;  // the frozen weights, were they fp32 and kept once
};

struct AdapterInfo {
  std::string name;
  int64_t parameters = 0;
  int64_t bytes = 0;  // as it stands, without the optimiser
  std::string merged_from = {};
};

/// What merging has made.
struct MergeInfo {
  int64_t modules = 0;
  int64_t bytes = 0;
};

/// A loaded encoder with any number of adapters, by name, and their optimisers; or one that trains itself and
/// takes no adapter. Not thread-safe: one thread owns it.
class Session {
 public:
  explicit Session(const SessionOptions& options);

  SessionInfo info() const;
  /// For micro-batches of this many tokens; with a name, as if that adapter were the only one.
  MemoryPlan memory(int64_t micro_batch_tokens, bool training,
                    const std::optional<std::string>& name = std::nullopt);
  /// In the order of their names.
  std::vector<AdapterInfo> adapters() const;
  /// An adapter that has the name already is replaced, once the new one is complete: if this throws, the old
  /// one is as it was.
  void create_adapter(const AdapterSpec& spec, uint64_t seed, const std::string& name = kDefaultAdapter);
  void load_adapter(const std::string& path, const AdapterSpec& spec,
                    const std::string& name = kDefaultAdapter);
  void save_adapter(const std::string& path, const std::string& name = kDefaultAdapter);
  /// Adam's state beside what trains: with both, training goes on as if it had never stopped.
  void save_optimizer(const std::string& path, const std::string& name = kDefaultAdapter);
  void load_optimizer(const std::string& path, const std::string& name = kDefaultAdapter);
  /// Puts the adapter `name` into second copies of the frozen matrices that it changes, held as those are or,
  /// with `exact`, in fp32. Under the name `merged` texts are encoded with them: it takes no training, and
  /// goes when the adapter does. All else stays what it was.
  MergeInfo merge_adapter(const std::string& name, const std::string& merged, bool exact);
  /// Nothing happens where there is none of the name.
  void remove_adapter(const std::string& name = kDefaultAdapter);
  std::map<std::string, std::vector<float>> adapter_weights(const std::string& name = kDefaultAdapter);
  /// Of a trainable model: a model.safetensors with everything that its own had, and the way back.
  void save_model(const std::string& path) const;
  void load_model(const std::string& path);
  std::map<std::string, std::vector<float>> model_weights() const;

  /// Forward, backward and one Adam step over the whole batch. Nothing changes if it throws.
  StepResult step(const ExampleBatch& batch, const StepOptions& options);
  /// The same, asked of the device without waiting for it; what it came to is told by step_results(). A step
  /// that is not finite leaves everything as it was, and so do all of the same adapter that were queued after
  /// it. Without a loss scale.
  void queue_step(const ExampleBatch& batch, const StepOptions& options);
  /// Of the steps queued for an adapter since the last call, in order, up to the first that is not finite.
  std::vector<StepResult> step_results(const std::string& name = kDefaultAdapter);
  /// Forward and backward only; the loss, and the gradients keyed as the file of what trains is.
  double gradients(const ExampleBatch& batch, const PassOptions& options,
                   std::map<std::string, std::vector<float>>& out);
  /// One row of hidden_size floats a text, in the order of the texts. A text's numbers are those that it has
  /// when it is encoded alone, to the bit, whatever adapters the others have.
  std::vector<float> encode(const TokenBatch& batch, const AdapterChoice& choice, bool normalize,
                            int64_t micro_batch_tokens);
  /// Principal components of what goes into matrices of the base model, over all tokens of the texts, keyed
  /// as InputComponents has them.
  std::map<std::string, std::vector<float>> input_components(const TokenBatch& batch,
                                                             const std::vector<InputSite>& sites,
                                                             int64_t micro_batch_tokens);

 private:
  BaseMatrices base_matrices() const;
  std::unique_ptr<Adapter> make_adapter(const AdapterSpec& spec) const;
  void install(const std::string& name, std::unique_ptr<Adapter> adapter);
  LoadedAdapter& adapter(const std::string& name, const char* caller);
  ModelParameters& model(const char* caller) const;
  /// What a step trains: the adapter of the name, or the model.
  Trained trained(const std::string& name, const char* caller);
  void remove_merged_from(const std::string& name);

  int threads_;
  std::string weights_path_;
  WeightFormat products_;
  std::unique_ptr<ModelParameters> model_;  // of a trainable model: the encoder's weights are views of it
  std::unique_ptr<Adam> model_adam_;
  DeferredSteps model_deferred_;
  Encoder encoder_;
  LoadedAdapters adapters_;
};

}  // namespace peft
