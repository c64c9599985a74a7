#include "core/pair_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <cmath>
#include <string>

#include "error.h"

namespace peft {
namespace {

constexpr double kSmallestNorm = 1e-12;

Tensor row_norms(const Tensor& pooled) {
  return at::linalg_vector_norm(pooled, 2, at::IntArrayRef{1}, true).clamp_min(kSmallestNorm);
}

/// The first pair whose loss is NaN or infinite.
[[noreturn]] void report_not_finite(const Tensor& losses) {
  const Tensor bad = losses.isfinite().logical_not().nonzero();
  throw EngineError(
      "NOT_FINITE",
      "The loss is not finite at pair " + std::to_string(bad[0][0].item<int64_t>()) + " of this group",
      "Lower --learning_rate, or set --max_grad_norm 1.");
}

}  // namespace

Tensor normalize_rows(const Tensor& pooled) { return pooled / row_norms(pooled); }

PairLoss pair_loss(const Tensor& pooled, const Tensor& labels, int64_t batch_pairs) {
  const int64_t n = labels.size(0), d = pooled.size(1);
  const Tensor norms = row_norms(pooled);
  const Tensor e = (pooled / norms).view({n, 2, d});
  const Tensor e1 = e.select(1, 0), e2 = e.select(1, 1);
  const Tensor cosine = (e1 * e2).sum(1);
  const Tensor residual = labels * (1 - cosine) + (1 - labels) * cosine.clamp_min(0);
  const Tensor losses = residual * residual;

  PairLoss result;
  result.sum = losses.sum(at::kDouble).item<double>();
  if (!std::isfinite(result.sum)) report_not_finite(losses);

  // d residual / d cos is -y for the first term; the second passes where the cosine is not clamped, as clamp
  // does at 0.
  const Tensor slope = (1 - labels) * (cosine >= 0).to(at::kFloat) - labels;
  const Tensor dcosine = (2.0 / static_cast<double>(batch_pairs)) * residual * slope;
  Tensor dpooled = at::empty_like(e);
  // Through the normalisation: (de - e (e . de)) / |p|, where de is the other row times dcos, so e . de =
  // dcos * cos.
  const Tensor c = cosine.unsqueeze(1), g = dcosine.unsqueeze(1);
  dpooled.select(1, 0).copy_(g * (e2 - e1 * c));
  dpooled.select(1, 1).copy_(g * (e1 - e2 * c));
  result.dpooled = dpooled.view({2 * n, d}).div_(norms);
  return result;
}

}  // namespace peft
