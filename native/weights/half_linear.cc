#include <ATen/ops/empty.h>

#include "weights/stored_linear.h"

namespace peft {
namespace {

class HalfLinear final : public StoredLinear {
 public:
  HalfLinear(const Tensor& weight, const CpuKernels& kernels)
      : StoredLinear(weight.size(0), weight.size(1), kernels) {
    const Tensor w = weight.contiguous();
    stored_ = at::empty({kernels_.stored_rows(out_), in_}, w.options());
    kernels_.store_half(static_cast<const uint16_t*>(w.const_data_ptr()), out_, in_,
                        static_cast<uint16_t*>(stored_.mutable_data_ptr()));
  }

  int64_t bytes() const override { return static_cast<int64_t>(stored_.nbytes()); }

 private:
  StoredWeight view() const override {
    StoredWeight w{};
    w.format = stored_.scalar_type() == at::kHalf ? StoredFormat::kFloat16 : StoredFormat::kBfloat16;
    w.n = out_;
    w.k = in_;
    w.codes = stored_.const_data_ptr();
    return w;
  }

  Tensor stored_;  // fp16 or bfloat16 [padded out, in] in panels
};

}  // namespace

std::unique_ptr<FrozenLinear> make_half_linear(const Tensor& weight, const CpuKernels& kernels) {
  if (!weight.device().is_cpu()) return reference::make_half_linear(weight);
  return std::make_unique<HalfLinear>(weight, kernels);
}

}  // namespace peft
