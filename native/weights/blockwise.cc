#include "weights/blockwise.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mean.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "weights/code_book.h"
#include "weights/outliers.h"

namespace peft {
namespace {

constexpr float kLeastAbsmax = 1e-38f;

Tensor bytes_tensor(int64_t n) { return at::empty({n}, at::TensorOptions().dtype(at::kByte)); }
Tensor floats_tensor(int64_t n) { return at::empty({n}, at::TensorOptions().dtype(at::kFloat)); }

/// The code that bitsandbytes' CPU code gives x in [-1, 1]: it looks up 65,536 equal steps, so that a value
/// beside a threshold can take its neighbour's code.
uint8_t stepped_nearest(float x) {
  static const std::array<uint8_t, 65536> table = [] {
    std::array<uint8_t, 65536> t;
    for (int i = 0; i < 65536; i++) {
      t[i] = dynamic_code_book().nearest(static_cast<float>(i) / 65535.0f * 2.0f - 1.0f);
    }
    return t;
  }();
  const float clamped = std::clamp(x, -1.0f, 1.0f);
  return table[static_cast<int>((clamped + 1.0f) * 0.5f * 65535.0f + 0.5f)];
}

/// As torch.mean on one thread, whose sums are bitsandbytes' own: on several, a long tensor is summed in as
/// many parts, and the codes would depend on the machine.
float mean_on_one_thread(const Tensor& values) {
  float mean = 0;
  at::parallel_for(0, 2, 1, [&](int64_t begin, int64_t) {
    if (begin == 0)
      mean = at::mean(values).item<float>();  // within a parallel region ATen stays on its thread
  });
  return mean;
}

void quantize_absmax(BlockwiseWeight& w) {
  const int64_t blocks = w.blocks(), groups = (blocks + kNestedBlock - 1) / kNestedBlock;
  w.nested_offset = mean_on_one_thread(w.absmax);
  w.absmax_codes = bytes_tensor(blocks);
  w.nested_absmax = floats_tensor(groups);
  const float* absmax = w.absmax.const_data_ptr<float>();
  auto* codes = w.absmax_codes.mutable_data_ptr<uint8_t>();
  auto* nested = w.nested_absmax.mutable_data_ptr<float>();
  for (int64_t g = 0; g < groups; g++) {
    const int64_t begin = g * kNestedBlock, end = std::min(begin + kNestedBlock, blocks);
    float largest = 0;
    for (int64_t i = begin; i < end; i++) largest = std::max(largest, std::abs(absmax[i] - w.nested_offset));
    nested[g] = largest;
    for (int64_t i = begin; i < end; i++) {
      codes[i] = largest == 0 ? 0 : stepped_nearest((absmax[i] - w.nested_offset) / largest);
    }
  }
  w.absmax = Tensor();
}

}  // namespace

int64_t BlockwiseWeight::bytes() const {
  int64_t total = 0;
  for (const Tensor* t : {&codes, &absmax, &absmax_codes, &nested_absmax, &outlier_index, &outlier_value}) {
    if (t->defined()) total += static_cast<int64_t>(t->nbytes());
  }
  return total;
}

BlockwiseWeight quantize_blockwise(const Tensor& w, const WeightStorage& storage) {
  BlockwiseWeight q{storage.format, w.size(0), w.size(1), storage.block_size, {}, {}, {}, {}, 0, {}, {}};
  const CodeBook<16>& book = four_bit_code_book(storage.format);
  const int64_t n = q.elements(), block = storage.block_size;
  const Tensor source = w.contiguous();
  const float* x = source.const_data_ptr<float>();
  select_outliers(source, storage, q.outlier_index, q.outlier_value);
  const int64_t outliers = q.outlier_index.defined() ? q.outlier_index.numel() : 0;
  const int32_t* outlier = outliers > 0 ? q.outlier_index.const_data_ptr<int32_t>() : nullptr;

  q.codes = bytes_tensor((n + 1) / 2);
  q.absmax = floats_tensor(q.blocks());
  auto* codes = q.codes.mutable_data_ptr<uint8_t>();
  float* absmax = q.absmax.mutable_data_ptr<float>();
  // Blocks are even, so that no byte belongs to two of them.
  at::parallel_for(0, q.blocks(), 64, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; b++) {
      const int64_t begin = b * block, end = std::min(begin + block, n);
      const int32_t* skip = std::lower_bound(outlier, outlier + outliers, static_cast<int32_t>(begin));
      float largest = 0;
      for (int64_t i = begin; i < end; i++) {
        if (skip < outlier + outliers && *skip == i) {
          skip++;
        } else {
          largest = std::max(largest, std::abs(x[i]));
        }
      }
      const bool whole = end - begin == block;
      if (!whole) largest = std::max(largest, kLeastAbsmax);
      absmax[b] = largest;
      const float scale = 1.0f / std::max(largest, kLeastAbsmax);
      const auto code = [&](int64_t i) -> int {
        // bitsandbytes multiplies in a whole block, divides in the last one, and pads that with a zero.
        const float scaled = i >= n ? 0.0f : whole ? x[i] * scale : x[i] / largest;
        return book.nearest(std::clamp(scaled, -1.0f, 1.0f));
      };
      for (int64_t i = begin; i < end; i += 2) {
        codes[i / 2] = static_cast<uint8_t>(code(i) << 4 | code(i + 1));
      }
    }
  });
  if (storage.double_quant) quantize_absmax(q);
  return q;
}

Tensor expand_absmax(const BlockwiseWeight& w) {
  if (!w.double_quant()) return w.absmax;
  Tensor out = floats_tensor(w.blocks());
  const uint8_t* codes = w.absmax_codes.const_data_ptr<uint8_t>();
  const float* nested = w.nested_absmax.const_data_ptr<float>();
  float* absmax = out.mutable_data_ptr<float>();
  for (int64_t b = 0; b < w.blocks(); b++) {
    const float scaled = dynamic_code_book().value[codes[b]] * nested[b / kNestedBlock];
    absmax[b] = scaled + w.nested_offset;
  }
  return out;
}

Tensor dequantize_blockwise(const BlockwiseWeight& w) {
  const std::array<float, 16>& value = four_bit_code_book(w.format).value;
  const Tensor scales = expand_absmax(w);
  Tensor out = at::empty({w.out, w.in}, at::TensorOptions().dtype(at::kFloat));
  const uint8_t* codes = w.codes.const_data_ptr<uint8_t>();
  const float* absmax = scales.const_data_ptr<float>();
  float* x = out.mutable_data_ptr<float>();
  const int64_t n = w.elements();
  for (int64_t i = 0; i < n; i++) {
    const int code = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
    x[i] = value[code] * absmax[i / w.block_size];
  }
  if (w.outlier_index.defined()) {
    const int32_t* index = w.outlier_index.const_data_ptr<int32_t>();
    const at::Half* kept = w.outlier_value.const_data_ptr<at::Half>();
    for (int64_t i = 0; i < w.outlier_index.numel(); i++) x[index[i]] = static_cast<float>(kept[i]);
  }
  return out;
}

}  // namespace peft
