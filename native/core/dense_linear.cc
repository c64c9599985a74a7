#include "core/frozen_linear.h"
#include "core/gemm.h"

namespace peft {
namespace {

class DenseLinear final : public FrozenLinear {
 public:
  explicit DenseLinear(Tensor weight) : weight_(std::move(weight)) {}

  int64_t in_features() const override { return weight_.size(1); }
  int64_t out_features() const override { return weight_.size(0); }
  int64_t bytes() const override { return static_cast<int64_t>(weight_.nbytes()); }
  Tensor dequantize() const override { return weight_; }
  bool dense() const override { return true; }

  void forward(const Tensor& x, const Tensor& bias, Tensor& out) const override {
    gemm::linear(x, weight_, bias, out);
  }

  void backward_input(const Tensor& dy, bool accumulate, Tensor& dx) const override {
    gemm::linear_backward_input(dy, weight_, accumulate, dx);
  }

 private:
  Tensor weight_;
};

}  // namespace

std::unique_ptr<FrozenLinear> make_dense_linear(Tensor weight) {
  return std::make_unique<DenseLinear>(std::move(weight));
}

}  // namespace peft
