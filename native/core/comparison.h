#pragma once

#include <ATen/core/Tensor.h>

#include "core/loss.h"

namespace peft {

/// What two unit vectors are compared by.
struct Comparison {
  enum class Kind { kCosine, kCosineDistance, kEuclidean, kManhattan, kAngle };

  Kind kind;
  double epsilon = 0;  // added to every difference of euclidean and manhattan

  /// Row by row: [n] of two [n, d].
  Tensor operator()(const Tensor& a, const Tensor& b) const;
  /// Adds to da and db what `slope` [n], the gradient of the result, gives them.
  void backward(const Tensor& a, const Tensor& b, const Tensor& slope, Tensor da, Tensor db) const;
};

Comparison distance_of(Distance distance, double epsilon);

}  // namespace peft
