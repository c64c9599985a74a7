#include "adam_oracle.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "check.h"

namespace peft::test {

Weights follow_adam(Session& session, const ExampleBatch& batch, const Weights& start,
                    bool (*decays)(const std::string& key)) {
  AdamOptions adam;
  adam.learning_rate = 1e-3;
  adam.weight_decay = 0.1;
  Weights p, m, v;
  for (const auto& [key, value] : start) {
    p[key] = value.flatten().to(at::kDouble);
    m[key] = v[key] = at::zeros_like(p[key]);
  }
  for (uint32_t step = 0; step < 3; step++) {
    std::map<std::string, std::vector<float>> told;
    session.gradients(batch, {0, step, 1000}, told);
    Weights gradients;
    double squares = 0;
    for (const auto& [key, values] : told) {
      gradients[key] = at::tensor(values).to(at::kDouble);
      squares += gradients[key].square().sum().item<double>();
    }
    const double norm = std::sqrt(squares), clip = norm > 0.01 ? 0.01 / (norm + 1e-6) : 1;
    const StepResult result = session.step(batch, {{0, step, 1000}, adam, 0.01});
    check(std::abs(result.grad_norm - norm) < 1e-6 * norm, "gradient norm");
    const double c1 = 1 - std::pow(0.9, step + 1), c2 = 1 - std::pow(0.999, step + 1);
    for (auto& [key, value] : p) {
      const at::Tensor g = gradients.at(key) * clip;
      m[key] = 0.9 * m[key] + 0.1 * g;
      v[key] = 0.999 * v[key] + 0.001 * g * g;
      if (decays(key)) value = value * (1 - 1e-3 * 0.1);
      value = value - 1e-3 * (m[key] / c1) / ((v[key] / c2).sqrt() + 1e-8);
    }
  }
  return p;
}

}  // namespace peft::test
