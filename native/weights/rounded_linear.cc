#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <optional>

#include "weights/frozen_linear.h"

// Mixed precision: both operands of a product are rounded to 16 bits, its sums are fp32.

namespace peft {
namespace {

/// Columns of the widest operand that is rounded.
int64_t widest_operand(const FrozenLinear& linear, bool training) {
  return training ? std::max(linear.in_features(), linear.out_features()) : linear.in_features();
}

/// One direction of a product in bfloat16, by the vector kernels.
class PackedBfloat16 {
 public:
  /// W [n, k] with any strides.
  PackedBfloat16(const Tensor& w, const CpuKernels& kernels)
      : kernels_(kernels), n_(w.size(0)), k_(w.size(1)) {
    packed_ =
        at::empty({kernels_.stored_rows(n_), kernels_.bfloat16_row(k_)}, w.options().dtype(at::kBFloat16));
    kernels_.pack_bfloat16(w.const_data_ptr<float>(), w.stride(0), w.stride(1), n_, k_, codes(packed_));
  }

  int64_t bytes() const { return static_cast<int64_t>(packed_.nbytes()); }

  Tensor unpack() const {
    Tensor w = at::empty({n_, k_}, packed_.options().dtype(at::kFloat));
    kernels_.unpack_bfloat16(codes(packed_), n_, k_, w.mutable_data_ptr<float>());
    return w;
  }

  void product(const Tensor& x, const ProductTail& tail, Tensor& out) const {
    const Tensor rounded = at::empty({x.size(0), kernels_.bfloat16_row(k_)}, packed_.options());
    kernels_.round_rows_bfloat16(x.const_data_ptr<float>(), x.stride(0), x.size(0), k_, codes(rounded));
    kernels_.product_bfloat16(codes(rounded), codes(packed_), x.size(0), k_, n_, kernel_tail(tail),
                              out.mutable_data_ptr<float>(), out.stride(0));
  }

 private:
  static uint16_t* codes(const Tensor& t) { return static_cast<uint16_t*>(t.mutable_data_ptr()); }

  const CpuKernels& kernels_;
  int64_t n_, k_;
  Tensor packed_;
};

class Bfloat16Linear final : public FrozenLinear {
 public:
  Bfloat16Linear(const Tensor& weight, const CpuKernels& kernels)
      : kernels_(kernels), out_(weight.size(0)), in_(weight.size(1)), forward_(weight, kernels) {}

  int64_t in_features() const override { return in_; }
  int64_t out_features() const override { return out_; }
  int64_t bytes() const override { return forward_.bytes() + (backward_ ? backward_->bytes() : 0); }
  Tensor dequantize() const override { return forward_.unpack(); }
  int64_t gradient_bytes() const override {
    return backward_ ? 0 : 2 * kernels_.stored_rows(in_) * kernels_.bfloat16_row(out_);
  }
  int64_t passing_floats(int64_t rows, bool training) const override {
    return rows * kernels_.bfloat16_row(widest_operand(*this, training)) / 2;
  }
  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    forward_.product(x, tail, out);
  }
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    if (!backward_) backward_.emplace(dequantize().t(), kernels_);
    backward_->product(dy, tail, dx);
  }

 private:
  const CpuKernels& kernels_;
  int64_t out_, in_;
  PackedBfloat16 forward_;
  std::optional<PackedBfloat16> backward_;  // W', once the gradient asked for it
};

/// Numbers of 16 bits, multiplied in fp32: where the processor does not multiply them itself.
class ExpandedRounded final : public FrozenLinear {
 public:
  ExpandedRounded(const Tensor& weight, at::ScalarType type, const CpuKernels& kernels)
      : type_(type), weight_(make_half_linear(weight.to(type), kernels)) {}

  int64_t in_features() const override { return weight_->in_features(); }
  int64_t out_features() const override { return weight_->out_features(); }
  int64_t bytes() const override { return weight_->bytes(); }
  Tensor dequantize() const override { return weight_->dequantize(); }
  int64_t gradient_bytes() const override { return weight_->gradient_bytes(); }
  /// The operand in 16 bits, and those as fp32.
  int64_t passing_floats(int64_t rows, bool training) const override {
    return rows * widest_operand(*this, training) * 3 / 2;
  }
  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    weight_->forward(rounded(x), tail, out);
  }
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    weight_->backward_input(rounded(dy), tail, dx);
  }

 private:
  Tensor rounded(const Tensor& x) const { return x.to(type_).to(at::kFloat); }

  at::ScalarType type_;
  std::unique_ptr<FrozenLinear> weight_;
};

/// Products in 16 bits of the device's own, as autocast has them: their results are 16 bits too.
class PlainRoundedLinear final : public FrozenLinear {
 public:
  PlainRoundedLinear(const Tensor& weight, at::ScalarType type) : weight_(weight.to(type)) {}

  int64_t in_features() const override { return weight_.size(1); }
  int64_t out_features() const override { return weight_.size(0); }
  int64_t bytes() const override { return static_cast<int64_t>(weight_.nbytes()); }
  Tensor dequantize() const override { return weight_.to(at::kFloat); }
  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    product(x, weight_.t(), tail, out);
  }
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    product(dy, weight_, tail, dx);
  }

 private:
  static void product(const Tensor& x, const Tensor& w, const ProductTail& tail, Tensor& out) {
    const Tensor y = at::mm(x.to(w.scalar_type()), w);
    if (tail.accumulate) {
      out.add_(y);
    } else {
      out.copy_(y);
    }
    if (tail.bias.defined()) out.add_(tail.bias);
    add_low_rank(tail, out);
  }

  Tensor weight_;
};

}  // namespace

std::unique_ptr<FrozenLinear> make_rounded_linear(const Tensor& weight, at::ScalarType type,
                                                  const CpuKernels& kernels) {
  if (!weight.device().is_cpu()) return reference::make_rounded_linear(weight, type);
  if (type == at::kBFloat16 && kernels.has_fast_bfloat16())
    return std::make_unique<Bfloat16Linear>(weight, kernels);
  return std::make_unique<ExpandedRounded>(weight, type, kernels);
}

std::unique_ptr<FrozenLinear> reference::make_rounded_linear(const Tensor& weight, at::ScalarType type) {
  return std::make_unique<PlainRoundedLinear>(weight, type);
}

}  // namespace peft
