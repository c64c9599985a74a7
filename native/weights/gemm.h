#pragma once

#include <ATen/core/Tensor.h>

// The matrix products of the encoder, over row-major fp32. One place, so that a faster product is one change.

namespace peft {

using at::Tensor;

/// A dense weight W [out, in] in the layout that its device multiplies fastest: on the CPU packed once for y
/// = x W' and, where a gradient asks for it, once more for dx = dy W; elsewhere as it is.
class PackedWeight {
 public:
  PackedWeight() = default;
  explicit PackedWeight(const Tensor& weight) { assign(weight); }

  bool defined() const { return out_ > 0; }
  int64_t out_features() const { return out_; }
  int64_t in_features() const { return in_; }
  int64_t bytes() const;
  /// Takes another weight; memory is kept where the shape is the same.
  void assign(const Tensor& weight);
  /// A fresh copy of W, [out, in].
  Tensor unpack() const;

  /// out [T, out] = x [T, in] W' + bias, which may be undefined.
  void forward(const Tensor& x, const Tensor& bias, Tensor& out) const;
  /// dx [T, in] = dy [T, out] W, added to dx if accumulate.
  void backward_input(const Tensor& dy, bool accumulate, Tensor& dx);

 private:
  bool on_cpu() const { return forward_.device().is_cpu(); }
  void pack_backward(const Tensor& weight);

  int64_t out_ = 0, in_ = 0;
  Tensor forward_;   // packed W' on the CPU, W elsewhere
  Tensor backward_;  // packed W on the CPU, once it was asked for
};

/// out = scale * a b, added to out if accumulate; for the thin products of LoRA.
void multiply(const Tensor& a, const Tensor& b, double scale, bool accumulate, Tensor& out);

}  // namespace peft
