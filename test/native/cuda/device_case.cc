#include "device_case.h"

#include <ATen/ATen.h>

#include <stdexcept>

namespace peft::cuda {

void require(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what);
}

void require_close(const Tensor& found, const Tensor& expected, double relative, const std::string& what) {
  require(found.sizes() == expected.sizes(), what + ": shapes differ");
  if (expected.numel() == 0) return;
  const Tensor a = found.cpu().to(at::kDouble), b = expected.cpu().to(at::kDouble);
  const double error = (a - b).abs().max().item<double>(), size = b.abs().max().item<double>();
  // Also false for NaN.
  require(error <= relative * size,
          what + ": off by " + std::to_string(error) + " where the largest value is " + std::to_string(size));
}

void require_equal(const Tensor& found, const Tensor& expected, const std::string& what) {
  require(at::equal(found.cpu(), expected.cpu()), what + ": not the same numbers");
}

}  // namespace peft::cuda
