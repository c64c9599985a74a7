#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <optional>
#include <vector>

#include "cuda/quant_linear.h"
#include "weights/stored_linear.h"

namespace peft {
namespace {

/// Entries of x that are multiplied apart: those of row t are [begin[t], begin[t + 1]).
struct Outliers {
  std::vector<int32_t> begin, slot;
  std::vector<float> value;
  std::vector<int64_t> columns;  // of W, by slot
};

Outliers collect(const Tensor& x, const std::vector<int32_t>& counts, float threshold,
                 const CpuKernels& kernels) {
  Outliers o;
  o.begin.reserve(counts.size() + 1);
  o.begin.push_back(0);
  for (const int32_t count : counts) o.begin.push_back(o.begin.back() + count);
  if (o.begin.back() == 0) return o;
  const int64_t k = x.size(1);
  o.slot.resize(static_cast<size_t>(o.begin.back()));
  o.value.resize(o.slot.size());
  kernels.find_outliers(x.const_data_ptr<float>(), x.stride(0), x.size(0), k, threshold, o.begin.data(),
                        o.slot.data(), o.value.data());
  std::vector<int32_t> slot_of(static_cast<size_t>(k), -1);
  for (size_t i = 0; i < o.slot.size(); i++) {
    int32_t& slot = slot_of[static_cast<size_t>(o.slot[i])];
    if (slot < 0) {
      slot = static_cast<int32_t>(o.columns.size());
      o.columns.push_back(o.slot[i]);
    }
    o.slot[i] = slot;
    o.value[i] = static_cast<float>(static_cast<at::Half>(o.value[i]));
  }
  return o;
}

/// W [n, k] in 8 bits with one scale a row, laid out for whole-number products.
class Int8Weight {
 public:
  Int8Weight(const RowInt8Weight& weight, const CpuKernels& kernels)
      : kernels_(kernels), n_(weight.codes.size(0)), k_(weight.codes.size(1)) {
    const int64_t rows = kernels_.stored_rows(n_);
    codes_ = at::empty({rows * kernels_.int8_row_bytes(k_)}, at::TensorOptions().dtype(at::kByte));
    kernels_.store_int8(weight.codes.contiguous().const_data_ptr<int8_t>(), n_, k_,
                        codes_.mutable_data_ptr<uint8_t>());
    scale_ = at::zeros({rows}, weight.absmax.options());
    scale_.narrow(0, 0, n_).copy_(weight.absmax / 127.0f);
  }

  int64_t bytes() const { return static_cast<int64_t>(codes_.nbytes() + scale_.nbytes()); }

  StoredWeight view() const {
    StoredWeight w{};
    w.format = StoredFormat::kInt8;
    w.n = n_;
    w.k = k_;
    w.codes = codes_.const_data_ptr();
    w.scale = scale_.const_data_ptr<float>();
    return w;
  }

  /// Columns of W as rows, in fp16 precision: [columns, n].
  Tensor half_columns(const std::vector<int64_t>& columns) const {
    const int64_t panel = kernels_.stored_rows(1), row_bytes = kernels_.int8_row_bytes(k_);
    const auto* codes = codes_.const_data_ptr<uint8_t>();
    const auto* scale = scale_.const_data_ptr<float>();
    Tensor out = at::empty({static_cast<int64_t>(columns.size()), n_}, scale_.options());
    float* to = out.mutable_data_ptr<float>();
    for (const int64_t column : columns) {
      for (int64_t row = 0; row < n_; row++) {
        const int64_t lane = row % panel;
        const uint8_t code = codes[(row - lane) * row_bytes + column / 4 * 4 * panel + 4 * lane + column % 4];
        *to++ = static_cast<float>(static_cast<at::Half>(static_cast<float>(code - 128) * scale[row]));
      }
    }
    return out;
  }

  /// out = round(x) W' + tail. Returns how many entries of each row reach the threshold (0: none do); they
  /// are left out.
  std::vector<int32_t> product(const Tensor& x, float threshold, const ProductTail& tail, Tensor& out) const {
    const int64_t rows = x.size(0), ld = kernels_.int8_row_bytes(k_);
    const Tensor q = at::empty({rows, ld}, codes_.options().dtype(at::kChar));
    const Tensor scale = at::empty({rows}, scale_.options());
    std::vector<int32_t> sum(static_cast<size_t>(rows)), beyond(static_cast<size_t>(rows));
    kernels_.quantize_rows_int8(x.const_data_ptr<float>(), x.stride(0), rows, k_, threshold,
                                q.mutable_data_ptr<int8_t>(), scale.mutable_data_ptr<float>(), sum.data(),
                                beyond.data());
    const Int8Rows a{q.const_data_ptr<int8_t>(), ld, rows, scale.const_data_ptr<float>(), sum.data()};
    kernels_.product_int8(a, view(), kernel_tail(tail), out.mutable_data_ptr<float>(), out.stride(0));
    return beyond;
  }

 private:
  const CpuKernels& kernels_;
  int64_t n_, k_;
  Tensor codes_;  // in panels, see StoredWeight
  Tensor scale_;  // fp32 [padded n]: absmax / 127
};

class Int8Linear final : public StoredLinear {
 public:
  Int8Linear(const RowInt8Weight& weight, double threshold, Int8Gradient gradient, const CpuKernels& kernels)
      : StoredLinear(weight.codes.size(0), weight.codes.size(1), kernels),
        weight_(weight, kernels),
        threshold_(static_cast<float>(threshold)),
        gradient_(gradient) {}

  int64_t bytes() const override { return weight_.bytes() + (columns_ ? columns_->bytes() : 0); }
  int64_t gradient_bytes() const override {
    if (gradient_ == Int8Gradient::kExact || columns_) return 0;
    return kernels_.stored_rows(in_features()) * (kernels_.int8_row_bytes(out_features()) + 4);
  }

  void forward(const Tensor& x, const ProductTail& tail, Tensor& out) const override {
    const std::vector<int32_t> counts = weight_.product(x, threshold_, tail, out);
    const Outliers outliers = collect(x, counts, threshold_, kernels_);
    if (outliers.columns.empty()) return;
    const Tensor columns = weight_.half_columns(outliers.columns);
    kernels_.add_outliers(outliers.begin.data(), outliers.slot.data(), outliers.value.data(),
                          columns.const_data_ptr<float>(), x.size(0), out_features(),
                          out.mutable_data_ptr<float>(), out.stride(0));
  }

  void backward_input(const Tensor& dy, const ProductTail& tail, Tensor& dx) override {
    if (gradient_ == Int8Gradient::kExact) return StoredLinear::backward_input(dy, tail, dx);
    if (!columns_) columns_.emplace(quantize_rows(dequantize().t().contiguous()), kernels_);
    columns_->product(dy, 0, tail, dx);
  }

 private:
  StoredWeight view() const override { return weight_.view(); }

  Int8Weight weight_;
  float threshold_;
  Int8Gradient gradient_;
  std::optional<Int8Weight> columns_;  // W', once the gradient asked for it
};

}  // namespace

std::unique_ptr<FrozenLinear> make_int8_linear(const RowInt8Weight& weight, double threshold,
                                               at::Device device, Int8Gradient gradient,
                                               const CpuKernels& kernels) {
  if (!device.is_cpu()) {
    if (auto w = cuda::make_int8_linear(weight, threshold, device, gradient)) return w;
    return reference::make_int8_linear(weight, threshold, device, gradient);
  }
  return std::make_unique<Int8Linear>(weight, threshold, gradient, kernels);
}

}  // namespace peft
