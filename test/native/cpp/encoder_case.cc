#include "encoder_case.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace peft::test {
namespace {

std::vector<float> unit_vectors(int64_t texts, int64_t dimension) {
  const at::Tensor rows = at::randn({texts, dimension});
  const at::Tensor unit = (rows / rows.norm(2, 1, true)).contiguous();
  return {unit.const_data_ptr<float>(), unit.const_data_ptr<float>() + unit.numel()};
}

}  // namespace

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

}  // namespace peft::test
