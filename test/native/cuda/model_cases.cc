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

struct Model {
  ModelShape shape;
  AdapterSpec adapter;
  std::vector<int32_t> lengths;
  int64_t micro_batch_tokens;
  Pooling pooling = Pooling::kMean;
  std::optional<WeightStorage> storage = std::nullopt;
  bool checkpointing = false;
  double slack = 1;  // times every tolerance
  uint32_t steps = 5;
};

/// The same model with the same adapter twice, and what they are trained on.
class Pair {
 public:
  Pair(const Model& m, const std::string& expected, const std::string& found)
      : batch_(test::some_pairs(m.shape, m.lengths)) {
    const TemporaryFile weights("model.safetensors"), adapter("adapter.safetensors");
    write_safetensors(weights.path(), test::random_bert(m.shape));
    write_safetensors(adapter.path(), test::random_adapter(m.adapter, m.shape));
    for (const std::string& name : {expected, found}) {
      sessions_.push_back(std::make_unique<Session>(
          SessionOptions{weights.path(), m.shape, m.pooling, name, 0, m.storage, m.checkpointing}));
      sessions_.back()->load_adapter(adapter.path(), m.adapter);
    }
  }

  const ExampleBatch& batch() const { return batch_; }
  Session& expected() { return *sessions_[0]; }
  Session& found() { return *sessions_[1]; }

 private:
  ExampleBatch batch_;
  std::vector<std::unique_ptr<Session>> sessions_;
};

StepOptions step_options(const Model& m, uint32_t step, double learning_rate = 1e-3) {
  StepOptions options;
  options.pass = {42, step, m.micro_batch_tokens};
  options.adam.learning_rate = learning_rate;
  options.max_grad_norm = 1;
  return options;
}

void check_model(const Model& m, const std::string& device) {
  Pair pair(m, "cpu", device);
  Session &on_cpu = pair.expected(), &on_device = pair.found();
  const auto encode = [&](Session& s) {
    return at::tensor(s.encode(pair.batch().tokens, true, true, m.micro_batch_tokens));
  };
  require_close(encode(on_device), encode(on_cpu), m.slack * kVectors, "vectors");

  const PassOptions pass{42, 3, m.micro_batch_tokens};
  std::map<std::string, std::vector<float>> expected, found;
  const double loss = on_cpu.gradients(pair.batch(), pass, expected);
  require(std::abs(on_device.gradients(pair.batch(), pass, found) - loss) <= m.slack * kVectors, "loss");
  for (const auto& [key, gradient] : expected)
    require_close(at::tensor(found.at(key)), at::tensor(gradient), m.slack * kGradients,
                  "gradient of " + key);

  for (uint32_t step = 0; step < m.steps; step++) {
    const StepOptions options = step_options(m, step);
    const double here = on_cpu.step(pair.batch(), options).loss;
    const double there = on_device.step(pair.batch(), options).loss;
    require(std::abs(there - here) <= m.slack * kLossAfterSteps, "step " + std::to_string(step) + ": loss " +
                                                                     std::to_string(there) + ", on the CPU " +
                                                                     std::to_string(here));
  }
  require_close(encode(on_device), encode(on_cpu), 30 * m.slack * kVectors, "vectors after training");
}

/// Steps that nobody waits for train as those do that are waited for, to the bit; from one on that is not
/// finite they change nothing.
void check_queued(const Model& m, const std::string& device) {
  Pair pair(m, device, device);
  Session &waiting = pair.expected(), &queued = pair.found();
  const auto queue = [&](const StepOptions& options) { queued.queue_step(pair.batch(), options); };
  std::vector<StepResult> expected;
  // The last one's rate is so high that the next step overflows.
  for (uint32_t step = 0; step < m.steps; step++) {
    const StepOptions options = step_options(m, step, step + 1 < m.steps ? 1e-3 : 1e30);
    expected.push_back(waiting.step(pair.batch(), options));
    queue(options);
  }
  queue(step_options(m, m.steps));
  queue(step_options(m, m.steps + 1));
  const std::vector<StepResult> found = queued.step_results();
  require(found.size() == m.steps + 1 && !found.back().finite(), "told up to the step that is not finite");
  for (size_t i = 0; i < expected.size(); i++) {
    require(found[i].loss == expected[i].loss && found[i].grad_norm == expected[i].grad_norm,
            "step " + std::to_string(i) + ": what it came to");
  }
  require(queued.adapter_weights() == waiting.adapter_weights(), "weights");
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

void make_least(Model& m) {
  m.shape.num_layers = 1;
  std::erase_if(m.adapter.modules,
                [](const LoraModuleSpec& each) { return each.name.find(".0.") == std::string::npos; });
  m.lengths = {5, 3, 1, 7, 2, 4};
  m.micro_batch_tokens = std::min<int64_t>(m.micro_batch_tokens, 12);
  m.steps = 1;
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

std::vector<DeviceCase> model_cases(const std::string& device, ModelSize size) {
  std::vector<DeviceCase> cases;
  const auto add_case = [&](const std::string& name, Model m,
                            void (*check)(const Model&, const std::string&)) {
    if (size == ModelSize::kLeast) make_least(m);
    cases.push_back({name, [=] {
                       at::manual_seed(11);
                       check(m, device);
                     }});
  };
  const auto add = [&](const std::string& name, const Model& m) {
    add_case("model on " + device + ": " + name, m, check_model);
  };
  const auto add_queued = [&](const std::string& name, const Model& m) {
    add_case("steps that " + device + " is not waited for: " + name, m, check_queued);
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
  m.storage = WeightStorage{.format = WeightFormat::kInt8, .int8_gradient = true};
  // Where another order of sums moves an entry over the middle between two codes, it is off by a whole one.
  m.slack = 30;
  add("int8 compute", m);
  for (const auto& [type, name, slack] : {std::tuple(WeightFormat::kFloat16, "fp16", 30.0),
                                          std::tuple(WeightFormat::kBfloat16, "bf16", 240.0)}) {
    // 11 and 8 bits in place of 24; a device rounds the results of products too.
    m = small(kAll, 0.1);
    m.shape.attention_dropout = 0;
    m.shape.num_heads = 6;  // of 8 columns, which flash attention takes
    m.storage = WeightStorage{.products = type};
    m.slack = slack;
    add(std::string("products and attention in ") + name, m);
  }
  m = small(kQkv, 0.1);
  m.micro_batch_tokens = 60;
  add_queued("micro-batches", m);
  if (size == ModelSize::kReal) {
    add("e5-small's shape, 64 pairs", real());
    add_queued("e5-small's shape, 64 pairs", real());
  }
  return cases;
}

}  // namespace peft::cuda
