#include <ATen/ATen.h>

#include <cmath>

#include "encoder_case.h"
#include "weights/safetensors.h"

namespace peft::test {

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

}  // namespace peft::test
