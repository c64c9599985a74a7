#include "weights/stored_linear.h"

#include <ATen/ops/empty.h>

namespace peft {

Tensor StoredLinear::dequantize() const {
  Tensor w = at::empty({out_, in_}, at::TensorOptions().dtype(at::kFloat));
  kernels_.expand_stored(view(), w.mutable_data_ptr<float>());
  return w;
}

void StoredLinear::forward(const Tensor& x, const ProductTail& tail, Tensor& out) const {
  kernels_.product_stored(x.const_data_ptr<float>(), x.stride(0), view(), x.size(0), kernel_tail(tail),
                          out.mutable_data_ptr<float>(), out.stride(0));
}

void StoredLinear::backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) {
  kernels_.product_stored_transposed(dy.const_data_ptr<float>(), dy.stride(0), view(), dy.size(0),
                                     kernel_tail(tail), dx.mutable_data_ptr<float>(), dx.stride(0));
}

}  // namespace peft
