#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

namespace peft {

using at::Tensor;

/// The frozen weight of a linear layer, W [out, in]. A storage format is one implementation; it never has a
/// gradient.
class FrozenLinear {
 public:
  virtual ~FrozenLinear() = default;

  virtual int64_t in_features() const = 0;
  virtual int64_t out_features() const = 0;
  /// Bytes that the weight occupies.
  virtual int64_t bytes() const = 0;
  /// A fresh copy of W as fp32 [out, in].
  virtual Tensor dequantize() const = 0;
  /// Whether a dense copy per adapter is in proportion to the weight itself, so that the adapter may be
  /// folded in.
  virtual bool dense() const = 0;
  /// out [T, out] = x W' + bias (bias may be undefined).
  virtual void forward(const Tensor& x, const Tensor& bias, Tensor& out) const = 0;
  /// dx [T, in] = dy W, added to dx if accumulate.
  virtual void backward_input(const Tensor& dy, bool accumulate, Tensor& dx) = 0;
};

/// W in fp32.
std::unique_ptr<FrozenLinear> make_dense_linear(const Tensor& weight);

}  // namespace peft
