#pragma once

#include "core/loss.h"

namespace peft {

/// e = p / max(|p|, 1e-12) row by row, as torch.nn.functional.normalize.
Tensor normalize_rows(const Tensor& pooled);

/// What training minimises: a loss of the pooled vectors scaled to length 1, or the weighted sum of that loss
/// over several widths that they are cut to.
class Objective {
 public:
  /// Throws USAGE for widths that vectors of `dimension` do not have.
  Objective(const LossSpec& spec, int64_t dimension);

  bool separable() const { return loss_->separable(); }
  /// Throws USAGE for examples that the loss does not take.
  void check(int64_t texts_per_example, int64_t examples, int64_t labels) const;
  /// As Loss, of pooled [texts, d]. What is not finite shows in the value.
  LossValue operator()(const Tensor& pooled, int64_t texts_per_example, const Tensor& labels,
                       int64_t batch_examples) const;

 private:
  std::unique_ptr<Loss> loss_;
  int64_t dimension_;
  std::vector<int64_t> dims_;
  std::vector<double> weights_;
};

/// Throws NOT_FINITE for a loss of these vectors that is not finite, which names the first example that is to
/// blame.
[[noreturn]] void report_not_finite(const Tensor& pooled, int64_t texts_per_example);

}  // namespace peft
