#include <ATen/ops/empty.h>

#include "weights/frozen_linear.h"

namespace peft {
namespace {

class HalfLinear final : public FrozenLinear {
 public:
  HalfLinear(const Tensor& weight, const CpuKernels& kernels)
      : kernels_(kernels), out_(weight.size(0)), in_(weight.size(1)) {
    const Tensor w = weight.contiguous();
    stored_ = at::empty({kernels_.stored_rows(out_), in_}, w.options());
    kernels_.store_half(static_cast<const uint16_t*>(w.const_data_ptr()), out_, in_,
                        static_cast<uint16_t*>(stored_.mutable_data_ptr()));
  }

  int64_t in_features() const override { return in_; }
  int64_t out_features() const override { return out_; }
  int64_t bytes() const override { return static_cast<int64_t>(stored_.nbytes()); }

  Tensor dequantize() const override {
    Tensor w = at::empty({out_, in_}, at::TensorOptions().dtype(at::kFloat));
    kernels_.expand_stored(view(), w.mutable_data_ptr<float>());
    return w;
  }

  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    kernels_.product_stored(x.const_data_ptr<float>(), x.stride(0), view(), x.size(0), kernel_tail(tail),
                            out.mutable_data_ptr<float>(), out.stride(0));
  }

  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    kernels_.product_stored_transposed(dy.const_data_ptr<float>(), dy.stride(0), view(), dy.size(0),
                                       kernel_tail(tail), dx.mutable_data_ptr<float>(), dx.stride(0));
  }

 private:
  StoredWeight view() const {
    StoredWeight w{};
    w.format = stored_.scalar_type() == at::kHalf ? StoredFormat::kFloat16 : StoredFormat::kBfloat16;
    w.n = out_;
    w.k = in_;
    w.codes = stored_.const_data_ptr();
    return w;
  }

  const CpuKernels& kernels_;
  int64_t out_, in_;
  Tensor stored_;  // fp16 or bfloat16 [padded out, in] in panels
};

}  // namespace

std::unique_ptr<FrozenLinear> make_half_linear(const Tensor& weight, const CpuKernels& kernels) {
  if (!weight.device().is_cpu()) return reference::make_half_linear(weight);
  return std::make_unique<HalfLinear>(weight, kernels);
}

}  // namespace peft
