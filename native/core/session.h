#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base_matrices.h"
#include "core/encoder.h"
#include "core/example_batch.h"
#include "core/input_components.h"
#include "core/loaded_adapter.h"
#include "core/model_parameters.h"
#include "core/objective.h"

namespace peft {

struct SessionOptions {
  std::string weights_path;
  ModelShape shape;
  Pooling pooling = Pooling::kMean;
  std::string device = "cpu";
  int threads = 0;                       // 0: libtorch's default, one a physical core
  std::optional<WeightStorage> storage;  // without: as the file has them
  bool activation_checkpointing = false;
  bool trainable = false;  // the model itself trains, and not an adapter
};

struct PassOptions {
  uint64_t seed = 0;
  uint32_t step = 0;
  int64_t micro_batch_tokens = 0;
  LossSpec loss = {};
  /// The one that is trained.
  std::string adapter = kDefaultAdapter;
};

struct StepOptions {
  PassOptions pass;
  AdamOptions adam;
  double max_grad_norm = 0;
  /// What the loss is multiplied with for backward, and the gradients divided by: keeps small ones within
  /// fp16's range. 0: neither, and a gradient that is not finite is an error.
  double loss_scale = 0;
};

struct StepResult {
  double loss = 0;
  double grad_norm = 0;
  /// With a loss scale: the first tensor whose gradient was not finite, so that nothing was changed.
  std::string not_finite;
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
  /// What a step trains: the adapter of the name, or the model, and then `lora` is null.
  struct Trained {
    TrainedParameters& parameters;
    Adam& adam;
    LoadedAdapter* lora;
  };
  Trained trained(const std::string& name, const char* caller);
  /// Throws USAGE for one that is merged, under either name.
  void require_unmerged(const std::string& name, const char* caller) const;
  void remove_merged_from(const std::string& name);
  /// The adapters that the texts of a batch take, and the place of each text's among them: -1 for none, and
  /// no places where all texts take the first or there is none.
  struct TextAdapters {
    std::vector<LoadedAdapter*> adapters = {};
    std::vector<int32_t> of_text = {};
  };
  TextAdapters text_adapters(const AdapterChoice& choice, int64_t texts);
  void use_for_encoding(const std::vector<LoadedAdapter*>& adapters);
  /// These texts of a batch, through adapters that share the base model's weights.
  void encode_mixed(const TokenBatch& batch, std::vector<int64_t> texts, const TextAdapters& used,
                    bool normalize, int64_t micro_batch_tokens, std::vector<float>& rows);
  /// Encodes the batch as it stands; text i's vector becomes row row_of_text[i].
  void encode_in_order(const TokenBatch& batch, const std::vector<int64_t>& row_of_text,
                       const std::vector<int32_t>& adapter_of_text, bool normalize,
                       int64_t micro_batch_tokens, std::vector<float>& rows);
  /// Makes what trains ready for passes with gradients.
  void use_for_training(LoadedAdapter* lora, const DropoutPlan& dropout);
  /// The loss of the batch; leaves its gradient in what trains.
  double accumulate(const Trained& trained, const ExampleBatch& batch, const PassOptions& options,
                    double scale);
  /// Run by run: the loss is a mean over examples that know nothing of each other.
  double accumulate_apart(const ExampleBatch& batch, const TextRuns& runs, const Objective& objective,
                          double scale);
  /// All runs forward, the loss of all their vectors, then each run forward again and backward, with the same
  /// dropout masks: exact, in the memory of one run. Gao et al., "Scaling Deep Contrastive Learning Batch
  /// Size under Memory Limited Setup" (GradCache), 2021.
  double accumulate_together(const ExampleBatch& batch, const TextRuns& runs, const Objective& objective,
                             double scale);
  /// The same of the texts that are to stay where they are. Without dropout, whose noise would pass for
  /// drift.
  double accumulate_kept(LoadedAdapter* lora, const KeptTexts& kept, int64_t micro_batch_tokens,
                         double scale);

  int threads_;
  std::string weights_path_;
  WeightFormat products_;
  std::unique_ptr<ModelParameters> model_;  // of a trainable model: the encoder's weights are views of it
  std::unique_ptr<Adam> model_adam_;
  Encoder encoder_;
  std::map<std::string, LoadedAdapter> adapters_;
};

/// Number of CUDA devices that libtorch sees; 0 without a CUDA build or driver.
int cuda_device_count();

}  // namespace peft
