#include "weights/frozen_linear.h"
#include "weights/gemm.h"

namespace peft {
namespace {

class DenseLinear final : public FrozenLinear {
 public:
  explicit DenseLinear(const Tensor& weight) : weight_(weight) {}

  int64_t in_features() const override { return weight_.in_features(); }
  int64_t out_features() const override { return weight_.out_features(); }
  int64_t bytes() const override { return weight_.bytes(); }
  Tensor dequantize() const override { return weight_.unpack(); }
  /// W lies packed for forward; once more for the gradient.
  int64_t gradient_bytes() const override { return weight_.gradient_bytes(); }

  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    weight_.forward(x, tail, out);
  }
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    weight_.backward_input(dy, tail, dx);
  }

 private:
  PackedWeight weight_;
};

}  // namespace

std::unique_ptr<FrozenLinear> make_dense_linear(const Tensor& weight) {
  return std::make_unique<DenseLinear>(weight);
}

}  // namespace peft
