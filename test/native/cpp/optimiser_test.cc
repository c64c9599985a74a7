#include <ATen/ATen.h>

#include <cmath>

#include "adam_oracle.h"
#include "encoder_case.h"
#include "weights/safetensors.h"

namespace peft::test {

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
  const Weights p =
      follow_adam(*session, setup.batch, setup.adapter, [](const std::string&) { return true; });
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

}  // namespace peft::test
