#include <ATen/ATen.h>

#include <cmath>

#include "check.h"
#include "oracle.h"
#include "weights/safetensors.h"

// Adapters with copies of their own of parameters of the base model: PEFT's modules_to_save and bias.

namespace peft::test {
namespace {

using Floats = std::map<std::string, std::vector<float>>;
constexpr PassOptions kPass = {9, 8, 100};

at::Tensor as_tensor(const std::vector<float>& v) { return at::tensor(v); }

/// A base model, an adapter, and what the base would be with the adapter's own parameters.
struct Setup {
  ModelShape shape = tiny_shape();
  AdapterSpec spec;
  Weights bert, adapter, own_bert;
  std::optional<WeightStorage> storage;
  bool checkpointing = false;
  ExampleBatch batch;

  Setup(const std::vector<std::string>& targets, const std::vector<std::string>& own)
      : spec(spec_for(shape, targets, 4, 2.0, 0.1)), bert(random_bert(shape)) {
    shape.hidden_dropout = 0.1;
    shape.attention_dropout = 0.2;
    batch = some_pairs(shape, {5, 17, 1, 80, 33, 2, 24, 24, 49, 7});
    adapter = random_adapter(spec, shape);
    own_bert = bert;
    at::manual_seed(8);
    for (const std::string& name : own) {
      const std::string key = "base_model.model." + name;
      spec.parameters.push_back({name, key});
      own_bert[name] = bert.at(name) * 0.7 + 0.2 * at::randn_like(bert.at(name)) * bert.at(name).abs().mean();
      adapter[key] = own_bert[name];
    }
  }

  std::unique_ptr<Session> session() const {
    static int count = 0;
    const TemporaryFile lora("adapter.safetensors");
    model_ = std::make_shared<TemporaryFile>("model" + std::to_string(count++) + ".safetensors");
    write_safetensors(model_->path(), bert);
    write_safetensors(lora.path(), adapter);
    auto session = std::make_unique<Session>(
        SessionOptions{model_->path(), shape, Pooling::kMean, "cpu", 0, storage, checkpointing});
    session->load_adapter(lora.path(), spec);
    return session;
  }

  mutable std::shared_ptr<TemporaryFile> model_;  // sessions read the base's numbers from it
};

std::vector<std::string> every_layer(const std::vector<std::string>& suffixes) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < tiny_shape().num_layers; i++) {
    for (const std::string& suffix : suffixes)
      names.push_back("encoder.layer." + std::to_string(i) + "." + suffix);
  }
  return names;
}

const std::vector<std::string> kQueryValue = {"attention.self.query", "attention.self.value"};

std::map<std::string, std::vector<std::string>> cases() {
  std::vector<std::string> all_biases =
      every_layer({"attention.self.query.bias", "attention.self.key.bias", "attention.self.value.bias",
                   "attention.output.dense.bias", "attention.output.LayerNorm.bias",
                   "intermediate.dense.bias", "output.dense.bias", "output.LayerNorm.bias"});
  all_biases.push_back("embeddings.LayerNorm.bias");
  all_biases.push_back("pooler.dense.bias");
  return {
      {"biases of what has LoRA", every_layer({"attention.self.query.bias", "attention.self.value.bias"})},
      {"all biases", all_biases},
      {"LayerNorms", every_layer({"output.LayerNorm.weight", "output.LayerNorm.bias"})},
      {"a LayerNorm of the highest layer", {"encoder.layer.2.output.LayerNorm.weight"}},
      {"matrices",
       every_layer({"output.dense.weight", "output.dense.bias", "attention.output.dense.weight"})},
      {"one whole matrix of three",
       {"encoder.layer.1.attention.self.query.weight", "encoder.layer.1.attention.self.key.weight",
        "encoder.layer.1.attention.self.value.weight"}},
      {"embeddings",
       {"embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight",
        "embeddings.token_type_embeddings.weight", "embeddings.LayerNorm.weight"}},
      {"a bias below", {"encoder.layer.0.intermediate.dense.bias"}},
  };
}

const std::vector<std::string> kTop = {"output.dense"};

void check_gradients(const Setup& setup, const std::string& what) {
  const OracleResult expected = run_oracle(setup.shape, setup.own_bert, setup.spec, setup.adapter,
                                           Pooling::kMean, setup.batch, true, kPass, true);
  Floats gradients;
  const double loss = setup.session()->gradients(setup.batch, kPass, gradients);
  check(std::abs(loss - expected.loss) < 1e-6, what + ": loss");
  size_t own = 0;
  for (const OwnParameterSpec& p : setup.spec.parameters) {
    if (p.name.starts_with("pooler.")) continue;
    own++;
    // Softmax does not see the bias of the keys: rounding noise on both sides.
    const double noise = p.name.ends_with("key.bias") ? 1e-6 : 1e-7;
    check_close(as_tensor(gradients.at(p.key)), expected.gradients.at(p.name).flatten(), noise, 1e-4,
                what + ": " + p.name);
  }
  check(gradients.size() == 2 * setup.spec.modules.size() + own, what + ": number of gradients");
  for (const auto& [key, gradient] : expected.gradients) {
    if (key.find("lora_") == std::string::npos) continue;
    check_close(as_tensor(gradients.at(key)), gradient.flatten(), 1e-7, 1e-4, what + ": " + key);
  }
}

}  // namespace

PEFT_TEST(gradients_of_own_parameters_match_autograd) {
  for (const auto& [what, own] : cases()) {
    Setup setup(kQueryValue, own);
    std::erase_if(setup.spec.modules, [&](const LoraModuleSpec& m) {
      return what == "one whole matrix of three" && m.name.find("layer.1") != std::string::npos;
    });
    std::erase_if(setup.adapter, [&](const auto& entry) {
      return what == "one whole matrix of three" && entry.first.find("layer.1") != std::string::npos &&
             entry.first.find("lora_") != std::string::npos;
    });
    check_gradients(setup, what);
    setup.checkpointing = true;
    check_gradients(setup, what + ", recomputed");
  }
  // LoRA in the highest layer alone: what is below it is reached for the own parameters' sake.
  for (const auto& [what, own] : cases()) {
    if (what == "matrices") continue;
    Setup setup({"intermediate.dense"}, own);
    std::erase_if(setup.spec.modules, [](const LoraModuleSpec& m) { return m.name[14] != '2'; });
    std::erase_if(setup.adapter, [](const auto& entry) {
      return entry.first.find("lora_") != std::string::npos &&
             entry.first.find("layer.2") == std::string::npos;
    });
    check_gradients(setup, what + ", LoRA above");
  }
}

PEFT_TEST(own_parameters_are_the_adapters_alone) {
  for (const auto& [what, own] : cases()) {
    Setup setup(kTop, own);
    if (what == "matrices") continue;
    const auto session = setup.session();
    const auto base = session->encode(setup.batch.tokens, false, true, 100);
    const OracleResult expected = run_oracle(setup.shape, setup.own_bert, setup.spec, setup.adapter,
                                             Pooling::kMean, setup.batch, false, kPass);
    check_close(as_tensor(session->encode(setup.batch.tokens, true, true, 100)).view_as(expected.embeddings),
                expected.embeddings, 2e-6, 2e-6, what);
    check(session->encode(setup.batch.tokens, false, true, 100) == base, what + ": the base is as before");
    for (uint32_t step = 0; step < 3; step++) session->step(setup.batch, {{7, step, 90}, {}, 1.0});
    check(session->encode(setup.batch.tokens, false, true, 100) == base, what + ": and after training");
  }
}

PEFT_TEST(own_parameters_begin_as_the_base_and_go_on_to_the_bit) {
  for (const auto& [what, own] : cases()) {
    Setup setup(kTop, own);
    if (what == "matrices") continue;
    const auto session = setup.session();
    session->create_adapter(setup.spec, 3);
    for (const auto& [key, value] : session->adapter_weights()) {
      if (key.find("lora_") == std::string::npos)
        check(as_tensor(value).equal(setup.bert.at(key.substr(17)).flatten()), what + ": " + key);
    }
    const TemporaryFile weights("saved.safetensors"), moments("optimizer.safetensors");
    AdamOptions adam;
    adam.weight_decay = 0.1;
    const auto train = [&](Session& s, uint32_t from, uint32_t to) {
      for (uint32_t step = from; step < to; step++) s.step(setup.batch, {{7, step, 90}, adam, 1.0});
    };
    train(*session, 0, 3);
    session->save_adapter(weights.path());
    session->save_optimizer(moments.path());
    train(*session, 3, 5);
    const auto resumed = setup.session();
    resumed->load_adapter(weights.path(), setup.spec);
    resumed->load_optimizer(moments.path());
    train(*resumed, 3, 5);
    check(resumed->adapter_weights() == session->adapter_weights(), what + ": two steps after the file");
    for (const auto& [key, value] : session->adapter_weights()) {
      if (key.find("lora_") != std::string::npos) continue;
      const bool moved = !as_tensor(value).equal(setup.bert.at(key.substr(17)).flatten());
      check(moved != (key.find("pooler") != std::string::npos), what + " moved: " + key);
    }
  }
}

PEFT_TEST(own_parameters_over_quantised_weights) {
  Setup setup(kQueryValue, cases().at("all biases"));
  setup.storage = WeightStorage{WeightFormat::kNf4};
  const auto session = setup.session();
  for (uint32_t step = 0; step < 2; step++) session->step(setup.batch, {{7, step, 90}, {}, 1.0});
  check(session->encode(setup.batch.tokens, true, true, 100) !=
            session->encode(setup.batch.tokens, false, true, 100),
        "trained");
}

PEFT_TEST(parameters_that_an_adapter_cannot_have_are_refused) {
  const auto refused = [](const std::vector<std::string>& own, const std::string& message) {
    AdapterSpec spec = spec_for(tiny_shape(), kTop, 2, 1, 0);
    for (const std::string& name : own) spec.parameters.push_back({name, name});
    check_error([&] { Adapter(spec, tiny_shape(), false, at::kCPU); }, "ADAPTER_UNSUPPORTED", message);
  };
  refused({"encoder.layer.3.output.dense.bias"}, "no such parameter");
  refused({"encoder.layer.0.output.dense.gamma"}, "no such parameter");
  refused({"pooler.dense.weight"}, "no such parameter");
  refused({"bias"}, "no such parameter");
  refused({"encoder.layer.0.attention.self.query.weight"}, "are one matrix here");
  refused({"encoder.layer.0.output.dense.bias", "encoder.layer.0.output.dense.bias"}, "twice");
}

}  // namespace peft::test
