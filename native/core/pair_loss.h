#pragma once

#include <ATen/core/Tensor.h>

namespace peft {

using at::Tensor;

/// e = p / max(|p|, 1e-12) row by row, as torch.nn.functional.normalize.
Tensor normalize_rows(const Tensor& pooled);

struct PairLoss {
  double sum = 0;  // over the pairs given
  Tensor dpooled;  // gradient of (sum / batch_pairs) with respect to the unnormalised vectors
};

/// The article's loss of pairs (rows 2i, 2i + 1 of pooled [2n, d]): (y (1 - cos) + (1 - y) max(cos, 0))^2, to
/// be averaged over the `batch_pairs` of the whole batch. Twice ContrastiveLoss with margin 1 on cosine
/// distance.
PairLoss pair_loss(const Tensor& pooled, const Tensor& labels, int64_t batch_pairs);

}  // namespace peft
