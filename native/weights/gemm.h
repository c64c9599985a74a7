#pragma once

#include <ATen/core/Tensor.h>

#include "weights/low_rank.h"

namespace peft {

/// A dense weight W [out, in] in the layout that its device multiplies fastest: on the CPU packed once for y
/// = x W' and, where a gradient asks for it, once more for dx = dy W; elsewhere as it is.
class PackedWeight {
 public:
  explicit PackedWeight(const Tensor& weight);

  int64_t out_features() const { return out_; }
  int64_t in_features() const { return in_; }
  int64_t bytes() const;
  /// What the first call of backward_input adds to them.
  int64_t gradient_bytes() const;
  /// Takes another W of the same shape, packed into the same memory.
  void assign(const Tensor& weight);
  /// A fresh copy of W, [out, in].
  Tensor unpack() const;

  /// out [T, out] = x [T, in] W' + tail.
  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const;
  /// dx [T, in] = dy [T, out] W + tail.
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx);

 private:
  bool on_cpu() const { return forward_.device().is_cpu(); }
  void pack_forward(const Tensor& weight);
  void pack_backward(const Tensor& weight);

  int64_t out_, in_;
  Tensor forward_;   // packed W' on the CPU, W elsewhere
  Tensor backward_;  // packed W on the CPU, once it was asked for
};

}  // namespace peft
