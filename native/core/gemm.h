#pragma once

#include <ATen/core/Tensor.h>

// The matrix products of the encoder, over row-major fp32. One place, so that a faster product is one change.

namespace peft::gemm {

using at::Tensor;

/// out [T, out] = x [T, in] w' (w [out, in]), plus bias where it is defined.
void linear(const Tensor& x, const Tensor& w, const Tensor& bias, Tensor& out);

/// dx [T, in] = dy [T, out] w, added to dx if accumulate.
void linear_backward_input(const Tensor& dy, const Tensor& w, bool accumulate, Tensor& dx);

/// out = scale * a b, added to out if accumulate.
void multiply(const Tensor& a, const Tensor& b, double scale, bool accumulate, Tensor& out);

}  // namespace peft::gemm
