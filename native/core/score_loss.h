#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace peft {

using at::Tensor;

struct ScoreValue {
  Tensor value;   // of no dimension
  Tensor slopes;  // [pairs]: the derivative by each score
};

/// A loss of how pairs compare (their cosine or distance, one a pair) and of their labels: what these pairs
/// add to the loss of a batch of `batch` pairs. All in fp64 on one device, and in calls that do not wait for
/// it.
using ScoreLoss = std::function<ScoreValue(const Tensor& scores, const Tensor& labels, double batch)>;

/// The article's loss of cosines c: mean (y (1 - c) + (1 - y) max(c, 0))^2. Twice the contrastive loss with
/// margin 1 on cosine distance.
ScoreLoss pair_scores();

/// Mean of (y d^2 + (1 - y) max(margin - d, 0)^2) / 2 over distances d. Hadsell et al., "Dimensionality
/// Reduction by Learning an Invariant Mapping", 2006.
ScoreLoss contrastive_scores(double margin);

/// Sum of d^2 over those positives that are farther than the nearest negative, and of max(margin - d, 0)^2
/// over those negatives that are nearer than the farthest positive. Where one kind is missing, the mean
/// distance of the other takes the place of its extreme, as in sentence-transformers.
ScoreLoss online_contrastive_scores(double margin);

/// Mean of (c - y)^2.
ScoreLoss squared_error_scores();

/// log(1 + sum of exp(scale (c_i - c_j)) over all i and j where y_i < y_j). Huang et al., "CoSENT: Consistent
/// Sentence Embedding via Similarity Ranking", 2024.
ScoreLoss cosent_scores(double scale);

}  // namespace peft
