#include "core/gemm.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

namespace peft::gemm {

void linear(const Tensor& x, const Tensor& w, const Tensor& bias, Tensor& out) {
  if (bias.defined()) {
    at::addmm_out(out, bias, x, w.t());
  } else {
    at::mm_out(out, x, w.t());
  }
}

void linear_backward_input(const Tensor& dy, const Tensor& w, bool accumulate, Tensor& dx) {
  if (accumulate) {
    at::addmm_out(dx, dx, dy, w);
  } else {
    at::mm_out(dx, dy, w);
  }
}

void multiply(const Tensor& a, const Tensor& b, double scale, bool accumulate, Tensor& out) {
  at::addmm_out(out, out, a, b, accumulate ? 1 : 0, scale);
}

}  // namespace peft::gemm
