#include "core/session.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include "core/optimizer_file.h"
#include "core/text_encoding.h"
#include "error.h"

namespace peft {
namespace {

int set_threads(int threads) {
  if (threads > 0) at::set_num_threads(threads);
  return at::get_num_threads();
}

std::unique_ptr<ModelParameters> trainable_model(const SessionOptions& o) {
  const WeightStorage storage = o.storage.value_or(WeightStorage{});
  check_storage(storage);
  if (storage.format != WeightFormat::kFloat32) {
    throw EngineError("USAGE", std::string("Weights held as ") + weight_format_name(storage.format) +
                                   " do not train; expected float32");
  }
  return std::make_unique<ModelParameters>(o.weights_path, o.shape, storage.products, parse_device(o.device));
}

std::vector<float> to_vector(const Tensor& tensor) {
  const Tensor host = tensor.to(at::kCPU).contiguous();
  const float* data = host.const_data_ptr<float>();
  return std::vector<float>(data, data + host.numel());
}

std::map<std::string, std::vector<float>> to_vectors(const std::map<std::string, Tensor>& tensors) {
  std::map<std::string, std::vector<float>> out;
  for (const auto& [key, tensor] : tensors) out[key] = to_vector(tensor);
  return out;
}

}  // namespace

Session::Session(const SessionOptions& options)
    : threads_(set_threads(options.threads)),
      weights_path_(options.weights_path),
      products_(options.storage.value_or(WeightStorage{}).products),
      model_(options.trainable ? trainable_model(options) : nullptr),
      encoder_(options.shape,
               model_ ? model_->weights()
                      : load_bert_weights(options.weights_path, options.shape, options.storage,
                                          parse_device(options.device)),
               options.pooling, parse_device(options.device), options.activation_checkpointing) {
  if (!model_) return;
  encoder_.train(model_->gradients());
  model_adam_ = std::make_unique<Adam>(*model_);
}

SessionInfo Session::info() const {
  int64_t trainable = model_ ? model_->trained_count() : 0;
  for (const auto& [name, lora] : adapters_) trainable += lora.parameter_count();
  return {encoder_.device().str(), threads_, encoder_.weights().parameters, trainable,
          model_ ? 0 : encoder_.weights().bytes()};
}

MemoryPlan Session::memory(int64_t micro_batch_tokens, bool training,
                           const std::optional<std::string>& only) {
  const BertWeights& w = encoder_.weights();
  std::vector<AdapterLayers*> layers;
  MemoryPlan plan;
  DropoutPlan dropout;
  if (only) adapter(*only, "memory");
  for (auto& [name, lora] : adapters_) {
    if (only && name != *only) continue;
    layers.push_back(&lora.layers());
    const bool planned = training && !lora.weights().gradient().defined();
    plan.adapter += lora.bytes() + (planned ? 4 * lora.parameter_count() : 0);
    if (!training) continue;
    plan.optimizer += 8 * lora.parameter_count();
    dropout.adapter_rate = std::max(dropout.adapter_rate, static_cast<float>(lora.weights().dropout()));
  }
  encoder_.use(layers, LoraUse::kPlan, dropout);
  plan.linear = w.linear_bytes() + (training ? encoder_.gradient_bytes() : 0);
  plan.embeddings = w.embedding_bytes();
  plan.other = w.other_bytes;
  plan.float32_weights = 4 * w.parameters;
  if (model_) {
    plan.embeddings = 0;
    plan.other = model_->untouched_bytes();
    plan.adapter = 8 * model_->trained_count();
    plan.optimizer = 8 * model_->trained_count();
    // Both packed copies, were they fp32.
    const int64_t d = encoder_.shape().hidden_size, f = encoder_.shape().intermediate_size;
    plan.float32_weights = 8 * encoder_.shape().num_layers * (4 * d * d + 2 * d * f) + plan.other;
  }
  plan.activations = encoder_.planned_activations(micro_batch_tokens, training);
  return plan;
}

BaseMatrices Session::base_matrices() const { return {encoder_.weights(), encoder_.shape(), weights_path_}; }

std::vector<AdapterInfo> Session::adapters() const {
  std::vector<AdapterInfo> all;
  for (const auto& [name, lora] : adapters_)
    all.push_back({name, lora.parameter_count(), lora.bytes(), lora.merged_from()});
  return all;
}

std::unique_ptr<Adapter> Session::make_adapter(const AdapterSpec& spec) const {
  auto adapter = std::make_unique<Adapter>(spec, encoder_.shape(), encoder_.weights().has_pooler,
                                           encoder_.device(), products_);
  // What trains of the base model decides how much a pass keeps, which is planned before the first.
  if (!adapter->own().empty()) adapter->require_gradient();
  return adapter;
}

void Session::create_adapter(const AdapterSpec& spec, uint64_t seed, const std::string& name) {
  auto adapter = make_adapter(spec);
  adapter->initialize(seed, base_matrices());
  install(name, std::move(adapter));
}

void Session::load_adapter(const std::string& path, const AdapterSpec& spec, const std::string& name) {
  auto adapter = make_adapter(spec);
  adapter->load(path, base_matrices());
  install(name, std::move(adapter));
}

void Session::install(const std::string& name, std::unique_ptr<Adapter> adapter) {
  if (model_) throw EngineError("USAGE", "The model itself trains: it takes no adapter");
  remove_adapter(name);
  adapters_.emplace(name, LoadedAdapter(std::move(adapter), encoder_.shape()));
}

void Session::save_adapter(const std::string& path, const std::string& name) {
  adapter(name, "saveAdapter").weights().save(path);
}

void Session::save_optimizer(const std::string& path, const std::string& name) {
  const Trained what = trained(name, "saveOptimizer");
  what.deferred.require_none();
  peft::save_optimizer(path, what.parameters, what.adam);
}

void Session::load_optimizer(const std::string& path, const std::string& name) {
  const c10::InferenceMode no_grad;
  const Trained what = trained(name, "loadOptimizer");
  what.deferred.require_none();
  peft::load_optimizer(path, what.parameters, what.adam);
}

void Session::remove_adapter(const std::string& name) {
  encoder_.use({}, LoraUse::kPlan, {});
  adapters_.erase(name);
  remove_merged_from(name);
}

void Session::remove_merged_from(const std::string& name) {
  std::erase_if(adapters_, [&](const auto& entry) { return entry.second.merged_from() == name; });
}

MergeInfo Session::merge_adapter(const std::string& name, const std::string& merged, bool exact) {
  const c10::InferenceMode no_grad;
  LoadedAdapter& lora = adapter(name, "mergeAdapter");
  lora.deferred().require_none();
  if (!lora.merged_from().empty())
    throw EngineError("USAGE", "mergeAdapter: \"" + name + "\" is \"" + lora.merged_from() + "\", merged");
  if (adapters_.count(merged) != 0)
    throw EngineError("USAGE", "mergeAdapter: there is an adapter \"" + merged + "\" already");
  WeightStorage storage = encoder_.weights().storage;
  if (exact) storage.format = WeightFormat::kFloat32;
  auto weights = std::make_unique<MergedWeights>(lora.layers().all(), lora.layers().own(), encoder_.weights(),
                                                 storage, encoder_.device());
  const MergeInfo info{weights->modules(), weights->bytes()};
  adapters_.emplace(merged, LoadedAdapter(lora, name, std::move(weights)));
  return info;
}

std::map<std::string, std::vector<float>> Session::adapter_weights(const std::string& name) {
  return to_vectors(adapter(name, "adapterWeights").weights().named_weights());
}

void Session::save_model(const std::string& path) const { model("saveModel").save(path); }

void Session::load_model(const std::string& path) {
  const c10::InferenceMode no_grad;
  model("loadModel").load(path);
}

std::map<std::string, std::vector<float>> Session::model_weights() const {
  return to_vectors(model("modelWeights").named_weights());
}

ModelParameters& Session::model(const char* caller) const {
  if (!model_)
    throw EngineError("USAGE", std::string(caller) + " needs a model that was opened as trainable");
  return *model_;
}

Trained Session::trained(const std::string& name, const char* caller) {
  if (model_) return {*model_, *model_adam_, model_deferred_, nullptr};
  require_unmerged(adapters_, name, caller);
  LoadedAdapter& lora = adapter(name, caller);
  Adam& adam = lora.adam();
  return {lora.weights(), adam, lora.deferred(), &lora};
}

LoadedAdapter& Session::adapter(const std::string& name, const char* caller) {
  return adapter_named(adapters_, name, caller);
}

StepResult Session::step(const ExampleBatch& batch, const StepOptions& options) {
  const c10::InferenceMode no_grad;
  return take_step(encoder_, trained(options.pass.adapter, "step"), batch, options);
}

void Session::queue_step(const ExampleBatch& batch, const StepOptions& options) {
  const c10::InferenceMode no_grad;
  peft::queue_step(encoder_, trained(options.pass.adapter, "queueStep"), batch, options);
}

std::vector<StepResult> Session::step_results(const std::string& name) {
  const c10::InferenceMode no_grad;
  return peft::step_results(trained(name, "stepResults"));
}

double Session::gradients(const ExampleBatch& batch, const PassOptions& options,
                          std::map<std::string, std::vector<float>>& out) {
  const c10::InferenceMode no_grad;
  const Trained what = trained(options.adapter, "gradients");
  const double loss = take_gradient(encoder_, what, batch, options);
  out = to_vectors(what.parameters.named_gradients());
  return loss;
}

std::vector<float> Session::encode(const TokenBatch& batch, const AdapterChoice& choice, bool normalize,
                                   int64_t micro_batch_tokens) {
  const c10::InferenceMode no_grad;
  check_batch(batch, encoder_.shape());
  const TextAdapters used = text_adapters(adapters_, choice, batch.texts());
  return encode_texts(encoder_, batch, used, normalize, micro_batch_tokens);
}

std::map<std::string, std::vector<float>> Session::input_components(const TokenBatch& batch,
                                                                    const std::vector<InputSite>& sites,
                                                                    int64_t micro_batch_tokens) {
  const c10::InferenceMode no_grad;
  check_batch(batch, encoder_.shape());
  return peft::input_components(encoder_, batch, sites, micro_batch_tokens);
}

}  // namespace peft
