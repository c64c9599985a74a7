#include <ATen/TensorOperators.h>
#include <ATen/ops/_int_mm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <cstring>
#include <map>
#include <vector>

#include "cuda/quant_linear.h"
#include "weights/frozen_linear.h"

namespace peft {
namespace {

/// Entries of x that are multiplied apart: those of row t are [begin[t], begin[t + 1]).
struct Outliers {
  std::vector<int32_t> begin, slot;
  std::vector<float> value;
  std::vector<int64_t> columns;  // of W, by slot
};

/// libtorch's int8 product has a fast path for AVX-512 VNNI; elsewhere it is slower than fp32.
bool fast_int8_product(const CpuKernels& kernels) { return std::strcmp(kernels.name, "avx512") == 0; }

class Int8Linear final : public FrozenLinear {
 public:
  Int8Linear(const RowInt8Weight& weight, double threshold, const CpuKernels& kernels)
      : kernels_(kernels),
        codes_(weight.codes.contiguous()),
        scale_((weight.absmax / 127.0f).contiguous()),
        threshold_(static_cast<float>(threshold)) {}

  int64_t in_features() const override { return codes_.size(1); }
  int64_t out_features() const override { return codes_.size(0); }
  int64_t bytes() const override { return static_cast<int64_t>(codes_.nbytes() + scale_.nbytes()); }
  Tensor dequantize() const override { return codes_.to(at::kFloat) * scale_.unsqueeze(1); }

  void forward(const Tensor& x, const Tensor& bias, Tensor& out) const override {
    const int64_t rows = x.size(0), k = in_features(), n = out_features();
    Tensor q = at::empty({rows, k}, codes_.options());
    Tensor row_scale = at::empty({rows}, scale_.options());
    std::vector<int32_t> counts(static_cast<size_t>(rows));
    kernels_.quantize_rows_int8(x.const_data_ptr<float>(), x.stride(0), rows, k, threshold_,
                                q.mutable_data_ptr<int8_t>(), row_scale.mutable_data_ptr<float>(),
                                counts.data());
    const Tensor sums = integer_product(q);
    kernels_.dequantize_sums(sums.const_data_ptr<int32_t>(), rows, n, row_scale.const_data_ptr<float>(),
                             scale_.const_data_ptr<float>(),
                             bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                             out.mutable_data_ptr<float>(), out.stride(0));
    const Outliers outliers = collect(x, counts);
    if (outliers.columns.empty()) return;
    const Tensor columns = outlier_columns(outliers.columns);
    kernels_.add_outliers(outliers.begin.data(), outliers.slot.data(), outliers.value.data(),
                          columns.const_data_ptr<float>(), rows, n, out.mutable_data_ptr<float>(),
                          out.stride(0));
  }

  void backward_input(const Tensor& dy, bool accumulate, Tensor& dx) override {
    const RowInt8 w{codes_.const_data_ptr<int8_t>(), scale_.const_data_ptr<float>(), out_features(),
                    in_features()};
    kernels_.product_int8_transposed(dy.const_data_ptr<float>(), dy.stride(0), w, dy.size(0), accumulate,
                                     dx.mutable_data_ptr<float>(), dx.stride(0));
  }

 private:
  /// int32 [T, out] = q W'.
  Tensor integer_product(const Tensor& q) const {
    if (fast_int8_product(kernels_)) return at::_int_mm(q, codes_.t());
    // Whole numbers in fp64 are exact.
    return at::mm(q.to(at::kDouble), codes_.to(at::kDouble).t()).to(at::kInt);
  }

  Outliers collect(const Tensor& x, const std::vector<int32_t>& counts) const {
    Outliers o;
    o.begin.reserve(counts.size() + 1);
    o.begin.push_back(0);
    std::map<int64_t, int32_t> slots;
    const float* data = x.const_data_ptr<float>();
    for (size_t t = 0; t < counts.size(); t++) {
      const float* row = data + static_cast<int64_t>(t) * x.stride(0);
      for (int64_t j = 0, left = counts[t]; left > 0 && j < in_features(); j++) {
        if (!(std::abs(row[j]) >= threshold_)) continue;
        left--;
        const auto [at, fresh] = slots.emplace(j, static_cast<int32_t>(o.columns.size()));
        if (fresh) o.columns.push_back(j);
        o.slot.push_back(at->second);
        o.value.push_back(static_cast<float>(static_cast<at::Half>(row[j])));
      }
      o.begin.push_back(static_cast<int32_t>(o.slot.size()));
    }
    return o;
  }

  /// The columns of W as rows, in fp16 precision: [columns, out].
  Tensor outlier_columns(const std::vector<int64_t>& columns) const {
    const int64_t n = out_features(), k = in_features();
    Tensor out = at::empty({static_cast<int64_t>(columns.size()), n}, scale_.options());
    float* to = out.mutable_data_ptr<float>();
    const int8_t* codes = codes_.const_data_ptr<int8_t>();
    const float* scale = scale_.const_data_ptr<float>();
    for (const int64_t column : columns) {
      for (int64_t i = 0; i < n; i++) {
        *to++ = static_cast<float>(static_cast<at::Half>(codes[i * k + column] * scale[i]));
      }
    }
    return out;
  }

  const CpuKernels& kernels_;
  Tensor codes_;  // int8 [out, in]
  Tensor scale_;  // fp32 [out], absmax / 127
  float threshold_;
};

}  // namespace

std::unique_ptr<FrozenLinear> make_int8_linear(const RowInt8Weight& weight, double threshold,
                                               at::Device device, const CpuKernels& kernels) {
  if (!device.is_cpu()) {
    if (auto w = cuda::make_int8_linear(weight, threshold, device)) return w;
    return reference::make_int8_linear(weight, threshold, device);
  }
  return std::make_unique<Int8Linear>(weight, threshold, kernels);
}

}  // namespace peft
