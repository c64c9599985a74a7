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
  bool dense() const override { return true; }

  void forward(const Tensor& x, const Tensor& bias, Tensor& out) const override {
    weight_.forward(x, bias, out);
  }
  void backward_input(const Tensor& dy, bool accumulate, Tensor& dx) override {
    weight_.backward_input(dy, accumulate, dx);
  }

 private:
  PackedWeight weight_;
};

}  // namespace

std::unique_ptr<FrozenLinear> make_dense_linear(const Tensor& weight) {
  return std::make_unique<DenseLinear>(weight);
}

}  // namespace peft
