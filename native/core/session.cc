#include "core/session.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/optimizer_file.h"
#include "error.h"

namespace peft {
namespace {

at::Device parse_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  const int count = cuda_device_count();
  const std::string index = name == "cuda" ? "0" : name.compare(0, 5, "cuda:") == 0 ? name.substr(5) : "";
  if (index.empty() || index.size() > 3 || index.find_first_not_of("0123456789") != std::string::npos) {
    throw EngineError("USAGE", "Unknown device \"" + name + "\"; expected cpu, cuda or cuda:N");
  }
  if (std::stoi(index) >= count) {
    throw EngineError(
        "DEVICE_UNAVAILABLE",
        "Device " + name + " was asked for, but libtorch sees " + std::to_string(count) + " CUDA devices",
        "Use --device cpu, or check the driver with nvidia-smi.");
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(std::stoi(index)));
}

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

/// In parts, for ATen sums floats in double by way of a copy.
double norm_of(const Tensor& gradient) {
  constexpr int64_t kPart = 1 << 22;
  double squares = 0;
  for (const Tensor& part : gradient.split(kPart)) {
    const double norm = part.norm(2, at::kDouble).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

std::string first_not_finite(const TrainedParameters& parameters) {
  for (const auto& [key, gradient] : parameters.named_gradients()) {
    if (!gradient.isfinite().all().item<bool>()) return key;
  }
  return "unknown";
}

}  // namespace

int cuda_device_count() {
  return at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
}

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
  if (only) adapter(*only, "memory");
  for (auto& [name, lora] : adapters_) {
    if (only && name != *only) continue;
    layers.push_back(&lora.layers());
    const bool planned = training && !lora.weights().gradient().defined();
    plan.adapter += lora.bytes() + (planned ? 4 * lora.parameter_count() : 0);
    if (training) plan.optimizer += 8 * lora.parameter_count();
  }
  encoder_.use(layers, LoraUse::kPlan, {});
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
  peft::save_optimizer(path, what.parameters, what.adam);
}

void Session::load_optimizer(const std::string& path, const std::string& name) {
  const c10::InferenceMode no_grad;
  const Trained what = trained(name, "loadOptimizer");
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
  const LoadedAdapter& lora = adapter(name, "mergeAdapter");
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

void Session::require_unmerged(const std::string& name, const char* caller) const {
  for (const auto& [other, lora] : adapters_) {
    if (lora.merged_from().empty() || (other != name && lora.merged_from() != name)) continue;
    throw EngineError("USAGE", std::string(caller) + ": the adapter \"" + name + "\" is merged into the base",
                      "Remove \"" + other + "\", which holds the merged weights, first.");
  }
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

Session::Trained Session::trained(const std::string& name, const char* caller) {
  if (model_) return {*model_, *model_adam_, nullptr};
  require_unmerged(name, caller);
  LoadedAdapter& lora = adapter(name, caller);
  Adam& adam = lora.adam();
  return {lora.weights(), adam, &lora};
}

LoadedAdapter& Session::adapter(const std::string& name, const char* caller) {
  const auto found = adapters_.find(name);
  if (found != adapters_.end()) return found->second;
  if (name == kDefaultAdapter)
    throw EngineError("USAGE",
                      std::string(caller) + " needs an adapter; call createAdapter or loadAdapter first");
  throw EngineError("USAGE", std::string(caller) + ": no adapter \"" + name + "\" is loaded");
}

void Session::use_for_training(LoadedAdapter* lora, const DropoutPlan& dropout) {
  std::vector<AdapterLayers*> layers;
  if (lora != nullptr) layers.push_back(&lora->layers());
  encoder_.use(layers, LoraUse::kTraining, dropout);
}

double Session::accumulate(const Trained& what, const ExampleBatch& batch, const PassOptions& options,
                           double scale) {
  const ModelShape& shape = encoder_.shape();
  check_examples(batch, shape);
  const Objective objective(options.loss, shape.hidden_size);
  objective.check(batch.texts_per_example, batch.examples(), static_cast<int64_t>(batch.labels.size()));
  what.parameters.gradient().zero_();
  use_for_training(
      what.lora, {static_cast<float>(shape.hidden_dropout), static_cast<float>(shape.attention_dropout),
                  static_cast<float>(what.lora == nullptr ? 0 : what.lora->weights().dropout()), options.seed,
                  options.step});
  const auto runs = split_batch(batch.tokens, batch.encoded_per_example(), options.micro_batch_tokens);
  const double loss = objective.separable() ? accumulate_apart(batch, runs, objective, scale)
                                            : accumulate_together(batch, runs, objective, scale);
  const double kept =
      batch.kept.weight == 0 ? 0 : accumulate_kept(what.lora, batch.kept, options.micro_batch_tokens, scale);
  if (what.lora != nullptr) what.lora->weights().own().clear_still_gradients();
  return loss + kept;
}

double Session::accumulate_apart(const ExampleBatch& batch, const TextRuns& runs, const Objective& objective,
                                 double scale) {
  const int64_t examples = batch.examples(), encoded_each = batch.encoded_per_example();
  const int64_t labels_each = static_cast<int64_t>(batch.labels.size()) / examples;
  double value = 0;
  for (const auto& [first, texts] : runs) {
    const MicroBatch micro = make_micro_batch(batch.tokens, first, texts, encoder_.device());
    const int64_t first_example = first / encoded_each;
    const auto labels = at::ArrayRef<float>(batch.labels)
                            .slice(first_example * labels_each, texts / encoded_each * labels_each);
    const Tensor vectors = with_fixed(batch, first_example, encoder_.forward(micro, true));
    const LossValue loss = objective(vectors, batch.texts_per_example, labels, examples);
    encoder_.backward(micro, without_fixed(batch, loss.gradient).mul(scale));
    value += loss.value;
  }
  return value;
}

double Session::accumulate_together(const ExampleBatch& batch, const TextRuns& runs,
                                    const Objective& objective, double scale) {
  const auto micro_batch = [&](const TextRun& run) {
    return make_micro_batch(batch.tokens, run.first, run.second, encoder_.device());
  };
  Tensor pooled = at::empty({batch.tokens.texts(), encoder_.shape().hidden_size},
                            at::TensorOptions().dtype(at::kFloat).device(encoder_.device()));
  // What the last run keeps is still there when backward begins, so that run goes forward once only, and so
  // does a batch that is a single run.
  for (const TextRun& run : runs) {
    const bool last = &run == &runs.back();
    pooled.narrow(0, run.first, run.second).copy_(encoder_.forward(micro_batch(run), last));
  }
  const LossValue loss =
      objective(with_fixed(batch, 0, pooled), batch.texts_per_example, batch.labels, batch.examples());
  const Tensor gradient = without_fixed(batch, loss.gradient);
  for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
    const MicroBatch micro = micro_batch(*run);
    if (run != runs.rbegin()) encoder_.forward(micro, true);
    encoder_.backward(micro, gradient.narrow(0, run->first, run->second).mul(scale));
  }
  return loss.value;
}

double Session::accumulate_kept(LoadedAdapter* lora, const KeptTexts& kept, int64_t micro_batch_tokens,
                                double scale) {
  const int64_t d = encoder_.shape().hidden_size;
  const Objective distance({.kind = LossKind::kMse}, d);
  // 1 - cos is half the squared distance of unit vectors, of which that loss is the mean over d entries.
  const double weight = kept.weight * static_cast<double>(d) / 2;
  use_for_training(lora, {});
  double value = 0;
  for (const auto& [first, texts] : split_batch(kept.tokens, 1, micro_batch_tokens)) {
    const MicroBatch micro = make_micro_batch(kept.tokens, first, texts, encoder_.device());
    const auto vectors = at::ArrayRef<float>(kept.vectors).slice(first * d, texts * d);
    LossValue loss = distance(encoder_.forward(micro, true), 1, vectors, kept.tokens.texts());
    encoder_.backward(micro, loss.gradient.mul_(weight * scale));
    value += weight * loss.value;
  }
  return value;
}

StepResult Session::step(const ExampleBatch& batch, const StepOptions& options) {
  const c10::InferenceMode no_grad;
  const Trained what = trained(options.pass.adapter, "step");
  StepResult result;
  const bool scaled = options.loss_scale > 0;
  result.loss = accumulate(what, batch, options.pass, scaled ? options.loss_scale : 1);
  Tensor gradient = what.parameters.gradient();
  if (scaled) gradient.div_(options.loss_scale);
  result.grad_norm = norm_of(gradient);
  if (scaled && !std::isfinite(result.grad_norm)) {
    result.not_finite = first_not_finite(what.parameters);
    return result;
  }
  if (!std::isfinite(result.grad_norm)) {
    throw EngineError("NOT_FINITE", "The gradient of " + first_not_finite(what.parameters) + " is not finite",
                      "Lower --learning_rate, or set --max_grad_norm 1.");
  }
  // As torch.nn.utils.clip_grad_norm_, with its 1e-6.
  if (options.max_grad_norm > 0 && result.grad_norm > options.max_grad_norm) {
    gradient.mul_(options.max_grad_norm / (result.grad_norm + 1e-6));
  }
  what.adam.step(what.parameters, options.adam);
  return result;
}

double Session::gradients(const ExampleBatch& batch, const PassOptions& options,
                          std::map<std::string, std::vector<float>>& out) {
  const c10::InferenceMode no_grad;
  const Trained what = trained(options.adapter, "gradients");
  const double loss = accumulate(what, batch, options, 1);
  out = to_vectors(what.parameters.named_gradients());
  return loss;
}

Session::TextAdapters Session::text_adapters(const AdapterChoice& choice, int64_t texts) {
  using Texts = AdapterChoice::Texts;
  if (choice.texts == Texts::kBase || texts == 0) return {};
  if (choice.texts == Texts::kDefault) {
    const auto found = adapters_.find(kDefaultAdapter);
    return found == adapters_.end() ? TextAdapters{} : TextAdapters{{&found->second}, {}};
  }
  if (choice.texts == Texts::kNamed) return {{&adapter(choice.names.front(), "encode")}, {}};
  if (static_cast<int64_t>(choice.of_text.size()) != texts) {
    throw EngineError("USAGE", "encode: expected the adapter of " + std::to_string(texts) + " texts, got " +
                                   std::to_string(choice.of_text.size()));
  }
  TextAdapters used;
  std::vector<int32_t> place(choice.names.size(), -1);
  for (const int32_t name : choice.of_text) {
    if (name < -1 || name >= static_cast<int32_t>(choice.names.size())) {
      throw EngineError("USAGE", "encode: adapter " + std::to_string(name) + " of a text; there are " +
                                     std::to_string(choice.names.size()) + " names");
    }
    if (name >= 0 && place[name] < 0) {
      place[name] = static_cast<int32_t>(used.adapters.size());
      used.adapters.push_back(&adapter(choice.names[name], "encode"));
    }
    used.of_text.push_back(name < 0 ? -1 : place[name]);
  }
  const bool alike = std::ranges::all_of(used.of_text, [&](int32_t a) { return a == used.of_text.front(); });
  if (alike) used.of_text.clear();
  return used;
}

std::vector<float> Session::encode(const TokenBatch& batch, const AdapterChoice& choice, bool normalize,
                                   int64_t micro_batch_tokens) {
  const c10::InferenceMode no_grad;
  check_batch(batch, encoder_.shape());
  const TextAdapters used = text_adapters(choice, batch.texts());
  std::vector<float> rows(static_cast<size_t>(batch.texts() * encoder_.shape().hidden_size));
  std::vector<int64_t> all(static_cast<size_t>(batch.texts()));
  std::iota(all.begin(), all.end(), 0);
  if (used.of_text.empty()) {
    use_for_encoding(used.adapters);
    encode_in_order(batch, all, {}, normalize, micro_batch_tokens, rows);
    return rows;
  }
  // Where the base itself differs from text to text, texts take turns: those of each adapter that replaces
  // some of it, and all others.
  std::vector<std::vector<int64_t>> apart(used.adapters.size());
  std::vector<int64_t> together;
  for (const int64_t text : all) {
    const int32_t adapter = used.of_text[text];
    const bool replaces = adapter >= 0 && used.adapters[adapter]->layers().replaces_base();
    (replaces ? apart[adapter] : together).push_back(text);
  }
  for (size_t adapter = 0; adapter < apart.size(); adapter++) {
    const std::vector<int64_t>& texts = apart[adapter];
    if (texts.empty()) continue;
    use_for_encoding({used.adapters[adapter]});
    encode_in_order(gather_texts(batch, texts), texts, {}, normalize, micro_batch_tokens, rows);
  }
  encode_mixed(batch, std::move(together), used, normalize, micro_batch_tokens, rows);
  return rows;
}

void Session::use_for_encoding(const std::vector<LoadedAdapter*>& adapters) {
  std::vector<AdapterLayers*> layers;
  for (LoadedAdapter* lora : adapters) layers.push_back(&lora->layers());
  encoder_.use(layers, LoraUse::kForward, {});
}

void Session::encode_mixed(const TokenBatch& batch, std::vector<int64_t> texts, const TextAdapters& used,
                           bool normalize, int64_t micro_batch_tokens, std::vector<float>& rows) {
  if (texts.empty()) return;
  // Texts of one adapter lie together, so that its factors are read once for many rows.
  std::ranges::stable_sort(texts, {}, [&](int64_t text) { return used.of_text[text]; });
  std::vector<LoadedAdapter*> adapters;
  std::vector<int32_t> adapter_of_text;
  int32_t last = -1;
  for (const int64_t text : texts) {
    const int32_t adapter = used.of_text[text];
    if (adapter != last) adapters.push_back(used.adapters[adapter]);
    last = adapter;
    adapter_of_text.push_back(static_cast<int32_t>(adapters.size()) - 1);
  }
  use_for_encoding(adapters);
  encode_in_order(gather_texts(batch, texts), texts, adapter_of_text, normalize, micro_batch_tokens, rows);
}

std::map<std::string, std::vector<float>> Session::input_components(const TokenBatch& batch,
                                                                    const std::vector<InputSite>& sites,
                                                                    int64_t micro_batch_tokens) {
  const c10::InferenceMode no_grad;
  check_batch(batch, encoder_.shape());
  InputComponents components(sites, encoder_.shape());
  encoder_.use({}, LoraUse::kForward, {});
  encoder_.observe(
      [&](int64_t layer, LayerMatrix matrix, const Tensor& x) { components.add(layer, matrix, x); });
  try {
    for (const auto& [first, texts] : split_batch(batch, 1, micro_batch_tokens))
      encoder_.forward(make_micro_batch(batch, first, texts, encoder_.device()), false);
  } catch (...) {
    encoder_.observe({});
    throw;
  }
  encoder_.observe({});
  return components.result();
}

void Session::encode_in_order(const TokenBatch& batch, const std::vector<int64_t>& row_of_text,
                              const std::vector<int32_t>& adapter_of_text, bool normalize,
                              int64_t micro_batch_tokens, std::vector<float>& rows) {
  const int64_t d = encoder_.shape().hidden_size;
  for (const auto& [first, texts] : split_batch(batch, 1, micro_batch_tokens)) {
    const MicroBatch micro = make_micro_batch(batch, first, texts, encoder_.device(), adapter_of_text);
    const Tensor pooled = encoder_.forward(micro, false);
    const Tensor out = (normalize ? normalize_rows(pooled) : pooled).to(at::kCPU).contiguous();
    if (!out.isfinite().all().item<bool>()) {
      const int64_t text = first + out.isfinite().all(1).logical_not().nonzero()[0][0].item<int64_t>();
      throw EngineError(
          "NOT_FINITE",
          "The vector of text " + std::to_string(row_of_text[static_cast<size_t>(text)]) + " is not finite",
          encoder_.adapted()
              ? "The adapter or the model holds weights too large to run; train it again at a lower rate."
              : "The model holds weights too large to run: copy it from its origin again.");
    }
    for (int64_t i = 0; i < texts; i++) {
      std::memcpy(rows.data() + row_of_text[static_cast<size_t>(first + i)] * d,
                  out.const_data_ptr<float>() + i * d, static_cast<size_t>(d) * sizeof(float));
    }
  }
}

}  // namespace peft
