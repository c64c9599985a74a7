#include "model_cases.h"

#include <ATen/ATen.h>

#include "oracle.h"
#include "weights/safetensors.h"

namespace peft::cuda {
namespace {

using test::TemporaryFile;

/// fp32 sums in another order, through every layer and back: of the largest entry.
constexpr double kVectors = 1e-4, kGradients = 1e-3;
/// Adam turns a gradient near 0 into a step of either sign; the loss hardly sees it.
constexpr double kLossAfterSteps = 1e-3;
constexpr int kSteps = 5;

struct Model {
  ModelShape shape;
  AdapterSpec adapter;
  std::vector<int32_t> lengths;
  int64_t micro_batch_tokens;
  Pooling pooling = Pooling::kMean;
  std::optional<WeightStorage> storage = std::nullopt;
  bool checkpointing = false;
};

/// The same model, and the same adapter, once on each device.
class Pair {
 public:
  Pair(const Model& m, const std::string& device) : batch_(test::some_pairs(m.shape, m.lengths)) {
    const TemporaryFile weights("model.safetensors"), adapter("adapter.safetensors");
    write_safetensors(weights.path(), test::random_bert(m.shape));
    write_safetensors(adapter.path(), test::random_adapter(m.adapter, m.shape));
    for (const std::string& name : {std::string("cpu"), device}) {
      sessions_.push_back(std::make_unique<Session>(
          SessionOptions{weights.path(), m.shape, m.pooling, name, 0, m.storage, m.checkpointing}));
      sessions_.back()->load_adapter(adapter.path(), m.adapter);
    }
  }

  const ExampleBatch& batch() const { return batch_; }
  Session& cpu() { return *sessions_[0]; }
  Session& device() { return *sessions_[1]; }

 private:
  ExampleBatch batch_;
  std::vector<std::unique_ptr<Session>> sessions_;
};

void check_model(const Model& m, const std::string& device) {
  Pair pair(m, device);
  const auto encode = [&](Session& s) {
    return at::tensor(s.encode(pair.batch().tokens, true, true, m.micro_batch_tokens));
  };
  require_close(encode(pair.device()), encode(pair.cpu()), kVectors, "vectors");

  const PassOptions pass{42, 3, m.micro_batch_tokens};
  std::map<std::string, std::vector<float>> expected, found;
  const double loss = pair.cpu().gradients(pair.batch(), pass, expected);
  require(std::abs(pair.device().gradients(pair.batch(), pass, found) - loss) <= kVectors, "loss");
  for (const auto& [key, gradient] : expected)
    require_close(at::tensor(found.at(key)), at::tensor(gradient), kGradients, "gradient of " + key);

  for (uint32_t step = 0; step < kSteps; step++) {
    StepOptions options;
    options.pass = {42, step, m.micro_batch_tokens};
    options.adam.learning_rate = 1e-3;
    options.max_grad_norm = 1;
    const double on_cpu = pair.cpu().step(pair.batch(), options).loss;
    const double there = pair.device().step(pair.batch(), options).loss;
    require(std::abs(there - on_cpu) <= kLossAfterSteps, "step " + std::to_string(step) + ": loss " +
                                                             std::to_string(there) + ", on the CPU " +
                                                             std::to_string(on_cpu));
  }
  require_close(encode(pair.device()), encode(pair.cpu()), 30 * kVectors, "vectors after training");
}

const std::vector<std::string> kQkv = {"attention.self.query", "attention.self.key", "attention.self.value"};
const std::vector<std::string> kAll = {"attention.self.query",   "attention.self.key", "attention.self.value",
                                       "attention.output.dense", "intermediate.dense", "output.dense"};

Model small(const std::vector<std::string>& adapted, double adapter_dropout) {
  ModelShape shape = test::tiny_shape();
  shape.hidden_dropout = 0.1;
  shape.attention_dropout = 0.2;
  return {
      shape, test::spec_for(shape, adapted, 4, 2.0, adapter_dropout), {5, 17, 1, 80, 33, 2, 24, 24}, 1000};
}

/// e5-small's layers and 64 pairs of questions.
Model real() {
  ModelShape shape;
  shape.vocab_size = 30522;
  shape.hidden_size = 384;
  shape.num_layers = 12;
  shape.num_heads = 12;
  shape.intermediate_size = 1536;
  shape.max_positions = 512;
  shape.type_vocab_size = 2;
  shape.hidden_dropout = shape.attention_dropout = 0.1;
  std::vector<int32_t> lengths;
  for (int i = 0; i < 128; i++) lengths.push_back(i == 7 ? 512 : 6 + i * 37 % 40);
  return {shape, test::spec_for(shape, kQkv, 8, 2.0, 0.1), lengths, 1 << 20};
}

}  // namespace

std::vector<DeviceCase> model_cases(const std::string& device, bool large) {
  std::vector<DeviceCase> cases;
  const auto add = [&](const std::string& name, const Model& m) {
    cases.push_back({"model on " + device + ": " + name, [=] {
                       at::manual_seed(11);
                       check_model(m, device);
                     }});
  };
  add("query, key, value", small(kQkv, 0));
  add("all linear layers, adapter dropout", small(kAll, 0.3));
  Model m = small(kQkv, 0.1);
  m.micro_batch_tokens = 60;
  m.checkpointing = true;
  add("micro-batches, activation checkpointing", m);
  m = small(kQkv, 0);
  m.pooling = Pooling::kCls;
  add("[CLS] pooling", m);
  m = small(kAll, 0);
  m.storage = WeightStorage{WeightFormat::kNf4, 64, true, 0, 6};
  add("NF4", m);
  if (large) add("e5-small's shape, 64 pairs", real());
  return cases;
}

}  // namespace peft::cuda
