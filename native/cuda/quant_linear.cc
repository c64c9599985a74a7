#include "cuda/quant_linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <optional>

#include "cuda/kernel_args.h"
#include "cuda/quant_kernels.h"
#include "weights/code_book.h"

namespace peft::cuda {
namespace {

int64_t bytes_of(std::initializer_list<const Tensor*> tensors) {
  int64_t total = 0;
  for (const Tensor* t : tensors) {
    if (t->defined()) total += static_cast<int64_t>(t->nbytes());
  }
  return total;
}

class FourBitLinear final : public FrozenLinear {
 public:
  FourBitLinear(const std::vector<BlockwiseWeight>& parts, at::Device device, Launcher& launcher)
      : launcher_(launcher), device_(device), part_rows_(parts.front().out), in_(parts.front().in) {
    const CodeBook<16>& book = four_bit_code_book(parts.front().format);
    table_ = at::tensor(at::ArrayRef<float>(book.value), at::kFloat).to(device);
    if (parts.front().double_quant()) {
      absmax_table_ = at::tensor(at::ArrayRef<float>(dynamic_code_book().value), at::kFloat).to(device);
    }
    for (const BlockwiseWeight& part : parts) parts_.push_back(upload(part));
  }

  int64_t in_features() const override { return in_; }
  int64_t out_features() const override { return part_rows_ * static_cast<int64_t>(parts_.size()); }
  int64_t bytes() const override {
    int64_t total = bytes_of({&table_, &absmax_table_});
    for (const FourBitWeight& w : parts_) {
      total += bytes_of({&w.codes, &w.absmax, &w.absmax_codes, &w.nested_absmax, &w.outlier_index,
                         &w.outlier_value, &w.outlier_rows});
    }
    return total;
  }

  Tensor dequantize() const override { return plain(at::kFloat); }

  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    if (x.size(0) > kLinearBatch || tail.accumulate) {
      return plain_product(x, plain(x.scalar_type()).t(), tail, out);
    }
    const Tensor& bias = tail.bias;
    for (size_t p = 0; p < parts_.size(); p++) {
      const int64_t first = static_cast<int64_t>(p) * part_rows_;
      Tensor y = out.narrow(1, first, part_rows_);
      linear(launcher_, parts_[p], x, bias.defined() ? bias.narrow(0, first, part_rows_) : bias, y);
    }
    add_low_rank(tail, out);
  }

  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    plain_product(dy, plain(dy.scalar_type()), tail, dx);
  }

 private:
  FourBitWeight upload(const BlockwiseWeight& part) const {
    TORCH_CHECK(part.out == part_rows_ && part.in == in_);
    const auto there = [&](const Tensor& t) { return t.defined() ? t.to(device_).contiguous() : t; };
    FourBitWeight w;
    w.rows = part.out;
    w.columns = part.in;
    w.block_size = part.block_size;
    w.codes = there(part.codes);
    w.table = table_;
    w.absmax = there(part.absmax);
    w.absmax_codes = there(part.absmax_codes);
    w.absmax_table = absmax_table_;
    w.nested_absmax = there(part.nested_absmax);
    w.absmax_offset = part.nested_offset;
    w.nested_block_size = kNestedBlock;
    if (part.outlier_index.defined()) {
      w.outlier_rows = outlier_row_starts(part.outlier_index, part.out, part.in).to(device_);
      w.outlier_index = there(part.outlier_index);
      w.outlier_value = there(part.outlier_value);
    }
    check_weight(w);
    return w;
  }

  /// W whole, for as long as one product takes.
  Tensor plain(at::ScalarType type) const {
    Tensor w = at::empty({out_features(), in_}, at::TensorOptions().dtype(type).device(device_));
    for (size_t p = 0; p < parts_.size(); p++) {
      Tensor rows = w.narrow(0, static_cast<int64_t>(p) * part_rows_, part_rows_);
      cuda::dequantize(launcher_, parts_[p], 0, rows);
    }
    return w;
  }

  Launcher& launcher_;
  at::Device device_;
  int64_t part_rows_, in_;
  Tensor table_, absmax_table_;
  std::vector<FourBitWeight> parts_;
};

class Int8Linear final : public FrozenLinear {
 public:
  Int8Linear(const RowInt8Weight& weight, double threshold, at::Device device, Launcher& launcher,
             Int8Gradient gradient)
      : launcher_(launcher), weight_(upload(weight, device)), threshold_(threshold), gradient_(gradient) {}

  int64_t in_features() const override { return weight_.codes.size(1); }
  int64_t out_features() const override { return weight_.codes.size(0); }
  int64_t bytes() const override {
    const int64_t forward = bytes_of({&weight_.codes, &weight_.absmax});
    return columns_ ? forward + bytes_of({&columns_->codes, &columns_->absmax}) : forward;
  }
  int64_t gradient_bytes() const override {
    return gradient_ == Int8Gradient::kExact || columns_ ? 0 : weight_.codes.numel() + 4 * in_features();
  }
  Tensor dequantize() const override { return plain(at::kFloat); }

  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    product(weight_, x, threshold_, tail, out);
  }
  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    if (gradient_ == Int8Gradient::kExact) return plain_product(dy, plain(dy.scalar_type()), tail, dx);
    if (!columns_) columns_ = upload(quantize_rows(dequantize().t().cpu().contiguous()), dy.device());
    product(*columns_, dy, 0, tail, dx);
  }

 private:
  static Int8Weight upload(const RowInt8Weight& weight, at::Device device) {
    const Int8Weight there{weight.codes.to(device).contiguous(), weight.absmax.to(device).contiguous()};
    check_weight(there);
    return there;
  }

  void product(const Int8Weight& w, const Tensor& x, double threshold, const ProductTail& tail,
               Tensor& out) const {
    if (tail.accumulate) {
      Tensor added = at::empty(out.sizes(), out.options());
      linear(launcher_, w, x, tail.bias, threshold, added);
      out.add_(added);
    } else {
      linear(launcher_, w, x, tail.bias, threshold, out);
    }
    add_low_rank(tail, out);
  }

  Tensor plain(at::ScalarType type) const {
    Tensor w = at::empty(weight_.codes.sizes(), weight_.codes.options().dtype(type));
    cuda::dequantize(launcher_, weight_, w);
    return w;
  }

  Launcher& launcher_;
  Int8Weight weight_;
  double threshold_;
  Int8Gradient gradient_;
  std::optional<Int8Weight> columns_;  // W', once the gradient asked for it
};

}  // namespace

std::unique_ptr<FrozenLinear> make_four_bit_linear(const std::vector<BlockwiseWeight>& parts,
                                                   at::Device device, Launcher& launcher) {
  return std::make_unique<FourBitLinear>(parts, device, launcher);
}

std::unique_ptr<FrozenLinear> make_int8_linear(const RowInt8Weight& weight, double threshold,
                                               at::Device device, Launcher& launcher, Int8Gradient gradient) {
  return std::make_unique<Int8Linear>(weight, threshold, device, launcher, gradient);
}

std::unique_ptr<FrozenLinear> make_four_bit_linear(const std::vector<BlockwiseWeight>& parts,
                                                   at::Device device) {
  Launcher* const launcher = launcher_for(device);
  return launcher == nullptr ? nullptr : make_four_bit_linear(parts, device, *launcher);
}

std::unique_ptr<FrozenLinear> make_int8_linear(const RowInt8Weight& weight, double threshold,
                                               at::Device device, Int8Gradient gradient) {
  Launcher* const launcher = launcher_for(device);
  return launcher == nullptr ? nullptr : make_int8_linear(weight, threshold, device, *launcher, gradient);
}

}  // namespace peft::cuda
