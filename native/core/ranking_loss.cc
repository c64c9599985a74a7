#include "core/ranking_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace peft {
namespace {

/// Cosines that are held at once: 16 MiB of them, however large the batch.
constexpr int64_t kMostScores = int64_t{1} << 22;

}  // namespace

LossValue RankingLoss::operator()(const Tensor& vectors, const Tensor&, int64_t) const {
  const int64_t n = vectors.size(0), texts = vectors.size(1), d = vectors.size(2);
  const Tensor anchors = vectors.select(1, 0);
  // All positives, in the order of the anchors, then all first negatives, and so on.
  const Tensor candidates = vectors.narrow(1, 1, texts - 1).transpose(0, 1).reshape({(texts - 1) * n, d});
  Tensor dcandidates = at::zeros_like(candidates);
  LossValue result{at::zeros({}, vectors.options().dtype(at::kDouble)), at::empty_like(vectors)};
  const int64_t block = std::max<int64_t>(1, kMostScores / candidates.size(0));
  for (int64_t first = 0; first < n; first += block) {
    const int64_t rows = std::min(block, n - first);
    const Tensor queries = anchors.narrow(0, first, rows);
    Tensor scores = at::mm(queries, candidates.t()).mul_(scale_);
    const Tensor log_sum = at::logsumexp(scores, {1}, true);
    const auto own = [&](const Tensor& all) { return all.narrow(1, first, rows).diagonal(); };
    result.value.add_((log_sum.squeeze(1) - own(scores)).sum(at::kDouble));
    Tensor slope = scores.sub_(log_sum).exp_();
    own(slope).sub_(1);
    slope.mul_(scale_ / static_cast<double>(n));
    result.gradient.select(1, 0).narrow(0, first, rows).copy_(at::mm(slope, candidates));
    dcandidates.addmm_(slope.t(), queries);
  }
  result.value.div_(static_cast<double>(n));
  result.gradient.narrow(1, 1, texts - 1).copy_(dcandidates.view({texts - 1, n, d}).transpose(0, 1));
  return result;
}

}  // namespace peft
