#pragma once

#include "core/buffer.h"
#include "core/model_tensors.h"
#include "kernels/kernels.h"

namespace peft {

/// The gradients of a linear layer's own weight and bias, by the packed product of the CPU, or ATen's
/// elsewhere.
class WeightGradient {
 public:
  /// weight += dy' x and bias += the sum of dy's rows, where they train, for input x [T, in] and output
  /// gradient dy [T, out].
  void add(const Tensor& x, const Tensor& dy, const LinearTensors& gradients);

  int64_t bytes() const { return transposed_.bytes() + packed_.bytes(); }

 private:
  Buffer transposed_, packed_;
};

/// Adds those of a LayerNorm whose output gradient is dout [T, d] and whose input was y [T, d].
void add_norm_gradients(const Tensor& dout, const Tensor& y, const RowMoments& moments,
                        const LayerNormWeights& norm, const NormTensors& gradients);

}  // namespace peft
