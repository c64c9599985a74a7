#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/round.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "weights/code_book.h"
#include "weights/frozen_linear.h"

namespace peft::reference {
namespace {

/// Expands W to fp32 for every product.
class ExpandingLinear : public FrozenLinear {
 public:
  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    plain_product(x, dequantize().t(), tail, out);
  }
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    plain_product(dy, dequantize(), tail, dx);
  }
};

class HalfLinear final : public ExpandingLinear {
 public:
  explicit HalfLinear(const Tensor& weight) : weight_(weight) {}
  int64_t in_features() const override { return weight_.size(1); }
  int64_t out_features() const override { return weight_.size(0); }
  int64_t bytes() const override { return static_cast<int64_t>(weight_.nbytes()); }
  Tensor dequantize() const override { return weight_.to(at::kFloat); }

 private:
  Tensor weight_;
};

class FourBitLinear final : public ExpandingLinear {
 public:
  FourBitLinear(const std::vector<BlockwiseWeight>& parts, at::Device device) {
    for (const BlockwiseWeight& p : parts) {
      BlockwiseWeight part = p;
      // Kept expanded here: the nested scales are the CPU's way to save memory.
      part.absmax = expand_absmax(p).to(device);
      part.codes = p.codes.to(device);
      if (p.outlier_index.defined()) {
        part.outlier_index = p.outlier_index.to(device, at::kLong);
        part.outlier_value = p.outlier_value.to(device);
      }
      part.absmax_codes = part.nested_absmax = Tensor();
      parts_.push_back(part);
    }
    const CodeBook<16>& book = four_bit_code_book(parts.front().format);
    book_ = at::tensor(at::ArrayRef<float>(book.value.data(), 16), at::kFloat).to(device);
  }

  int64_t in_features() const override { return parts_.front().in; }
  int64_t out_features() const override { return parts_.front().out * static_cast<int64_t>(parts_.size()); }
  int64_t bytes() const override {
    int64_t total = 0;
    for (const BlockwiseWeight& p : parts_) total += p.bytes();
    return total;
  }

  Tensor dequantize() const override {
    std::vector<Tensor> rows;
    for (const BlockwiseWeight& p : parts_) {
      const Tensor codes = at::stack({p.codes.bitwise_right_shift(4), p.codes.bitwise_and(15)}, 1)
                               .flatten()
                               .narrow(0, 0, p.elements());
      const Tensor scales = p.absmax.repeat_interleave(p.block_size).narrow(0, 0, p.elements());
      Tensor w = book_.index_select(0, codes.to(at::kInt)) * scales;
      if (p.outlier_index.defined()) {
        w.index_copy_(0, p.outlier_index, p.outlier_value.to(at::kFloat));
      }
      rows.push_back(w.view({p.out, p.in}));
    }
    return at::cat(rows);
  }

 private:
  std::vector<BlockwiseWeight> parts_;
  Tensor book_;
};

class Int8Linear final : public ExpandingLinear {
 public:
  Int8Linear(const RowInt8Weight& weight, double threshold, at::Device device, Int8Gradient gradient)
      : codes_(weight.codes.to(device)),
        scale_((weight.absmax / 127.0f).to(device)),
        threshold_(threshold),
        gradient_(gradient) {}

  int64_t in_features() const override { return codes_.size(1); }
  int64_t out_features() const override { return codes_.size(0); }
  int64_t bytes() const override { return static_cast<int64_t>(codes_.nbytes() + scale_.nbytes()); }
  Tensor dequantize() const override { return codes_.to(at::kFloat) * scale_.unsqueeze(1); }

  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    if (gradient_ == Int8Gradient::kExact) return ExpandingLinear::backward_input(dy, tail, dx);
    const RowInt8Weight columns = quantize_rows(dequantize().t().cpu().contiguous());
    Int8Linear(columns, 0, dy.device(), gradient_).forward(dy, tail, dx);
  }

  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    const Tensor zero = at::zeros_like(x);
    const Tensor beyond = threshold_ > 0 ? x.abs() >= threshold_ : zero.to(at::kBool);
    const Tensor kept = at::where(beyond, zero, x);
    const Tensor absmax = std::get<0>(kept.abs().max(1, true));
    const Tensor q = at::where(absmax > 0, at::round(kept * (127.0f / absmax)), zero);
    // Sums of up to 4,096 products of bytes are exact in fp64; a GPU's int8 product asks for special shapes.
    const Tensor sums = at::mm(q.to(at::kDouble), codes_.to(at::kDouble).t()).to(at::kFloat);
    const Tensor outliers = at::where(beyond, x, zero).to(at::kHalf).to(at::kFloat);
    const Tensor product =
        sums * (absmax / 127.0f) * scale_ + at::mm(outliers, dequantize().to(at::kHalf).to(at::kFloat).t());
    out.copy_(tail.accumulate ? out + product : product);
    if (tail.bias.defined()) out.add_(tail.bias);
    add_low_rank(tail, out);
  }

 private:
  Tensor codes_, scale_;
  double threshold_;
  Int8Gradient gradient_;
};

}  // namespace

std::unique_ptr<FrozenLinear> make_half_linear(const Tensor& weight) {
  return std::make_unique<HalfLinear>(weight);
}

std::unique_ptr<FrozenLinear> make_four_bit_linear(const std::vector<BlockwiseWeight>& parts,
                                                   at::Device device) {
  return std::make_unique<FourBitLinear>(parts, device);
}

std::unique_ptr<FrozenLinear> make_int8_linear(const RowInt8Weight& weight, double threshold,
                                               at::Device device, Int8Gradient gradient) {
  return std::make_unique<Int8Linear>(weight, threshold, device, gradient);
}

}  // namespace peft::reference
