#include <ATen/ATen.h>

#include <cmath>

#include "check.h"
#include "oracle.h"
#include "weights/safetensors.h"

namespace peft::test {
namespace {

const std::vector<std::string> kQkv = {"attention.self.query", "attention.self.key", "attention.self.value"};
const std::vector<std::string> kAll = {"attention.self.query",   "attention.self.key", "attention.self.value",
                                       "attention.output.dense", "intermediate.dense", "output.dense"};
const std::vector<int32_t> kLengths = {5, 17, 1, 80, 33, 2, 24, 24, 49, 7};

struct Setup {
  ModelShape shape;
  AdapterSpec spec;
  Weights bert, adapter;
  Pooling pooling = Pooling::kMean;
  std::optional<WeightStorage> storage;
  bool checkpointing = false;
  ExampleBatch batch;

  Setup(const ModelShape& s, AdapterSpec a)
      : shape(s),
        spec(std::move(a)),
        bert(random_bert(s)),
        adapter(random_adapter(spec, s)),
        batch(some_pairs(s, kLengths)) {}

  std::unique_ptr<Session> session() const {
    const TemporaryFile model("model.safetensors"), lora("adapter.safetensors");
    write_safetensors(model.path(), bert);
    write_safetensors(lora.path(), adapter);
    auto session = std::make_unique<Session>(
        SessionOptions{model.path(), shape, pooling, "cpu", 0, storage, checkpointing});
    session->load_adapter(lora.path(), spec);
    return session;
  }

  OracleResult oracle(bool training, const PassOptions& pass) const {
    return run_oracle(shape, bert, spec, adapter, pooling, batch, training, pass);
  }
};

at::Tensor as_tensor(const std::vector<float>& v) { return at::tensor(v); }

/// Cosines to 1e-6, which a loss may scale, every gradient to 1e-4 of its largest entry: fp32 sums in
/// another order.
void check_gradients(const Setup& setup, const PassOptions& pass, const std::string& what) {
  const OracleResult expected = setup.oracle(true, pass);
  std::map<std::string, std::vector<float>> gradients;
  const double loss = setup.session()->gradients(setup.batch, pass, gradients);
  check(std::abs(loss - expected.loss) < 1e-6 * std::max(1.0, pass.loss.scale),
        what + ": loss " + std::to_string(loss) + " against " + std::to_string(expected.loss));
  check(gradients.size() == expected.gradients.size(), what + ": number of gradients");
  for (const auto& [key, gradient] : expected.gradients) {
    check_close(as_tensor(gradients.at(key)), gradient.flatten(), 1e-7, 1e-4, what + ": " + key);
  }
}

Setup with_dropout(AdapterSpec spec) {
  ModelShape shape = tiny_shape();
  shape.hidden_dropout = 0.1;
  shape.attention_dropout = 0.2;
  return Setup(shape, std::move(spec));
}

constexpr PassOptions kPass = {42, 3, 1000};

std::vector<float> unit_vectors(int64_t texts, int64_t dimension) {
  const at::Tensor rows = at::randn({texts, dimension});
  const at::Tensor unit = (rows / rows.norm(2, 1, true)).contiguous();
  return {unit.const_data_ptr<float>(), unit.const_data_ptr<float>() + unit.numel()};
}

/// Gives the examples so many texts, those at these places as vectors. What was a text of them stays one of
/// another example.
void anchor(Setup& setup, int64_t texts_per_example, FixedTexts places) {
  setup.batch.texts_per_example = texts_per_example;
  setup.batch.fixed = std::move(places);
  const int64_t examples = setup.batch.examples();
  setup.batch.fixed.vectors = unit_vectors(examples * setup.batch.fixed.count, setup.shape.hidden_size);
  setup.batch.labels.clear();
  for (int64_t i = 0; i < examples; i++) setup.batch.labels.push_back(i % 3 == 0 ? 1.0f : 0.0f);
}

void keep(Setup& setup, double weight) {
  const TokenBatch tokens = some_pairs(setup.shape, {9, 3, 40, 21}).tokens;
  setup.batch.kept = {tokens, unit_vectors(tokens.texts(), setup.shape.hidden_size), weight};
}

void check_finite_differences(const Setup& setup) {
  std::map<std::string, std::vector<float>> gradients, unused;
  setup.session()->gradients(setup.batch, kPass, gradients);
  at::manual_seed(3);
  for (int trial = 0; trial < 4; trial++) {
    // Along a random direction: d loss = gradient . direction * 2h, with the same masks on both sides.
    Setup plus = setup, minus = setup;
    double expected = 0;
    const double h = 1e-3;
    for (const auto& [key, value] : setup.adapter) {
      const at::Tensor direction = at::randn_like(value);
      plus.adapter[key] = value + h * direction;
      minus.adapter[key] = value - h * direction;
      expected += (as_tensor(gradients.at(key)) * direction.flatten()).sum(at::kDouble).item<double>();
    }
    const double slope = (plus.session()->gradients(setup.batch, kPass, unused) -
                          minus.session()->gradients(setup.batch, kPass, unused)) /
                         (2 * h);
    // The loss in fp32 carries about 1e-7, which a step of 1e-3 turns into 1e-4; the curvature adds a little.
    check(std::abs(slope - expected) < 1e-3 + 0.01 * std::abs(expected),
          "slope " + std::to_string(slope) + " against " + std::to_string(expected));
  }
}

}  // namespace

PEFT_TEST(embeddings_match_the_oracle) {
  for (const Pooling pooling : {Pooling::kMean, Pooling::kCls}) {
    Setup setup(tiny_shape(), spec_for(tiny_shape(), kQkv, 4, 2.0, 0));
    setup.pooling = pooling;
    const at::Tensor expected = setup.oracle(false, kPass).embeddings;
    const auto session = setup.session();
    for (const int64_t tokens : {1, 60, 100000}) {
      check_close(as_tensor(session->encode(setup.batch.tokens, true, true, tokens)).view_as(expected),
                  expected, 1e-6, 1e-6, "embeddings");
    }
    Setup base = setup;
    for (auto& [key, value] : base.adapter) value.zero_();
    check_close(as_tensor(session->encode(setup.batch.tokens, false, true, 100)).view_as(expected),
                base.oracle(false, kPass).embeddings, 1e-6, 1e-6, "base embeddings");
  }
}

PEFT_TEST(gradients_match_autograd_for_every_target_set) {
  check_gradients(Setup(tiny_shape(), spec_for(tiny_shape(), kQkv, 4, 2.0, 0)), kPass, "query, key, value");
  check_gradients(Setup(tiny_shape(), spec_for(tiny_shape(), kAll, 3, 0.7, 0)), kPass, "all linear");
  for (const std::string& one : kAll)
    check_gradients(Setup(tiny_shape(), spec_for(tiny_shape(), {one}, 2, 1.5, 0)), kPass, one);
}

PEFT_TEST(gradients_match_autograd_for_single_layers) {
  for (const std::string& module : {std::string("attention.self.key"), std::string("attention.output.dense"),
                                    std::string("intermediate.dense"), std::string("output.dense")}) {
    for (int64_t layer = 0; layer < 3; layer++) {
      AdapterSpec spec;
      spec.modules.push_back({"encoder.layer." + std::to_string(layer) + "." + module, 4, 2.0});
      check_gradients(Setup(tiny_shape(), spec), kPass, module + " of layer " + std::to_string(layer));
      check_gradients(with_dropout(spec), {1, 0, 50},
                      module + " of layer " + std::to_string(layer) + " with dropout");
    }
  }
}

PEFT_TEST(gradients_match_autograd_with_dropout) {
  check_gradients(with_dropout(spec_for(tiny_shape(), kQkv, 4, 2.0, 0)), kPass, "dropout of the model");
  check_gradients(with_dropout(spec_for(tiny_shape(), kAll, 4, 2.0, 0.3)), kPass,
                  "dropout of model and adapter");
  check_gradients(Setup(tiny_shape(), spec_for(tiny_shape(), kAll, 4, 2.0, 0.3)), kPass,
                  "dropout of the adapter");
}

PEFT_TEST(gradients_of_every_variant_match_autograd) {
  for (const double dropout : {0.0, 0.3}) {
    const std::string with = dropout > 0 ? " with dropout" : "";
    for (const auto& targets : {kQkv, kAll, std::vector<std::string>{"attention.self.key", "output.dense"}}) {
      AdapterSpec dora = spec_for(tiny_shape(), targets, 4, 2.0, dropout);
      dora.dora = true;
      check_gradients(Setup(tiny_shape(), dora), {1, 0, 90}, "DoRA" + with);
      check_gradients(with_dropout(dora), kPass, "DoRA, dropout of the model" + with);
      AdapterSpec split = spec_for(tiny_shape(), targets, 3, 0.5, dropout);
      split.init = AdapterInit::kPissa;
      check_gradients(Setup(tiny_shape(), split), {1, 0, 90}, "over a part of the base" + with);
    }
    // Not on the key, whose bias softmax does not see.
    AdapterSpec bias =
        spec_for(tiny_shape(), {"attention.self.value", "intermediate.dense"}, 4, 2.0, dropout);
    bias.bias = true;
    check_gradients(Setup(tiny_shape(), bias), {1, 0, 90}, "bias on B" + with);
  }
}

PEFT_TEST(dora_and_pissa_begin_as_nothing_on_every_storage) {
  const AdapterSpec plain = spec_for(tiny_shape(), kAll, 4, 2.0, 0);
  Setup setup(tiny_shape(), plain);
  for (const WeightFormat format : {WeightFormat::kFloat32, WeightFormat::kFloat16, WeightFormat::kBfloat16,
                                    WeightFormat::kInt8, WeightFormat::kNf4, WeightFormat::kFp4}) {
    WeightStorage storage;
    storage.format = format;
    setup.storage = storage;
    const auto session = setup.session();
    const at::Tensor base = as_tensor(session->encode(setup.batch.tokens, false, true, 100));
    for (const auto& [init, dora] : {std::pair(AdapterInit::kKaiming, true),
                                     {AdapterInit::kPissa, false},
                                     {AdapterInit::kOlora, false}}) {
      AdapterSpec spec = plain;
      spec.init = init;
      spec.dora = dora;
      session->create_adapter(spec, 42);
      const std::string what = std::string(weight_format_name(format)) + (dora ? ", DoRA" : ", of the base");
      const at::Tensor begun = as_tensor(session->encode(setup.batch.tokens, true, true, 100));
      // 8 bits round x, and the product of A with it not: what should cancel does to a rounding.
      const double tolerance = format == WeightFormat::kInt8 && !dora ? 2e-2 : 1e-5;
      check_close(begun, base, tolerance, tolerance, what);
      for (uint32_t step = 0; step < 3; step++) session->step(setup.batch, {{7, step, 90}, {}, 1.0});
      const at::Tensor trained = as_tensor(session->encode(setup.batch.tokens, true, true, 100));
      check((trained - base).abs().max().item<float>() > 1e-3, what + " trains");
    }
  }
}

PEFT_TEST(loftq_makes_up_for_what_quantising_loses) {
  Setup setup(tiny_shape(), spec_for(tiny_shape(), kAll, 8, 0.5, 0));
  const at::Tensor exact = as_tensor(setup.session()->encode(setup.batch.tokens, false, true, 100));
  WeightStorage storage;
  storage.format = WeightFormat::kNf4;
  const TemporaryFile model("plain.safetensors");
  write_safetensors(model.path(), setup.bert);
  const auto session =
      std::make_unique<Session>(SessionOptions{model.path(), setup.shape, setup.pooling, "cpu", 0, storage});
  AdapterSpec spec = setup.spec;
  spec.init = AdapterInit::kLoftq;
  session->create_adapter(spec, 42);
  const auto distance = [&](bool adapted) {
    const at::Tensor found = as_tensor(session->encode(setup.batch.tokens, adapted, true, 100));
    return (found - exact).norm().item<double>();
  };
  check(distance(true) < 0.85 * distance(false),
        std::to_string(distance(true)) + " against " + std::to_string(distance(false)));
}

PEFT_TEST(variants_that_do_not_go_together_are_refused) {
  const auto session = Setup(tiny_shape(), spec_for(tiny_shape(), kQkv, 4, 2.0, 0)).session();
  AdapterSpec both = spec_for(tiny_shape(), kQkv, 4, 2.0, 0);
  both.dora = both.bias = true;
  check_error([&] { session->create_adapter(both, 1); }, "ADAPTER_UNSUPPORTED", "DoRA with a bias");
  both.bias = false;
  both.init = AdapterInit::kPissa;
  check_error([&] { session->create_adapter(both, 1); }, "ADAPTER_UNSUPPORTED", "DoRA with parts");
  AdapterSpec odd = spec_for(tiny_shape(), kQkv, 5, 2.0, 0);
  odd.init = AdapterInit::kOrthogonal;
  check_error([&] { session->create_adapter(odd, 1); }, "USAGE", "even rank");
  AdapterSpec wide = spec_for(tiny_shape(), kQkv, 49, 2.0, 0);
  wide.init = AdapterInit::kOlora;
  check_error([&] { session->create_adapter(wide, 1); }, "USAGE", "Rank 49 is beyond");
}

PEFT_TEST(gradients_match_autograd_with_cls_pooling) {
  Setup setup = with_dropout(spec_for(tiny_shape(), kQkv, 4, 2.0, 0));
  setup.pooling = Pooling::kCls;
  check_gradients(setup, kPass, "cls pooling");
}

PEFT_TEST(micro_batches_change_nothing_but_rounding) {
  const Setup setup = with_dropout(spec_for(tiny_shape(), kAll, 4, 2.0, 0.1));
  for (const int64_t tokens : {1, 50, 100, 150})
    check_gradients(setup, {9, 8, tokens}, "micro-batches of " + std::to_string(tokens));
}

PEFT_TEST(losses_over_the_whole_batch_match_autograd) {
  Setup setup = with_dropout(spec_for(tiny_shape(), kAll, 4, 2.0, 0.1));
  setup.batch.labels.clear();
  PassOptions pass{9, 8, 0};
  pass.loss.kind = LossKind::kMultipleNegativesRanking;
  pass.loss.scale = 20;
  for (const int64_t each : {2, 5}) {
    setup.batch.texts_per_example = each;
    for (const bool checkpointing : {false, true}) {
      setup.checkpointing = checkpointing;
      // From an example at a time to all of them at once.
      for (const int64_t tokens : {1, 100, 1000}) {
        pass.micro_batch_tokens = tokens;
        check_gradients(setup, pass,
                        std::to_string(each) + " texts, micro-batches of " + std::to_string(tokens));
      }
    }
  }
}

PEFT_TEST(anchored_gradients_match_autograd) {
  for (const int64_t each : {2, 3}) {
    for (const FixedTexts& places : {FixedTexts{0, 1}, FixedTexts{1, each - 1}}) {
      Setup setup = with_dropout(spec_for(tiny_shape(), kAll, 4, 2.0, 0.1));
      anchor(setup, each, places);
      for (const bool over_batch : {false, true}) {
        if (!over_batch && each > 2) continue;  // the pair loss takes pairs
        PassOptions pass = kPass;
        if (over_batch) {
          setup.batch.labels.clear();
          pass.loss.kind = LossKind::kMultipleNegativesRanking;
          pass.loss.scale = 20;
        }
        for (const int64_t tokens : {1, 100, 1000}) {
          pass.micro_batch_tokens = tokens;
          check_gradients(setup, pass,
                          std::to_string(places.count) + " of " + std::to_string(each) + " texts fixed at " +
                              std::to_string(places.first));
        }
      }
    }
  }
}

PEFT_TEST(the_gradient_of_kept_texts_matches_autograd) {
  for (const bool anchored : {false, true}) {
    for (const Pooling pooling : {Pooling::kMean, Pooling::kCls}) {
      Setup setup = with_dropout(spec_for(tiny_shape(), kAll, 4, 2.0, 0.3));
      setup.pooling = pooling;
      if (anchored) anchor(setup, 2, {1, 1});
      keep(setup, 1.7);
      for (const int64_t tokens : {1, 50, 1000})
        check_gradients(setup, {9, 8, tokens}, "kept, micro-batches of " + std::to_string(tokens));
    }
  }
}

PEFT_TEST(kept_texts_cost_nothing_where_the_adapter_is_nothing) {
  Setup setup = with_dropout(spec_for(tiny_shape(), kQkv, 4, 2.0, 0.2));
  const auto session = setup.session();
  session->create_adapter(setup.spec, 3);
  std::map<std::string, std::vector<float>> without, with;
  const double loss = session->gradients(setup.batch, kPass, without);
  setup.batch.kept = {setup.batch.tokens, session->encode(setup.batch.tokens, false, true, 1000), 10};
  check(std::abs(session->gradients(setup.batch, kPass, with) - loss) < 1e-9, "loss");
  for (const auto& [key, gradient] : without)
    check_close(as_tensor(with.at(key)), as_tensor(gradient), 1e-6, 1e-6, key);
}

PEFT_TEST(bad_anchors_are_refused) {
  Setup setup(tiny_shape(), spec_for(tiny_shape(), kQkv, 4, 2.0, 0));
  const auto session = setup.session();
  const auto refused = [&](const Setup& bad, const std::string& message) {
    check_error([&] { session->step(bad.batch, {kPass, {}, 0}); }, "USAGE", message);
  };
  Setup all = setup;
  all.batch.fixed = {0, 2, {}};
  refused(all, "2 texts from place 0 on cannot be fixed in examples of 2 texts");
  Setup beyond = setup;
  beyond.batch.fixed = {2, 1, {}};
  refused(beyond, "1 texts from place 2 on");
  Setup few = setup;
  anchor(few, 2, {1, 1});
  few.batch.fixed.vectors.pop_back();
  refused(few, "expected 480 numbers for 10 fixed texts, got 479");
  Setup kept = setup;
  keep(kept, 1);
  kept.batch.kept.vectors.push_back(0);
  refused(kept, "numbers for 4 kept texts");
  kept.batch.kept.tokens = {{}, {0}};
  kept.batch.kept.vectors.clear();
  refused(kept, "no texts are kept");
}

PEFT_TEST(activation_checkpointing_changes_memory_and_nothing_else) {
  AdapterSpec one_layer;
  one_layer.modules.push_back({"encoder.layer.1.output.dense", 4, 2.0});
  for (const AdapterSpec& spec :
       {spec_for(tiny_shape(), kQkv, 4, 2.0, 0), spec_for(tiny_shape(), kAll, 4, 2.0, 0.1), one_layer}) {
    Setup kept = with_dropout(spec);
    Setup recomputed = kept;
    recomputed.checkpointing = true;
    std::map<std::string, std::vector<float>> expected, found;
    const PassOptions pass{9, 8, 100};
    const auto session = recomputed.session();
    const double loss = session->gradients(kept.batch, pass, found);
    check(loss == kept.session()->gradients(kept.batch, pass, expected), "loss");
    check(found == expected, "gradients");
    check(session->memory(1000, true).activations < kept.session()->memory(1000, true).activations, "memory");
  }
}

PEFT_TEST(gradients_match_finite_differences) {
  Setup setup = with_dropout(spec_for(tiny_shape(), kAll, 2, 1.0, 0.2));
  check_finite_differences(setup);
  anchor(setup, 2, {1, 1});
  keep(setup, 1.7);
  check_finite_differences(setup);
}

PEFT_TEST(steps_repeat_to_the_bit) {
  const Setup setup = with_dropout(spec_for(tiny_shape(), kQkv, 4, 2.0, 0.1));
  std::map<std::string, std::vector<float>> first;
  for (int run = 0; run < 3; run++) {
    const auto session = setup.session();
    for (uint32_t step = 0; step < 5; step++) session->step(setup.batch, {{7, step, 90}, {}, 1.0});
    const auto weights = session->adapter_weights();
    if (run == 0) first = weights;
    check(weights == first, "weights after five steps, run " + std::to_string(run));
  }
}

PEFT_TEST(a_restored_optimiser_goes_on_to_the_bit) {
  const Setup setup = with_dropout(spec_for(tiny_shape(), kQkv, 4, 2.0, 0.1));
  const TemporaryFile weights("saved.safetensors"), moments("optimizer.safetensors");
  const auto train = [&](Session& session, uint32_t from, uint32_t to) {
    for (uint32_t step = from; step < to; step++) session.step(setup.batch, {{7, step, 90}, {}, 1.0});
  };
  const auto whole = setup.session();
  train(*whole, 0, 3);
  whole->save_adapter(weights.path());
  whole->save_optimizer(moments.path());
  train(*whole, 3, 6);
  const auto resumed = setup.session();
  resumed->load_adapter(weights.path(), setup.spec);
  resumed->load_optimizer(moments.path());
  train(*resumed, 3, 6);
  check(resumed->adapter_weights() == whole->adapter_weights(), "three steps after the file");
  const auto without = setup.session();
  without->load_adapter(weights.path(), setup.spec);
  train(*without, 3, 6);
  check(without->adapter_weights() != whole->adapter_weights(), "the moments matter");
  const auto other = setup.session();
  other->create_adapter(spec_for(tiny_shape(), kQkv, 2, 2.0, 0.1), 1);
  check_error([&] { other->load_optimizer(moments.path()); }, "CHECKPOINT_CORRUPT", "another shape");
  check_error([&] { other->load_optimizer(weights.path()); }, "CHECKPOINT_CORRUPT", "\"step\" is missing");
  other->remove_adapter();
  check_error([&] { other->load_optimizer(moments.path()); }, "USAGE", "loadOptimizer needs an adapter");
}

PEFT_TEST(adam_and_clipping_match_the_formulas) {
  const Setup setup(tiny_shape(), spec_for(tiny_shape(), kQkv, 4, 2.0, 0));
  const auto session = setup.session();
  AdamOptions adam;
  adam.learning_rate = 1e-3;
  adam.weight_decay = 0.1;
  std::map<std::string, at::Tensor> p, m, v;
  for (const auto& [key, value] : setup.adapter) {
    p[key] = value.flatten().to(at::kDouble);
    m[key] = v[key] = at::zeros_like(p[key]);
  }
  for (uint32_t step = 0; step < 3; step++) {
    std::map<std::string, std::vector<float>> gradients;
    session->gradients(setup.batch, {0, step, 1000}, gradients);
    double squares = 0;
    for (const auto& [key, g] : gradients)
      squares += as_tensor(g).to(at::kDouble).square().sum().item<double>();
    const double norm = std::sqrt(squares), clip = norm > 0.01 ? 0.01 / (norm + 1e-6) : 1;
    const StepResult result = session->step(setup.batch, {{0, step, 1000}, adam, 0.01});
    check(std::abs(result.grad_norm - norm) < 1e-6 * norm, "gradient norm");
    const double c1 = 1 - std::pow(0.9, step + 1), c2 = 1 - std::pow(0.999, step + 1);
    for (auto& [key, value] : p) {
      const at::Tensor g = as_tensor(gradients.at(key)).to(at::kDouble) * clip;
      m[key] = 0.9 * m[key] + 0.1 * g;
      v[key] = 0.999 * v[key] + 0.001 * g * g;
      value = value * (1 - 1e-3 * 0.1) - 1e-3 * (m[key] / c1) / ((v[key] / c2).sqrt() + 1e-8);
    }
  }
  for (const auto& [key, value] : session->adapter_weights())
    check_close(as_tensor(value), p.at(key), 1e-6, 1e-6, key);
}

PEFT_TEST(fresh_adapters_start_as_nothing) {
  Setup setup(tiny_shape(), spec_for(tiny_shape(), kAll, 8, 2.0, 0));
  const auto session = setup.session();
  session->create_adapter(setup.spec, 42);
  check(session->encode(setup.batch.tokens, true, true, 100) ==
            session->encode(setup.batch.tokens, false, true, 100),
        "B = 0 changes nothing");
  for (const auto& [key, value] : session->adapter_weights()) {
    const at::Tensor t = as_tensor(value);
    if (key.find("lora_B") != std::string::npos) {
      check(t.abs().max().item<float>() == 0, key + " is zero");
    } else {
      const double bound = 1 / std::sqrt(static_cast<double>(t.numel()) / 8);
      check(t.abs().max().item<double>() <= bound && t.abs().max().item<double>() > 0.9 * bound,
            key + " fills its range");
      check(std::abs(t.mean().item<double>()) < 0.15 * bound, key + " is centred");
    }
  }
}

PEFT_TEST(bad_batches_and_modules_are_refused) {
  Setup setup(tiny_shape(), spec_for(tiny_shape(), kQkv, 4, 2.0, 0));
  const auto session = setup.session();
  const auto encode = [&](std::vector<int32_t> ids, std::vector<int32_t> offsets) {
    session->encode({std::move(ids), std::move(offsets)}, true, true, 100);
  };
  check_error([&] { encode({1, 2}, {0, 1}); }, "USAGE", "cuSeqlens");
  check_error([&] { encode({1, 2}, {0, 2, 1, 2}); }, "USAGE", "text 1 has -1 tokens");
  check_error([&] { encode({1, 101}, {0, 2}); }, "USAGE", "token id 101");
  check_error([&] { encode(std::vector<int32_t>(81, 1), {0, 81}); }, "USAGE", "81 tokens");
  check_error(
      [&] {
        session->step({{{1, 2}, {0, 1, 2}}, {1, 0}}, {});
      },
      "USAGE", "Expected 1 labels for 1 examples, got 2");
  check_error(
      [&] {
        session->create_adapter({{{"encoder.layer.3.output.dense", 4, 1.0}}, 0}, 1);
      },
      "ADAPTER_UNSUPPORTED", "encoder.layer.3");
  check_error(
      [&] {
        session->create_adapter({{{"embeddings.word_embeddings", 4, 1.0}}, 0}, 1);
      },
      "ADAPTER_UNSUPPORTED", "word_embeddings");
  session->remove_adapter();
  check_error([&] { session->step(setup.batch, {{0, 0, 10}, {}, 0}); }, "USAGE", "adapter");
  check(session->encode({{}, {0}}, true, true, 100).empty(), "no texts give no rows");
}

}  // namespace peft::test
