#include "weights/gemm.h"

#include <ATen/ops/empty.h>

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
  return static_cast<int64_t>(forward_.nbytes() + (backward_.defined() ? backward_.nbytes() : 0));
}

PackedWeight::PackedWeight(const Tensor& weight) : out_(weight.size(0)), in_(weight.size(1)) {
  if (!weight.device().is_cpu()) {
    forward_ = weight;
    return;
  }
  forward_ = packed_buffer(in_, out_);
  pack_forward(weight);
}

void PackedWeight::assign(const Tensor& weight) {
  if (!on_cpu()) {
    forward_ = weight;
    return;
  }
  pack_forward(weight);
  if (backward_.defined()) pack_backward(weight);
}

void PackedWeight::pack_forward(const Tensor& weight) {
  cpu_kernels().pack(weight.const_data_ptr<float>(), 1, in_, in_, out_, forward_.mutable_data_ptr<float>());
}

void PackedWeight::pack_backward(const Tensor& weight) {
  cpu_kernels().pack(weight.const_data_ptr<float>(), in_, 1, out_, in_, backward_.mutable_data_ptr<float>());
}

int64_t PackedWeight::gradient_bytes() const {
  return !on_cpu() || backward_.defined() ? 0 : 4 * cpu_kernels().packed_floats(out_, in_);
}

Tensor PackedWeight::unpack() const {
  if (!on_cpu()) return forward_.clone();
  Tensor weight = at::empty({out_, in_}, forward_.options());
  cpu_kernels().unpack(forward_.const_data_ptr<float>(), 1, in_, in_, out_, weight.mutable_data_ptr<float>());
  return weight;
}

void PackedWeight::forward(const Tensor& x, const ProductTail& tail, Tensor& out) const {
  if (!on_cpu()) return plain_product(x, forward_.t(), tail, out);
  cpu_kernels().product_packed(rows_of(x), x.stride(0), forward_.const_data_ptr<float>(), x.size(0), in_,
                               out_, kernel_tail(tail), out.mutable_data_ptr<float>(), out.stride(0));
}

void PackedWeight::backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) {
  if (!on_cpu()) return plain_product(dy, forward_, tail, dx);
  if (!backward_.defined()) {
    backward_ = packed_buffer(out_, in_);
    pack_backward(unpack());
  }
  cpu_kernels().product_packed(rows_of(dy), dy.stride(0), backward_.const_data_ptr<float>(), dy.size(0), out_,
                               in_, kernel_tail(tail), dx.mutable_data_ptr<float>(), dx.stride(0));
}

}  // namespace peft
