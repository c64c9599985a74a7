#include <ATen/ATen.h>

#include <cmath>

#include "encoder_case.h"
#include "weights/safetensors.h"

namespace peft::test {

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

}  // namespace peft::test
