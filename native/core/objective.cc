#include "core/objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <string>

#include "error.h"

namespace peft {
namespace {

constexpr double kSmallestNorm = 1e-12;

Tensor row_norms(const Tensor& pooled) {
  return at::linalg_vector_norm(pooled, 2, at::IntArrayRef{1}, true).clamp_min(kSmallestNorm);
}

}  // namespace

Tensor normalize_rows(const Tensor& pooled) { return pooled / row_norms(pooled); }

Objective::Objective(const LossSpec& spec, int64_t dimension)
    : loss_(make_loss(spec)), dimension_(dimension), dims_(spec.dims), weights_(spec.weights) {
  if (dims_.empty()) {
    dims_ = {dimension};
    weights_ = {1};
  }
  if (dims_.size() != weights_.size()) throw EngineError("USAGE", "Expected one weight a width");
  for (const int64_t width : dims_) {
    if (width < 1 || width > dimension) {
      throw EngineError("USAGE", "Vectors of " + std::to_string(dimension) + " dimensions cannot be cut to " +
                                     std::to_string(width));
    }
  }
}

void Objective::check(int64_t texts_per_example, int64_t examples, int64_t labels) const {
  if (!loss_->takes(texts_per_example)) {
    throw EngineError("USAGE",
                      "This loss does not take examples of " + std::to_string(texts_per_example) + " texts");
  }
  const int64_t expected = examples * loss_->labels_per_example(dimension_);
  if (labels != expected) {
    throw EngineError("USAGE", "Expected " + std::to_string(expected) + " labels for " +
                                   std::to_string(examples) + " examples, got " + std::to_string(labels));
  }
}

LossValue Objective::operator()(const Tensor& pooled, int64_t texts_per_example, const Tensor& labels,
                                int64_t batch_examples) const {
  LossValue total{at::zeros({}, pooled.options().dtype(at::kDouble)), at::zeros_like(pooled)};
  for (size_t i = 0; i < dims_.size(); i++) {
    const Tensor cut = pooled.narrow(1, 0, dims_[i]);
    const Tensor norms = row_norms(cut);
    const Tensor unit = cut / norms;
    const LossValue part = (*loss_)(unit.view({-1, texts_per_example, dims_[i]}), labels, batch_examples);
    total.value.add_(part.value, weights_[i]);
    // Through the normalisation: (g - e (e . g)) / |p|.
    const Tensor g = part.gradient.view(unit.sizes());
    total.gradient.narrow(1, 0, dims_[i]).add_((g - unit * (unit * g).sum(1, true)) / norms, weights_[i]);
  }
  return total;
}

void report_not_finite(const Tensor& pooled, int64_t texts_per_example) {
  const Tensor bad = pooled.isfinite().all(1).logical_not().nonzero();
  const std::string where =
      bad.size(0) == 0
          ? "The loss"
          : "A vector of example " + std::to_string(bad[0][0].item<int64_t>() / texts_per_example);
  throw EngineError("NOT_FINITE", where + " is not finite",
                    "Lower --learning_rate, or set --max_grad_norm 1.");
}

}  // namespace peft
