#include "core/comparison.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/linalg_vector_norm.h>

namespace peft {
namespace {

/// i x, where the first half of a row are real parts and the second half imaginary ones.
Tensor turned(const Tensor& x) {
  const int64_t d = x.size(1), half = (d + 1) / 2;
  const Tensor even = d % 2 == 0 ? x : at::constant_pad_nd(x, {0, 1});
  return at::cat({even.narrow(1, half, half).neg(), even.narrow(1, 0, half)}, 1).narrow(1, 0, d);
}

/// Cosine and sine of the angle between a and b as complex vectors, summed: a . (b + i b). Li and Li, "AoE:
/// Angle-optimized Embeddings for Semantic Textual Similarity", 2024.
Tensor angle(const Tensor& a, const Tensor& b) { return (a * (b + turned(b))).sum(1); }

}  // namespace

Tensor Comparison::operator()(const Tensor& a, const Tensor& b) const {
  switch (kind) {
    case Kind::kCosine:
      return (a * b).sum(1);
    case Kind::kCosineDistance:
      return 1 - (a * b).sum(1);
    case Kind::kEuclidean:
      return at::linalg_vector_norm(a - b + epsilon, 2, at::IntArrayRef{1});
    case Kind::kManhattan:
      return (a - b + epsilon).abs().sum(1);
    case Kind::kAngle:
      break;
  }
  return angle(a, b).abs();
}

void Comparison::backward(const Tensor& a, const Tensor& b, const Tensor& slope, Tensor da, Tensor db) const {
  const Tensor g = slope.unsqueeze(1);
  switch (kind) {
    case Kind::kCosine:
      da.addcmul_(g, b);
      db.addcmul_(g, a);
      return;
    case Kind::kCosineDistance:
      da.addcmul_(g, b, -1);
      db.addcmul_(g, a, -1);
      return;
    case Kind::kEuclidean: {
      const Tensor difference = a - b + epsilon;
      // Where both are the same there is no direction to go: 0 / 1, not 0 / 0.
      const Tensor length = at::linalg_vector_norm(difference, 2, at::IntArrayRef{1}, true);
      const Tensor step = g * difference / length.masked_fill(length == 0, 1);
      da.add_(step);
      db.sub_(step);
      return;
    }
    case Kind::kManhattan: {
      const Tensor step = g * (a - b + epsilon).sign();
      da.add_(step);
      db.sub_(step);
      return;
    }
    case Kind::kAngle: {
      const Tensor signed_slope = g * angle(a, b).sign().unsqueeze(1);
      da.addcmul_(signed_slope, b + turned(b));
      db.addcmul_(signed_slope, a - turned(a));
      return;
    }
  }
}

Comparison distance_of(Distance distance, double epsilon) {
  switch (distance) {
    case Distance::kEuclidean:
      return {Comparison::Kind::kEuclidean, epsilon};
    case Distance::kManhattan:
      return {Comparison::Kind::kManhattan, epsilon};
    case Distance::kCosine:
      break;
  }
  return {Comparison::Kind::kCosineDistance};
}

}  // namespace peft
