#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

namespace peft {

using at::Tensor;

enum class LossKind {
  kPair,
  kContrastive,
  kOnlineContrastive,
  kCosineSimilarity,
  kCosent,
  kAngle,
  kTriplet,
  kMultipleNegativesRanking,
  kMse
};

enum class Distance { kCosine, kEuclidean, kManhattan };

struct LossSpec {
  LossKind kind = LossKind::kPair;
  Distance distance = Distance::kCosine;  // of contrastive, online contrastive and triplet
  double margin = 0;                      // of the same
  double scale = 0;                       // of cosent, angle and multiple negatives ranking
  /// Widths that vectors are cut to, and what the loss at each counts (Kusupati et al., "Matryoshka
  /// Representation Learning", 2022); empty: whole vectors alone.
  std::vector<int64_t> dims = {};
  std::vector<double> weights = {};
};

/// Throws USAGE for a name that is none.
LossKind parse_loss(const std::string& name);
Distance parse_distance(const std::string& name);

struct LossValue {
  Tensor value;     // fp64, of no dimension, where the vectors are: nobody waits for it until it is read
  Tensor gradient;  // of the value, in the shape of the vectors
};

/// A loss of unit vectors [examples, texts, d]. An example is one text, two, or an anchor, its positive and
/// its negatives.
class Loss {
 public:
  virtual ~Loss() = default;

  /// What these examples add to the loss of a batch of `batch_examples`. A loss that is not separable must be
  /// given the whole batch. Labels are fp32, flat, on the device of the vectors.
  virtual LossValue operator()(const Tensor& vectors, const Tensor& labels, int64_t batch_examples) const = 0;
  /// Whether the loss of a batch is the mean over its examples.
  virtual bool separable() const = 0;
  /// Numbers that come with an example whose whole vectors have `dimension` entries: none, a label, or a
  /// vector.
  virtual int64_t labels_per_example(int64_t dimension) const = 0;
  virtual bool takes(int64_t texts_per_example) const = 0;
};

std::unique_ptr<Loss> make_loss(const LossSpec& spec);

}  // namespace peft
