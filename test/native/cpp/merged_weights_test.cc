#include <ATen/ATen.h>

#include <cmath>

#include "check.h"
#include "oracle.h"
#include "weights/bert_weights.h"
#include "weights/quantize_model.h"
#include "weights/safetensors.h"

// An adapter in second copies of the weights that it changes: as fast as the base, and gone without a trace.

namespace peft::test {
namespace {

using Rows = std::vector<float>;

const std::vector<std::string> kAll = {"attention.self.query",   "attention.self.key", "attention.self.value",
                                       "attention.output.dense", "intermediate.dense", "output.dense"};

WeightStorage stored_as(WeightFormat format, WeightFormat products = WeightFormat::kFloat32) {
  WeightStorage storage;
  storage.format = format;
  storage.products = products;
  return storage;
}

WeightStorage nf4_with(bool double_quant, double outliers) {
  WeightStorage storage = stored_as(WeightFormat::kNf4);
  storage.double_quant = double_quant;
  storage.outlier_fraction = outliers;
  return storage;
}

/// Kinds of adapters, each over a few of the matrices.
std::map<std::string, AdapterSpec> kinds() {
  const ModelShape shape = tiny_shape();
  std::map<std::string, AdapterSpec> specs = {
      {"all", spec_for(shape, kAll, 3, 0.7, 0)},
      {"dora", spec_for(shape, kAll, 3, 0.5, 0)},
      {"bias", spec_for(shape, kAll, 2, 0.6, 0)},
      {"own", spec_for(shape, {"attention.self.value", "output.dense"}, 4, 1.1, 0)},
      {"split", spec_for(shape, {"attention.self.query", "intermediate.dense"}, 4, 0.4, 0)},
      {"value", spec_for(shape, {"attention.self.value"}, 5, 1.3, 0)}};
  specs.at("dora").dora = true;
  specs.at("bias").bias = true;
  specs.at("split").init = AdapterInit::kPissa;
  for (const std::string name :
       {"encoder.layer.1.output.dense.bias", "encoder.layer.0.attention.self.value.bias",
        "encoder.layer.2.output.LayerNorm.weight"})
    specs.at("own").parameters.push_back({name, "base_model.model." + name});
  return specs;
}

Weights weights_of(const AdapterSpec& spec) {
  const ModelShape shape = tiny_shape();
  Weights w = random_adapter(spec, shape);
  for (const OwnParameterSpec& p : spec.parameters) w[p.key] = 1 + 0.2 * at::randn({shape.hidden_size});
  return w;
}

std::unique_ptr<Session> open_with_kinds(const std::optional<WeightStorage>& storage) {
  const ModelShape shape = tiny_shape();
  const TemporaryFile model("model.safetensors"), lora("adapter.safetensors");
  write_safetensors(model.path(), random_bert(shape));
  auto session =
      std::make_unique<Session>(SessionOptions{model.path(), shape, Pooling::kMean, "cpu", 0, storage});
  for (const auto& [name, spec] : kinds()) {
    write_safetensors(lora.path(), weights_of(spec));
    session->load_adapter(lora.path(), spec, name);
  }
  return session;
}

const TokenBatch& some_texts() {
  static const TokenBatch texts =
      some_pairs(tiny_shape(), {5, 17, 1, 80, 33, 2, 24, 24, 49, 7, 3, 3, 1, 40, 9, 12}).tokens;
  return texts;
}

Rows encoded(Session& session, const AdapterChoice& choice) {
  return session.encode(some_texts(), choice, true, 100);
}

/// 1 - cosine of the text that is furthest.
double worst_drift(const Rows& a, const Rows& b) {
  const auto d = tiny_shape().hidden_size;
  const auto rows = [&](const Rows& r) {
    return at::tensor(at::ArrayRef<float>(r)).view({-1, d}).to(at::kDouble);
  };
  return (rows(a) - rows(b)).square().sum(1).div(2).max().item<double>();
}

std::map<std::string, int64_t> bytes_by_name(const Session& session) {
  std::map<std::string, int64_t> bytes;
  for (const AdapterInfo& a : session.adapters()) bytes[a.name] = a.bytes;
  return bytes;
}

}  // namespace

PEFT_TEST(merged_adapters_give_the_vectors_they_had_beside_the_base) {
  using enum WeightFormat;
  // What each format loses by rounding W + scale * B A; float32 sums in another order alone.
  const std::vector<std::tuple<std::string, std::optional<WeightStorage>, bool, double>> cases = {
      {"float32", std::nullopt, false, 1e-11},
      {"float16", stored_as(kFloat16), false, 1e-5},
      {"bfloat16", stored_as(kBfloat16), false, 1e-3},
      {"bfloat16 products", stored_as(kFloat32, kBfloat16), false, 1e-3},
      {"nf4 in float32", nf4_with(true, 0.01), true, 1e-11},
      {"int8", stored_as(kInt8), false, 0.01},
      {"nf4", nf4_with(false, 0), false, 0.3},
      {"nf4, double quantisation, outliers", nf4_with(true, 0.01), false, 0.3}};
  for (const auto& [what, storage, exact, tolerance] : cases) {
    const auto session = open_with_kinds(storage);
    for (const auto& [name, spec] : kinds()) {
      const Rows before = encoded(*session, name), base = encoded(*session, false);
      const MergeInfo info = session->merge_adapter(name, "merged", exact);
      check(info.modules == static_cast<int64_t>(spec.modules.size()), what + ": modules of " + name);
      check(info.bytes == bytes_by_name(*session).at("merged"), what + ": bytes of " + name);
      const double drift = worst_drift(before, encoded(*session, "merged"));
      check(drift <= tolerance, what + ": " + name + " drifts " + std::to_string(drift));
      check(worst_drift(base, encoded(*session, "merged")) > 1e-3, what + ": " + name + " does something");
      session->remove_adapter("merged");
    }
  }
}

PEFT_TEST(merging_changes_no_bit_of_anything_else_and_leaves_no_trace) {
  using enum WeightFormat;
  for (const std::optional<WeightStorage>& storage :
       {std::optional<WeightStorage>{}, std::optional(stored_as(kFloat16)),
        std::optional(stored_as(kFloat32, kBfloat16)), std::optional(nf4_with(true, 0.01)),
        std::optional(stored_as(kInt8))}) {
    const std::string what = weight_format_name(storage.value_or(WeightStorage{}).format);
    const auto session = open_with_kinds(storage);
    std::map<std::string, Rows> before;
    const auto all_of = [&] {
      std::map<std::string, Rows> rows = {{"", encoded(*session, false)}};
      for (const auto& [name, spec] : kinds()) rows[name] = encoded(*session, name);
      return rows;
    };
    before = all_of();
    const auto bytes = bytes_by_name(*session);
    const int64_t planned = session->memory(100, false).adapter;
    for (const std::string name : {"all", "dora", "own", "split"}) {
      const MergeInfo info = session->merge_adapter(name, name + " merged", false);
      check(session->memory(100, false).adapter == planned + info.bytes, what + ": planned with " + name);
      encoded(*session, name + " merged");
      check(all_of() == before, what + ": with " + name + " merged");
      session->remove_adapter(name + " merged");
      check(all_of() == before, what + ": with " + name + " unmerged");
    }
    check(bytes_by_name(*session) == bytes && session->memory(100, false).adapter == planned,
          what + ": memory is given back");
  }
}

PEFT_TEST(merged_and_other_adapters_share_a_batch) {
  using enum WeightFormat;
  const std::vector<std::string> names = {"all", "all merged", "own", "own merged", "value"};
  const std::vector<int32_t> choice = {0, 1, -1, 2, 3, 4, 1, 2, 3, -1, 4, 1, 0, 3, -1, 0};
  for (const std::optional<WeightStorage>& storage :
       {std::optional<WeightStorage>{}, std::optional(nf4_with(false, 0)), std::optional(stored_as(kInt8))}) {
    const auto session = open_with_kinds(storage);
    for (const std::string name : {"all", "own"}) session->merge_adapter(name, name + " merged", false);
    for (const int64_t tokens : {1, 64, 100000}) {
      const Rows rows = session->encode(some_texts(), {names, choice}, true, tokens);
      const size_t d = rows.size() / choice.size();
      for (size_t i = 0; i < choice.size(); i++) {
        const AdapterChoice of_text = choice[i] < 0 ? AdapterChoice(false) : AdapterChoice(names[choice[i]]);
        const TokenBatch text = gather_texts(some_texts(), {static_cast<int64_t>(i)});
        const Rows alone = session->encode(text, of_text, true, 1000);
        check(std::equal(alone.begin(), alone.end(), rows.begin() + i * d),
              "text " + std::to_string(i) + ", micro-batches of " + std::to_string(tokens));
      }
    }
  }
}

/// A file of codes says itself how merged copies are to be held.
PEFT_TEST(weights_read_from_a_file_say_how_they_are_held) {
  const ModelShape shape = tiny_shape();
  const TemporaryFile plain("model.safetensors"), quantised("quantised.safetensors");
  write_safetensors(plain.path(), random_bert(shape));
  WeightStorage storage = nf4_with(true, 0.01);
  storage.block_size = 128;
  quantize_model(plain.path(), quantised.path(), shape, storage, [](int64_t, int64_t) { return true; });
  const WeightStorage found = load_bert_weights(quantised.path(), shape, std::nullopt, at::kCPU).storage;
  check(found.format == WeightFormat::kNf4 && found.block_size == 128 && found.double_quant, "blocks");
  check(std::abs(found.outlier_fraction - 0.01) < 0.001, std::to_string(found.outlier_fraction));
}

PEFT_TEST(merging_refuses_what_it_cannot_do) {
  const auto session = open_with_kinds(std::nullopt);
  check_error([&] { session->merge_adapter("nobody", "merged", false); }, "USAGE",
              "mergeAdapter: no adapter \"nobody\"");
  session->merge_adapter("all", "merged", false);
  check_error([&] { session->merge_adapter("all", "merged", false); }, "USAGE", "\"merged\" already");
  check_error([&] { session->merge_adapter("merged", "again", false); }, "USAGE", "\"merged\" is \"all\"");
  const ExampleBatch batch = some_pairs(tiny_shape(), {5, 17});
  for (const std::string name : {"all", "merged"}) {
    StepOptions options{{7, 0, 40}, {}, 1.0};
    options.pass.adapter = name;
    check_error([&] { session->step(batch, options); }, "USAGE", "is merged into the base");
  }
  const Rows merged = encoded(*session, "merged");
  StepOptions options{{7, 0, 40}, {}, 1.0};
  options.pass.adapter = "value";
  session->step(batch, options);
  check(encoded(*session, "merged") == merged, "others train");
  session->remove_adapter("merged");
  options.pass.adapter = "all";
  session->step(batch, options);
  session->merge_adapter("all", "merged", false);
  check(worst_drift(encoded(*session, "all"), encoded(*session, "merged")) < 1e-11, "what was trained");
  session->remove_adapter("all");
  check(bytes_by_name(*session).count("merged") == 0, "the merge goes with the adapter");

  AdapterSpec spec = kinds().at("value");
  Weights huge = weights_of(spec);
  for (auto& [key, value] : huge) value.fill_(3e38);
  const TemporaryFile lora("adapter.safetensors");
  write_safetensors(lora.path(), huge);
  session->load_adapter(lora.path(), spec, "huge");
  check_error([&] { session->merge_adapter("huge", "merged", false); }, "NOT_FINITE",
              "attention.self.value would hold NaN or infinity");
  check(bytes_by_name(*session).count("merged") == 0, "nothing is left of it");
}

}  // namespace peft::test
