#pragma once

#include "weights/frozen_linear.h"

namespace peft {

/// A frozen weight that lies in the panels of a StoredWeight, on the CPU: multiplied in fp32, a few expanded
/// panels at a time.
class StoredLinear : public FrozenLinear {
 public:
  StoredLinear(int64_t out, int64_t in, const CpuKernels& kernels) : kernels_(kernels), out_(out), in_(in) {}

  int64_t in_features() const override { return in_; }
  int64_t out_features() const override { return out_; }
  Tensor dequantize() const override;
  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override;
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override;

 protected:
  virtual StoredWeight view() const = 0;

  const CpuKernels& kernels_;
  const int64_t out_, in_;
};

}  // namespace peft
