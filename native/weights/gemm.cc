#include "weights/gemm.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include "kernels/cpu/table.h"

namespace peft {
namespace {

/// Rows of a tensor may lie apart, its columns may not.
const float* rows_of(const Tensor& t) {
  TORCH_CHECK(t.dim() == 2 && t.stride(1) == 1, "a product needs contiguous rows");
  return t.const_data_ptr<float>();
}

Tensor packed_buffer(int64_t k, int64_t n) {
  return at::empty({cpu_kernels().packed_floats(k, n)}, at::TensorOptions().dtype(at::kFloat));
}

}  // namespace

int64_t PackedWeight::bytes() const {
  return defined() ? static_cast<int64_t>(forward_.nbytes() + (backward_.defined() ? backward_.nbytes() : 0))
                   : 0;
}

void PackedWeight::assign(const Tensor& weight) {
  const bool reuse = defined() && weight.size(0) == out_ && weight.size(1) == in_;
  out_ = weight.size(0);
  in_ = weight.size(1);
  if (!weight.device().is_cpu()) {
    forward_ = weight.clone();
    return;
  }
  if (!reuse) {
    forward_ = packed_buffer(in_, out_);
    backward_ = Tensor();
  }
  cpu_kernels().pack(weight.const_data_ptr<float>(), 1, in_, in_, out_, forward_.mutable_data_ptr<float>());
  if (backward_.defined()) pack_backward(weight);
}

void PackedWeight::pack_backward(const Tensor& weight) {
  cpu_kernels().pack(weight.const_data_ptr<float>(), in_, 1, out_, in_, backward_.mutable_data_ptr<float>());
}

Tensor PackedWeight::unpack() const {
  if (!on_cpu()) return forward_.clone();
  Tensor weight = at::empty({out_, in_}, forward_.options());
  cpu_kernels().unpack(forward_.const_data_ptr<float>(), 1, in_, in_, out_, weight.mutable_data_ptr<float>());
  return weight;
}

void PackedWeight::forward(const Tensor& x, const Tensor& bias, Tensor& out) const {
  if (on_cpu()) {
    cpu_kernels().product_packed(rows_of(x), x.stride(0), forward_.const_data_ptr<float>(), x.size(0), in_,
                                 out_, bias.defined() ? bias.const_data_ptr<float>() : nullptr, false,
                                 out.mutable_data_ptr<float>(), out.stride(0));
  } else if (bias.defined()) {
    at::addmm_out(out, bias, x, forward_.t());
  } else {
    at::mm_out(out, x, forward_.t());
  }
}

void PackedWeight::backward_input(const Tensor& dy, bool accumulate, Tensor& dx) {
  if (!on_cpu()) {
    at::addmm_out(dx, dx, dy, forward_, accumulate ? 1 : 0);
    return;
  }
  if (!backward_.defined()) {
    backward_ = packed_buffer(out_, in_);
    pack_backward(unpack());
  }
  cpu_kernels().product_packed(rows_of(dy), dy.stride(0), backward_.const_data_ptr<float>(), dy.size(0), out_,
                               in_, nullptr, accumulate, dx.mutable_data_ptr<float>(), dx.stride(0));
}

void multiply(const Tensor& a, const Tensor& b, double scale, bool accumulate, Tensor& out) {
  at::addmm_out(out, out, a, b, accumulate ? 1 : 0, scale);
}

}  // namespace peft
