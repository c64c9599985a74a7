#include <ATen/ops/empty.h>

#include <bit>

#include "cuda/quant_kernels.h"

// What a weight has to be before kernels may read it.

namespace peft::cuda {
namespace {

void require(bool ok, const std::string& what) {
  if (!ok) throw EngineError("MODEL_CORRUPT", "A quantised weight does not fit together: " + what);
}

/// Defined, of this type and count, in one piece, and where the codes are.
void require_tensor(const Tensor& t, const char* name, at::ScalarType type, int64_t count,
                    const Tensor& codes) {
  require(t.defined(), std::string(name) + " is missing");
  require(t.scalar_type() == type,
          std::string(name) + " is " + at::toString(t.scalar_type()) + ", expected " + at::toString(type));
  require(t.numel() == count, std::string(name) + " has " + std::to_string(t.numel()) +
                                  " elements, expected " + std::to_string(count));
  require(t.is_contiguous() && t.device() == codes.device(),
          std::string(name) + " is strided or on another device");
}

int64_t divide_up(int64_t count, int64_t each) { return (count + each - 1) / each; }

}  // namespace

Tensor outlier_row_starts(const Tensor& index, int64_t rows, int64_t columns) {
  const int32_t* const at = static_cast<const int32_t*>(index.const_data_ptr());
  Tensor starts = at::empty({rows + 1}, at::kInt);
  int32_t* const start = static_cast<int32_t*>(starts.mutable_data_ptr());
  const auto count = static_cast<int32_t>(index.numel());
  int64_t row = 0, before = -1;
  for (int32_t i = 0; i < count; i++) {
    require(at[i] > before && at[i] < rows * columns,
            "outlier " + std::to_string(i) + " is weight " + std::to_string(at[i]) + " of " +
                std::to_string(rows * columns) + ", after weight " + std::to_string(before));
    before = at[i];
    for (; row <= at[i] / columns; row++) start[row] = i;
  }
  for (; row <= rows; row++) start[row] = count;
  return starts;
}

void check_weight(const FourBitWeight& w) {
  require(w.rows > 0 && w.columns > 0 && w.rows <= INT32_MAX && w.columns <= INT32_MAX - 256,
          "shape " + std::to_string(w.rows) + "x" + std::to_string(w.columns));
  const auto power = [](int64_t n) { return n > 0 && std::has_single_bit(static_cast<uint64_t>(n)); };
  require(power(w.block_size) && w.block_size >= 32 && w.block_size <= 4096,
          "blocks of " + std::to_string(w.block_size));
  const int64_t count = w.rows * w.columns, blocks = divide_up(count, w.block_size);
  require_tensor(w.codes, "the codes", at::kByte, divide_up(count, 2), w.codes);
  require(reinterpret_cast<uintptr_t>(w.codes.const_data_ptr()) % 4 == 0, "the codes are not 4-byte aligned");
  require_tensor(w.table, "the quantisation map", at::kFloat, 16, w.codes);
  if (w.absmax.defined()) {
    require_tensor(w.absmax, "absmax", at::kFloat, blocks, w.codes);
  } else {
    require(power(w.nested_block_size), "nested blocks of " + std::to_string(w.nested_block_size));
    require_tensor(w.absmax_codes, "absmax", at::kByte, blocks, w.codes);
    require_tensor(w.absmax_table, "the map of absmax", at::kFloat, 256, w.codes);
    require_tensor(w.nested_absmax, "nested absmax", at::kFloat, divide_up(blocks, w.nested_block_size),
                   w.codes);
  }
  if (!w.outlier_index.defined()) return;
  const int64_t outliers = w.outlier_index.numel();
  require(count <= INT32_MAX, "more weights than an outlier's index can count");
  require_tensor(w.outlier_index, "the outliers' index", at::kInt, outliers, w.codes);
  require_tensor(w.outlier_value, "the outliers' values", at::kHalf, outliers, w.codes);
  require_tensor(w.outlier_rows, "the outliers' rows", at::kInt, w.rows + 1, w.codes);
}

void check_weight(const Int8Weight& w) {
  require(w.codes.defined() && w.codes.dim() == 2 && w.codes.numel() > 0, "the codes are no matrix");
  require(w.codes.size(0) <= INT32_MAX && w.codes.size(1) <= INT32_MAX - 256, "a matrix too large");
  require_tensor(w.codes, "the codes", at::kChar, w.codes.numel(), w.codes);
  require_tensor(w.absmax, "absmax", at::kFloat, w.codes.size(0), w.codes);
}

}  // namespace peft::cuda
