#include <memory>
#include <utility>

#include "weights/frozen_linear.h"
#include "weights/gemm.h"

// A weight that training changes, in the forms that the products take: made again once it has changed.

namespace peft {
namespace {

class TrainedLinear : public FrozenLinear {
 public:
  TrainedLinear(const Tensor& weight, const uint64_t& version)
      : weight_(weight), version_(version), packed_version_(version) {}

  int64_t in_features() const override { return weight_.size(1); }
  int64_t out_features() const override { return weight_.size(0); }
  Tensor dequantize() const override { return weight_.clone(); }

 protected:
  bool is_stale() const { return std::exchange(packed_version_, version_) != version_; }

  const Tensor weight_;

 private:
  const uint64_t& version_;
  mutable uint64_t packed_version_;
};

/// In fp32, packed into the same memory again.
class TrainedDense final : public TrainedLinear {
 public:
  TrainedDense(const Tensor& weight, const uint64_t& version)
      : TrainedLinear(weight, version), packed_(weight) {}

  /// Elsewhere than on the CPU the weight itself is multiplied.
  int64_t bytes() const override { return weight_.device().is_cpu() ? packed_.bytes() : 0; }
  int64_t gradient_bytes() const override { return packed_.gradient_bytes(); }
  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    current().forward(x, tail, out);
  }
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    current().backward_input(dy, tail, dx);
  }

 private:
  PackedWeight& current() const {
    if (is_stale()) packed_.assign(weight_);
    return packed_;
  }

  mutable PackedWeight packed_;
};

/// Rounded to 16 bits.
class TrainedRounded final : public TrainedLinear {
 public:
  TrainedRounded(const Tensor& weight, const uint64_t& version, at::ScalarType type)
      : TrainedLinear(weight, version), type_(type), rounded_(make_rounded_linear(weight, type)) {}

  int64_t bytes() const override { return rounded_->bytes(); }
  int64_t gradient_bytes() const override { return rounded_->gradient_bytes(); }
  int64_t passing_floats(int64_t rows, bool training) const override {
    return rounded_->passing_floats(rows, training);
  }
  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    current().forward(x, tail, out);
  }
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    current().backward_input(dy, tail, dx);
  }

 private:
  FrozenLinear& current() const {
    if (is_stale()) {
      rounded_.reset();  // the old one goes before the new one comes
      rounded_ = make_rounded_linear(weight_, type_);
    }
    return *rounded_;
  }

  at::ScalarType type_;
  mutable std::unique_ptr<FrozenLinear> rounded_;
};

}  // namespace

std::unique_ptr<FrozenLinear> make_trained_linear(const Tensor& weight, const uint64_t& version,
                                                  WeightFormat products) {
  if (products == WeightFormat::kFloat32) return std::make_unique<TrainedDense>(weight, version);
  const at::ScalarType type = products == WeightFormat::kFloat16 ? at::kHalf : at::kBFloat16;
  return std::make_unique<TrainedRounded>(weight, version, type);
}

}  // namespace peft
