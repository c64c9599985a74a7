#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "cuda/quant_linear.h"
#include "weights/code_book.h"
#include "weights/stored_linear.h"

namespace peft {
namespace {

struct Outlier {
  int64_t panel;
  uint32_t place;
  at::Half value;
};

class FourBitLinear final : public StoredLinear {
 public:
  FourBitLinear(const std::vector<BlockwiseWeight>& parts, const CpuKernels& kernels)
      : StoredLinear(static_cast<int64_t>(parts.size()) * parts.front().out, parts.front().in, kernels),
        parts_(static_cast<int64_t>(parts.size())),
        part_rows_(parts.front().out),
        block_shift_(std::countr_zero(static_cast<uint64_t>(parts.front().block_size))),
        book_(four_bit_code_book(parts.front().format)) {
    const auto bytes = at::TensorOptions().dtype(at::kByte);
    const int64_t rows = kernels_.stored_rows(out_features());
    codes_ = at::zeros({rows * in_ / 2}, bytes);
    std::vector<Tensor> absmax, absmax_codes, nested;
    for (int64_t p = 0; p < parts_; p++) {
      const BlockwiseWeight& part = parts[p];
      TORCH_CHECK(part.out == part_rows_ && part.in == in_ && part.format == parts[0].format &&
                      part.block_size == parts[0].block_size &&
                      part.double_quant() == parts[0].double_quant(),
                  "the parts of a matrix are held in different ways");
      kernels_.store_four_bit(part.codes.const_data_ptr<uint8_t>(), part.out, in_, p * part_rows_,
                              codes_.mutable_data_ptr<uint8_t>());
      if (part.double_quant()) {
        absmax_codes.push_back(part.absmax_codes);
        nested.push_back(part.nested_absmax);
        nested_offset_.push_back(part.nested_offset);
      } else {
        absmax.push_back(part.absmax);
      }
    }
    part_blocks_ = parts.front().blocks();
    if (!absmax.empty()) {
      absmax_ = at::cat(absmax);
    } else {
      absmax_codes_ = at::cat(absmax_codes);
      nested_absmax_ = at::cat(nested);
      part_nested_ = nested.front().numel();
    }
    place_outliers(parts, rows);
  }

  int64_t bytes() const override {
    int64_t total = static_cast<int64_t>(nested_offset_.size() * sizeof(float));
    for (const Tensor* t : {&codes_, &absmax_, &absmax_codes_, &nested_absmax_, &outlier_begin_,
                            &outlier_place_, &outlier_value_}) {
      if (t->defined()) total += static_cast<int64_t>(t->nbytes());
    }
    return total;
  }

 private:
  /// Outliers by panel, as StoredWeight asks for them.
  void place_outliers(const std::vector<BlockwiseWeight>& parts, int64_t rows) {
    const int64_t panel = kernels_.stored_rows(1);
    std::vector<Outlier> all;
    for (int64_t p = 0; p < parts_; p++) {
      if (!parts[p].outlier_index.defined()) continue;
      const int32_t* index = parts[p].outlier_index.const_data_ptr<int32_t>();
      const at::Half* value = parts[p].outlier_value.const_data_ptr<at::Half>();
      for (int64_t i = 0; i < parts[p].outlier_index.numel(); i++) {
        const int64_t row = p * part_rows_ + index[i] / in_, column = index[i] % in_;
        all.push_back({row / panel, static_cast<uint32_t>(column * panel + row % panel), value[i]});
      }
    }
    if (all.empty()) return;
    std::sort(all.begin(), all.end(), [](const Outlier& a, const Outlier& b) {
      return a.panel != b.panel ? a.panel < b.panel : a.place < b.place;
    });
    const auto count = static_cast<int64_t>(all.size());
    outlier_begin_ = at::zeros({rows / panel + 1}, at::TensorOptions().dtype(at::kInt));
    outlier_place_ = at::empty({count}, at::TensorOptions().dtype(at::kInt));
    outlier_value_ = at::empty({count}, at::TensorOptions().dtype(at::kHalf));
    auto* begin = outlier_begin_.mutable_data_ptr<int32_t>();
    auto* place = outlier_place_.mutable_data_ptr<int32_t>();
    auto* value = outlier_value_.mutable_data_ptr<at::Half>();
    for (int64_t i = 0; i < count; i++) {
      begin[all[i].panel + 1]++;
      place[i] = static_cast<int32_t>(all[i].place);
      value[i] = all[i].value;
    }
    for (int64_t p = 0; p < rows / panel; p++) begin[p + 1] += begin[p];
  }

  StoredWeight view() const override {
    StoredWeight w{};
    w.format = StoredFormat::kFourBit;
    w.n = out_features();
    w.k = in_;
    w.codes = codes_.const_data_ptr();
    w.book = book_.value.data();
    w.part_rows = part_rows_;
    w.part_blocks = part_blocks_;
    w.block_shift = block_shift_;
    if (absmax_.defined()) {
      w.absmax = absmax_.const_data_ptr<float>();
    } else {
      w.absmax_codes = absmax_codes_.const_data_ptr<uint8_t>();
      w.absmax_book = dynamic_code_book().value.data();
      w.nested_absmax = nested_absmax_.const_data_ptr<float>();
      w.nested_offset = nested_offset_.data();
      w.part_nested = part_nested_;
    }
    if (outlier_begin_.defined()) {
      w.outlier_begin = outlier_begin_.const_data_ptr<int32_t>();
      w.outlier_place = reinterpret_cast<const uint32_t*>(outlier_place_.const_data_ptr<int32_t>());
      w.outlier_value = reinterpret_cast<const uint16_t*>(outlier_value_.const_data_ptr<at::Half>());
    }
    return w;
  }

  int64_t parts_, part_rows_;
  int block_shift_;
  const CodeBook<16>& book_;
  int64_t part_blocks_ = 0, part_nested_ = 0;
  Tensor codes_;  // in panels, see StoredWeight
  Tensor absmax_, absmax_codes_, nested_absmax_;
  std::vector<float> nested_offset_;
  Tensor outlier_begin_, outlier_place_, outlier_value_;
};

}  // namespace

std::unique_ptr<FrozenLinear> make_four_bit_linear(const std::vector<BlockwiseWeight>& parts,
                                                   at::Device device, const CpuKernels& kernels) {
  if (!device.is_cpu()) {
    if (auto w = cuda::make_four_bit_linear(parts, device)) return w;
    return reference::make_four_bit_linear(parts, device);
  }
  return std::make_unique<FourBitLinear>(parts, kernels);
}

}  // namespace peft
