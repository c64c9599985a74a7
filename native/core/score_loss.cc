#include "core/score_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logcumsumexp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

namespace peft {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Tensor squared(const Tensor& x) { return x * x; }

/// Of scores that lie in the order of their labels: by score, log of the sum of exp over all with a lower
/// label. `begin` is where the scores of its own label begin.
Tensor log_sum_below(const Tensor& scores, const Tensor& begin) {
  const Tensor none = at::full({1}, -kInfinity, scores.options());
  return at::cat({none, at::logcumsumexp(scores, 0)}).index_select(0, begin);
}

}  // namespace

ScoreLoss pair_scores() {
  return [](const Tensor& cosines, const Tensor& labels, double batch) -> ScoreValue {
    const Tensor negative = 1 - labels;
    const Tensor residual = labels * (1 - cosines) + negative * cosines.clamp_min(0);
    // At 0 the gradient passes, as through torch's clamp.
    const Tensor slopes = residual * (2 / batch) * (at::where(cosines >= 0, negative, 0) - labels);
    return {squared(residual).sum() / batch, slopes};
  };
}

ScoreLoss contrastive_scores(double margin) {
  return [margin](const Tensor& distances, const Tensor& labels, double batch) -> ScoreValue {
    const Tensor negative = 1 - labels, short_of = (margin - distances).clamp_min(0);
    const Tensor sum = (labels * squared(distances) + negative * squared(short_of)).mul_(0.5).sum();
    return {sum / batch, (labels * distances - negative * short_of) / batch};
  };
}

ScoreLoss online_contrastive_scores(double margin) {
  return [margin](const Tensor& distances, const Tensor& labels, double) -> ScoreValue {
    const Tensor positive = labels == 1, negative = positive.logical_not();
    // Where a kind is missing, all distances are of the other.
    const Tensor mean = distances.mean();
    const Tensor nearest = at::where(positive, kInfinity, distances).min(),
                 farthest = at::where(positive, distances, -kInfinity).max();
    const Tensor farther_than = at::where(negative.any(), nearest, mean),
                 nearer_than = at::where(positive.any(), farthest, mean);
    const Tensor none = at::zeros_like(distances);
    const Tensor far = at::where(positive.logical_and(distances > farther_than), distances, none),
                 short_of = at::where(negative.logical_and(distances < nearer_than),
                                      (margin - distances).clamp_min(0), none);
    return {(squared(far) + squared(short_of)).sum(), (far - short_of) * 2};
  };
}

ScoreLoss squared_error_scores() {
  return [](const Tensor& cosines, const Tensor& labels, double batch) -> ScoreValue {
    const Tensor error = cosines - labels;
    return {squared(error).sum() / batch, error * (2 / batch)};
  };
}

ScoreLoss cosent_scores(double scale) {
  return [scale](const Tensor& scores, const Tensor& labels, double) -> ScoreValue {
    // All pairs of n scores in n log n steps: in the order of labels, each score meets a sum over all lower
    // labels and one over all higher ones.
    const Tensor order = at::argsort(labels, /*stable=*/true, 0, /*descending=*/false);
    const Tensor ranked = labels.index_select(0, order), score = scores.index_select(0, order) * scale;
    const Tensor begin = at::searchsorted(ranked, ranked),
                 end = at::searchsorted(ranked, ranked, /*out_int32=*/false, /*right=*/true);
    const Tensor below = log_sum_below(score, begin);
    const Tensor above = log_sum_below(score.neg().flip(0), (score.size(0) - end).flip(0)).flip(0);
    const Tensor loss = at::logsumexp(at::cat({at::zeros({1}, score.options()), score + above}), 0);
    const Tensor slopes = ((score + above - loss).exp() - (below - score - loss).exp()) * scale;
    return {loss, at::zeros_like(scores).index_copy_(0, order, slopes)};
  };
}

}  // namespace peft
