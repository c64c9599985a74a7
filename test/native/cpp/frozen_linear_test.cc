#include "weights/frozen_linear.h"

#include <ATen/ATen.h>

#include "check.h"
#include "kernel_sets.h"
#include "oracle.h"
#include "weights/quantize_model.h"
#include "weights/safetensors.h"

// Every storage format of a frozen weight: its products on each instruction set against plain ATen, and the
// whole encoder on it against the oracle on the weights that it stands for.

namespace peft::test {
namespace {

struct Shape {
  int64_t parts, out, in;
};
const Shape kShapes[] = {{1, 1, 1},    {1, 7, 5},    {3, 16, 16},   {1, 33, 64},  {3, 40, 48},  {1, 64, 200},
                         {1, 100, 96}, {3, 100, 70}, {1, 384, 384}, {3, 96, 384}, {1, 40, 1536}};

at::Tensor some_weight(int64_t out, int64_t in) {
  return at::randn({out, in}) * 0.05 * (1 + 10 * (at::rand({out, in}) > 0.99).to(at::kFloat));
}

/// Forward and input gradient of both on x with rows that lie apart, over few and many rows.
void check_products(FrozenLinear& fast, FrozenLinear& plain, double tolerance, const std::string& what) {
  const int64_t in = plain.in_features(), out = plain.out_features();
  check(fast.in_features() == in && fast.out_features() == out, what + ": shape");
  check(at::equal(fast.dequantize(), plain.dequantize()), what + ": dequantised");
  for (const int64_t rows : {1, 5, 29, 130}) {
    const at::Tensor x = at::randn({rows, in + 3}).narrow(1, 0, in), dy = at::randn({rows, out});
    const at::Tensor bias = at::randn({out});
    for (const at::Tensor& b : {bias, at::Tensor()}) {
      at::Tensor y = at::empty({rows, out}), expected = at::empty({rows, out});
      fast.forward(x, {.bias = b}, y);
      plain.forward(x, {.bias = b}, expected);
      check_close(y, expected, tolerance, tolerance, what + ": forward, " + std::to_string(rows) + " rows");
    }
    for (const bool accumulate : {false, true}) {
      at::Tensor dx = at::ones({rows, in}), expected = at::ones({rows, in});
      fast.backward_input(dy, {.accumulate = accumulate}, dx);
      plain.backward_input(dy, {.accumulate = accumulate}, expected);
      check_close(dx, expected, tolerance, tolerance, what + ": gradient, " + std::to_string(rows) + " rows");
    }
  }
}

std::string describe(const Shape& s) {
  return std::to_string(s.parts) + " x " + std::to_string(s.out) + " x " + std::to_string(s.in);
}

const WeightStorage kStorages[] = {
    {WeightFormat::kFloat16, 64, false, 0, 6},  {WeightFormat::kBfloat16, 64, false, 0, 6},
    {WeightFormat::kInt8, 64, false, 0, 6},     {WeightFormat::kInt8, 64, false, 0, 0},
    {.products = WeightFormat::kBfloat16},      {.products = WeightFormat::kFloat16},
    {WeightFormat::kNf4, 64, false, 0, 6},      {WeightFormat::kNf4, 64, true, 0, 6},
    {WeightFormat::kNf4, 64, true, 0.01, 6},    {WeightFormat::kFp4, 32, false, 0, 6},
    {WeightFormat::kFp4, 4096, true, 0.005, 6},
};

}  // namespace

PEFT_TEST(four_bit_products_match_plain_ones) {
  at::manual_seed(11);
  for (const Shape& s : kShapes) {
    for (const int64_t block : {32, 64, 256, 4096}) {
      for (const bool double_quant : {false, true}) {
        for (const double fraction : {0.0, 0.02}) {
          const WeightStorage storage{block == 64 ? WeightFormat::kFp4 : WeightFormat::kNf4, block,
                                      double_quant, fraction, 6};
          std::vector<BlockwiseWeight> parts;
          for (int64_t p = 0; p < s.parts; p++) {
            parts.push_back(quantize_blockwise(some_weight(s.out, s.in), storage));
          }
          const auto plain = reference::make_four_bit_linear(parts, at::kCPU);
          check(at::equal(plain->dequantize().narrow(0, 0, s.out), dequantize_blockwise(parts[0])),
                "reference");
          for_each_set([&](const CpuKernels& kernels, const std::string& set) {
            check_products(*make_four_bit_linear(parts, at::kCPU, kernels), *plain, 2e-5,
                           set + " " + describe(s) + " block " + std::to_string(block));
          });
        }
      }
    }
  }
}

PEFT_TEST(half_products_match_plain_ones) {
  at::manual_seed(12);
  for (const Shape& s : kShapes) {
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
      at::Tensor w = some_weight(s.out, s.in);
      w.view({-1})[0] = 1e-7;  // subnormal in fp16
      w = w.to(type);
      const auto plain = reference::make_half_linear(w);
      for_each_set([&](const CpuKernels& kernels, const std::string& set) {
        check_products(*make_half_linear(w, kernels), *plain, 2e-5, set + " " + describe(s));
      });
    }
  }
}

PEFT_TEST(rounded_products_are_those_of_rounded_operands) {
  at::manual_seed(15);
  for (const Shape& s : kShapes) {
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
      const at::Tensor w = some_weight(s.out, s.in);
      const auto rounded = [&](const at::Tensor& t) { return t.to(type).to(at::kDouble); };
      const auto compare = [&](FrozenLinear& linear, double tolerance, const std::string& what) {
        check(at::equal(linear.dequantize(), w.to(type).to(at::kFloat)), what + ": dequantised");
        for (const int64_t rows : {1, 5, 29, 130}) {
          const at::Tensor x = at::randn({rows, s.in + 3}).narrow(1, 0, s.in), dy = at::randn({rows, s.out});
          const at::Tensor bias = at::randn({s.out});
          at::Tensor y = at::empty({rows, s.out}), dx = at::ones({rows, s.in});
          linear.forward(x, {.bias = bias}, y);
          linear.backward_input(dy, {.accumulate = true}, dx);
          const std::string at = what + ", " + std::to_string(rows) + " rows";
          check_close(y, (rounded(x).mm(rounded(w).t()) + bias).to(at::kFloat), tolerance, tolerance,
                      at + ": forward");
          check_close(dx, (rounded(dy).mm(rounded(w)) + 1).to(at::kFloat), tolerance, tolerance,
                      at + ": gradient");
        }
        at::Tensor x = at::randn({2, s.in}), y = at::empty({2, s.out});
        x[1][s.in - 1] = NAN;
        linear.forward(x, {}, y);
        check(y[0].isfinite().all().item<bool>() && y[1].isnan().all().item<bool>(), what + ": NaN");
      };
      // Autocast's products are rounded to 16 bits themselves: eight bits of bfloat16.
      compare(*reference::make_rounded_linear(w, type), 2e-2, "plain " + describe(s));
      for_each_set([&](const CpuKernels& kernels, const std::string& set) {
        compare(*make_rounded_linear(w, type, kernels), 2e-5, set + " " + describe(s));
      });
    }
  }
}

PEFT_TEST(a_loss_scale_changes_no_bit_and_tells_of_overflow) {
  const ModelShape shape = tiny_shape();
  const AdapterSpec spec = spec_for(shape, {"attention.self.query", "output.dense"}, 4, 2.0, 0);
  const Weights bert = random_bert(shape), adapter = random_adapter(spec, shape);
  const ExampleBatch batch = some_pairs(shape, {3, 9, 5, 1, 20, 7});
  const TemporaryFile model("model.safetensors"), lora("adapter.safetensors");
  write_safetensors(model.path(), bert);
  write_safetensors(lora.path(), adapter);
  const auto trained = [&](double scale, StepResult& result) {
    Session session(SessionOptions{model.path(), shape, Pooling::kMean, "cpu", 0, {}});
    session.load_adapter(lora.path(), spec);
    StepOptions options;
    options.pass = {42, 3, 1000};
    options.loss_scale = scale;
    result = session.step(batch, options);
    return session.adapter_weights();
  };
  StepResult plain, scaled, overflown;
  const auto expected = trained(0, plain);
  check(trained(65536, scaled) == expected, "a power of two is taken out again exactly");
  check(scaled.grad_norm == plain.grad_norm && scaled.loss == plain.loss && scaled.not_finite.empty(),
        "told as without");
  const auto kept = trained(1e300, overflown);
  check(overflown.not_finite.find("lora_") != std::string::npos, "names " + overflown.not_finite);
  for (const auto& [key, value] : adapter) {
    const at::Tensor flat = value.flatten().contiguous();
    const float* begin = flat.const_data_ptr<float>();
    check(kept.at(key) == std::vector<float>(begin, begin + flat.numel()), key + " is as it was");
  }
}

PEFT_TEST(int8_products_match_plain_ones) {
  at::manual_seed(13);
  for (const Shape& s : kShapes) {
    const RowInt8Weight w = quantize_rows(some_weight(s.out, s.in));
    // At 1.5 every seventh entry of x or so is an outlier.
    for (const double threshold : {0.0, 6.0, 1.5}) {
      const auto plain = reference::make_int8_linear(w, threshold, at::kCPU);
      for_each_set([&](const CpuKernels& kernels, const std::string& set) {
        // A product that lands between two codes may round to either.
        check_products(*make_int8_linear(w, threshold, at::kCPU, Int8Gradient::kExact, kernels), *plain, 2e-3,
                       set + " " + describe(s) + " threshold " + std::to_string(threshold));
      });
    }
  }
}

PEFT_TEST(int8_outliers_bring_the_product_back) {
  at::manual_seed(14);
  const at::Tensor w = at::randn({64, 96}) * 0.05;
  at::Tensor x = at::randn({20, 96});
  x.select(1, 5).mul_(60);
  const at::Tensor exact = at::mm(x, w.t());
  const auto error = [&](double threshold) {
    at::Tensor y = at::empty({20, 64});
    make_int8_linear(quantize_rows(w), threshold, at::kCPU)->forward(x, {}, y);
    return ((y - exact).norm() / exact.norm()).item<double>();
  };
  check(error(6) < 0.01, "with outliers apart: " + std::to_string(error(6)));
  check(error(0) > 2 * error(6), "without: " + std::to_string(error(0)));
}

/// Embeddings and gradients on stored weights equal those of the oracle on the weights that they stand for.
/// int8 rounds x too, which the oracle does not, so that only its gradient path through W is compared,
/// loosely.
PEFT_TEST(the_encoder_runs_on_every_storage) {
  const ModelShape shape = tiny_shape();
  const AdapterSpec spec =
      spec_for(shape, {"attention.self.query", "attention.self.key", "attention.self.value", "output.dense"},
               4, 2.0, 0);
  const Weights bert = random_bert(shape), adapter = random_adapter(spec, shape);
  const ExampleBatch batch = some_pairs(shape, {3, 9, 5, 1, 20, 7});
  const TemporaryFile model("model.safetensors"), lora("adapter.safetensors");
  write_safetensors(model.path(), bert);
  write_safetensors(lora.path(), adapter);
  for (const WeightStorage& storage : kStorages) {
    const std::string what = weight_format_name(storage.format);
    Weights stands_for = bert;
    for (auto& [key, value] : stands_for) {
      const bool word = key == "embeddings.word_embeddings.weight";
      if (!word && (value.dim() != 2 || key.starts_with("embeddings"))) continue;
      const WeightFormat plain =
          storage.products != WeightFormat::kFloat32 ? storage.products : storage.format;
      const at::ScalarType half = plain == WeightFormat::kBfloat16 ? at::kBFloat16 : at::kHalf;
      if (storage.format == WeightFormat::kFloat32) {
        if (!word) value = value.to(half).to(at::kFloat);
      } else if (word || storage.format == WeightFormat::kFloat16 ||
                 storage.format == WeightFormat::kBfloat16) {
        value = value.to(half).to(at::kFloat);
      } else if (storage.format == WeightFormat::kInt8) {
        value = dequantize_rows(quantize_rows(value));
      } else {
        value = dequantize_blockwise(quantize_blockwise(value, storage));
      }
    }
    Session session(SessionOptions{model.path(), shape, Pooling::kMean, "cpu", 0, storage});
    session.load_adapter(lora.path(), spec);
    const PassOptions pass{42, 3, 1000};
    const OracleResult expected =
        run_oracle(shape, stands_for, spec, adapter, Pooling::kMean, batch, true, pass);
    const bool rounds_x = storage.format == WeightFormat::kInt8 || storage.products != WeightFormat::kFloat32;
    std::map<std::string, std::vector<float>> gradients;
    const double loss = session.gradients(batch, pass, gradients);
    check(std::abs(loss - expected.loss) < (rounds_x ? 1e-2 : 1e-6), what + ": loss " + std::to_string(loss));
    double off = 0, size = 0;
    for (const auto& [key, gradient] : expected.gradients) {
      const at::Tensor found = at::tensor(gradients.at(key)), g = gradient.flatten();
      off += (found - g).square().sum().item<double>();
      size += g.square().sum().item<double>();
      if (!rounds_x) check_close(found, g, 1e-7, 1e-4, what + ": " + key);
    }
    // All of them together: those of queries and keys are small differences, which rounding shows in most.
    if (rounds_x) check(off < 0.15 * 0.15 * size, what + ": off by " + std::to_string(std::sqrt(off / size)));
    if (storage.products == WeightFormat::kFloat16) continue;  // held as the fp32 that it is multiplied in
    check(
        session.memory(1000, true).linear < 4 * 12 * shape.hidden_size * shape.hidden_size * shape.num_layers,
        what + ": smaller than fp32");
  }
}

PEFT_TEST(quantised_files_are_read_as_they_are) {
  const ModelShape shape = tiny_shape();
  const TemporaryFile model("model.safetensors"), quantised("quantised.safetensors");
  write_safetensors(model.path(), random_bert(shape));
  const ExampleBatch batch = some_pairs(shape, {3, 9, 5, 1});
  for (const WeightStorage& storage : kStorages) {
    if (!is_four_bit(storage.format) && storage.format != WeightFormat::kInt8) continue;
    quantize_model(model.path(), quantised.path(), shape, storage, [](int64_t, int64_t) { return true; });
    Session on_load(SessionOptions{model.path(), shape, Pooling::kMean, "cpu", 0, storage});
    std::optional<WeightStorage> as_it_is;
    if (storage.outlier_threshold == 0) as_it_is = storage;
    Session from_file(SessionOptions{quantised.path(), shape, Pooling::kMean, "cpu", 0, as_it_is});
    check(
        on_load.encode(batch.tokens, false, true, 1000) == from_file.encode(batch.tokens, false, true, 1000),
        weight_format_name(storage.format));
    check(on_load.info().base_parameters == from_file.info().base_parameters, "parameters");
    WeightStorage other = storage;
    other.format = storage.format == WeightFormat::kFp4 ? WeightFormat::kNf4 : WeightFormat::kFp4;
    check_error(
        [&] {
          Session(SessionOptions{quantised.path(), shape, Pooling::kMean, "cpu", 0, other});
        },
        "ALREADY_QUANTIZED", weight_format_name(storage.format));
  }
}

}  // namespace peft::test
