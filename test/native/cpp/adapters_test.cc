#include <ATen/ATen.h>

#include <cmath>

#include "check.h"
#include "oracle.h"
#include "weights/safetensors.h"

// Several adapters over one base: each text's numbers are those it has alone.

namespace peft::test {
namespace {

const std::vector<std::string> kQkv = {"attention.self.query", "attention.self.key", "attention.self.value"};
const std::vector<std::string> kAll = {"attention.self.query",   "attention.self.key", "attention.self.value",
                                       "attention.output.dense", "intermediate.dense", "output.dense"};

AdapterSpec one_module(const std::string& name, int64_t rank) {
  AdapterSpec spec;
  spec.modules.push_back({name, rank, 1.5});
  return spec;
}

/// Adapters that differ in rank, scale, targets and layers.
std::map<std::string, AdapterSpec> different_specs() {
  const ModelShape shape = tiny_shape();
  return {{"qkv", spec_for(shape, kQkv, 4, 2.0, 0)},
          {"all", spec_for(shape, kAll, 3, 0.7, 0)},
          {"wide", spec_for(shape, {"attention.self.value", "output.dense"}, 33, 0.3, 0)},
          {"top", one_module("encoder.layer.2.intermediate.dense", 5)}};
}

std::unique_ptr<Session> open_with_adapters(const std::optional<WeightStorage>& storage) {
  const ModelShape shape = tiny_shape();
  at::manual_seed(51);
  const TemporaryFile model("model.safetensors"), lora("adapter.safetensors");
  write_safetensors(model.path(), random_bert(shape));
  auto session =
      std::make_unique<Session>(SessionOptions{model.path(), shape, Pooling::kMean, "cpu", 0, storage});
  for (const auto& [name, spec] : different_specs()) {
    write_safetensors(lora.path(), random_adapter(spec, shape));
    session->load_adapter(lora.path(), spec, name);
  }
  return session;
}

TokenBatch some_texts() {
  return some_pairs(tiny_shape(), {5, 17, 1, 80, 33, 2, 24, 24, 49, 7, 3, 3, 1, 40, 9, 12}).tokens;
}

std::vector<float> alone(Session& session, const TokenBatch& batch, int64_t text,
                         const AdapterChoice& choice) {
  return session.encode(gather_texts(batch, {text}), choice, true, 1000);
}

WeightStorage stored_as(WeightFormat format, WeightFormat products = WeightFormat::kFloat32) {
  WeightStorage storage;
  storage.format = format;
  storage.products = products;
  return storage;
}

}  // namespace

PEFT_TEST(mixed_batches_give_every_text_the_numbers_it_has_alone) {
  using enum WeightFormat;
  const TokenBatch batch = some_texts();
  const std::vector<std::string> names = {"qkv", "all", "wide", "top", "not loaded"};
  // In no order, the base model between them, and one that is loaded but not taken by some batches.
  const std::vector<std::vector<int32_t>> choices = {{0, 1, -1, 2, 3, 0, 1, 2, 3, -1, 2, 1, 0, 3, -1, 0},
                                                     {1, 1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1, 1},
                                                     {-1, 3, 3, -1, 3, 3, 3, -1, 3, 3, 3, 3, 3, 3, 3, 3},
                                                     {2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2},
                                                     std::vector<int32_t>(16, -1)};
  for (const WeightStorage& storage :
       {stored_as(kFloat32), stored_as(kFloat16), stored_as(kNf4), stored_as(kInt8),
        stored_as(kFloat32, kBfloat16), stored_as(kFloat32, kFloat16)}) {
    const auto session = open_with_adapters(storage);
    std::map<std::pair<size_t, int32_t>, std::vector<float>> known;
    const auto expected_of = [&](size_t text, int32_t adapter) -> const std::vector<float>& {
      std::vector<float>& row = known[{text, adapter}];
      if (!row.empty()) return row;
      const auto i = static_cast<int64_t>(text);
      return row = adapter < 0 ? alone(*session, batch, i, false) : alone(*session, batch, i, names[adapter]);
    };
    for (const std::vector<int32_t>& choice : choices) {
      for (const int64_t tokens : {1, 64, 100000}) {
        const std::vector<float> rows = session->encode(batch, {names, choice}, true, tokens);
        const size_t d = rows.size() / choice.size();
        for (size_t i = 0; i < choice.size(); i++) {
          const std::vector<float>& expected = expected_of(i, choice[i]);
          check(std::equal(expected.begin(), expected.end(), rows.begin() + i * d),
                std::string(weight_format_name(storage.format)) + ": text " + std::to_string(i) +
                    " with adapter " + std::to_string(choice[i]) + ", micro-batches of " +
                    std::to_string(tokens));
        }
      }
    }
    check(alone(*session, batch, 3, "qkv") != alone(*session, batch, 3, "all"), "the adapters differ");
  }
}

PEFT_TEST(an_adapter_that_is_not_finite_spoils_its_own_texts_alone) {
  const auto session = open_with_adapters(std::nullopt);
  const TokenBatch batch = some_texts();
  const std::vector<float> before = alone(*session, batch, 0, "qkv");
  const AdapterSpec spec = different_specs().at("all");
  Weights huge = random_adapter(spec, tiny_shape());
  for (auto& [key, value] : huge) value.fill_(3e38);
  const TemporaryFile lora("adapter.safetensors");
  write_safetensors(lora.path(), huge);
  session->load_adapter(lora.path(), spec, "huge");
  std::vector<int32_t> of_text(16, 0);
  of_text[5] = 1;
  check_error(
      [&] {
        session->encode(batch, {{"qkv", "huge"}, of_text}, true, 10000);
      },
      "NOT_FINITE", "The vector of text 5 is not finite");
  check(alone(*session, batch, 0, "qkv") == before, "the others are as they were");
}

PEFT_TEST(adapters_are_listed_replaced_and_removed_by_name) {
  const auto session = open_with_adapters(std::nullopt);
  const TokenBatch batch = some_texts();
  const auto names = [&] {
    std::string all;
    for (const AdapterInfo& a : session->adapters()) all += a.name + " ";
    return all;
  };
  check(names() == "all qkv top wide ", names());
  const std::vector<float> old = alone(*session, batch, 3, "qkv"), other = alone(*session, batch, 3, "all");
  const AdapterSpec spec = different_specs().at("qkv");
  const TemporaryFile good("good.safetensors"), bad("bad.safetensors");
  Weights fresh = random_adapter(spec, tiny_shape());
  for (auto& [key, value] : fresh) value.mul_(0.5);
  write_safetensors(good.path(), fresh);
  fresh.erase(fresh.begin());
  write_safetensors(bad.path(), fresh);
  check_error([&] { session->load_adapter(bad.path(), spec, "qkv"); }, "ADAPTER_MISMATCH", "is missing");
  check_error([&] { session->create_adapter(one_module("embeddings", 2), 1, "qkv"); }, "ADAPTER_UNSUPPORTED",
              "embeddings");
  check(alone(*session, batch, 3, "qkv") == old, "a failed load leaves the old one");
  session->load_adapter(good.path(), spec, "qkv");
  check(alone(*session, batch, 3, "qkv") != old && alone(*session, batch, 3, "all") == other, "replaced");
  session->remove_adapter("qkv");
  session->remove_adapter("qkv");
  check(names() == "all top wide ", names());
  check_error([&] { alone(*session, batch, 3, "qkv"); }, "USAGE", "no adapter \"qkv\" is loaded");
  check_error([&] { session->adapter_weights("qkv"); }, "USAGE", "adapterWeights: no adapter \"qkv\"");
  check_error([&] { session->encode(batch, {{"all"}, {0, 0}}, true, 100); }, "USAGE", "of 16 texts, got 2");
  check_error(
      [&] {
        session->encode(batch, {{"all"}, std::vector<int32_t>(16, 1)}, true, 100);
      },
      "USAGE", "there are 1 names");
}

PEFT_TEST(adapters_that_are_trained_in_turns_know_nothing_of_each_other) {
  ModelShape shape = tiny_shape();
  shape.hidden_dropout = 0.1;
  const TemporaryFile model("model.safetensors");
  write_safetensors(model.path(), random_bert(shape));
  const auto open = [&] {
    return std::make_unique<Session>(SessionOptions{model.path(), shape, Pooling::kMean, "cpu"});
  };
  std::map<std::string, AdapterSpec> specs = different_specs();
  specs.at("all").dropout = 0.2;
  const ExampleBatch batch = some_pairs(shape, {5, 17, 1, 80, 33, 2});
  const auto step = [&](Session& session, const std::string& name, uint32_t step) {
    StepOptions options{{7 + static_cast<uint64_t>(name.size()), step, 40}, {}, 1.0};
    options.pass.adapter = name;
    session.step(batch, options);
  };
  const auto together = open();
  for (const auto& [name, spec] : specs) together->create_adapter(spec, name.size(), name);
  for (uint32_t i = 0; i < 4; i++) {
    for (const auto& [name, spec] : specs) step(*together, name, i);
    together->encode(batch.tokens, {{"all", "qkv"}, {0, 1, 0, 1, 1, 0}}, true, 1000);
  }
  for (const auto& [name, spec] : specs) {
    const auto single = open();
    single->create_adapter(spec, name.size(), name);
    for (uint32_t i = 0; i < 4; i++) step(*single, name, i);
    check(single->adapter_weights(name) == together->adapter_weights(name), name + ": weights");
    const TemporaryFile one("one.safetensors"), other("other.safetensors");
    single->save_optimizer(one.path(), name);
    together->save_optimizer(other.path(), name);
    check(at::equal(SafetensorsFile(one.path()).read("step"), SafetensorsFile(other.path()).read("step")),
          name + ": steps");
  }
}

PEFT_TEST(an_adapter_costs_its_own_bytes) {
  const auto session = open_with_adapters(std::nullopt);
  const TokenBatch batch = some_texts();
  for (const AdapterInfo& a : session->adapters())
    check(a.bytes == 4 * a.parameters, a.name + " is its weights before it is used");
  const int64_t base = session->memory(1024, false).linear;
  for (const std::string name : {"qkv", "all", "wide", "top"}) alone(*session, batch, 0, name);
  // Packed: B's own numbers and those of A, both in whole vectors. The tiny shape pads more than a real one.
  for (const AdapterInfo& a : session->adapters())
    check(a.bytes < 4 * a.parameters * 5, a.name + ": " + std::to_string(a.bytes) + " bytes for " +
                                              std::to_string(a.parameters) + " parameters");
  check(session->memory(1024, false).linear == base, "the base is held once");
}

}  // namespace peft::test
