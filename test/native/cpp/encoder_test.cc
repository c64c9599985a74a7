#include <ATen/ATen.h>

#include <cmath>

#include "encoder_case.h"
#include "weights/safetensors.h"

namespace peft::test {
namespace {

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
