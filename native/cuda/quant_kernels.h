#pragma once

#include <ATen/core/Tensor.h>

#include "cuda/launcher.h"

// Products with quantised frozen weights by our CUDA kernels. x, y and their gradients are float32, float16
// or bfloat16, [tokens, ...]; every tensor is on the launcher's device.

namespace peft::cuda {

using at::Tensor;

/// A 4-bit matrix W [rows, columns] as bitsandbytes stores it.
struct FourBitWeight {
  int64_t rows = 0, columns = 0;
  int64_t block_size = 64;
  Tensor codes;  // uint8 [(rows * columns + 1) / 2], the first weight of a byte in its high half
  Tensor table;  // fp32 [16], the value of each code
  /// One for each block: fp32, or undefined where it is in 8 bits by the four that follow.
  Tensor absmax;
  Tensor absmax_codes;   // uint8 [blocks]
  Tensor absmax_table;   // fp32 [256]
  Tensor nested_absmax;  // fp32, one for nested_block_size blocks
  double absmax_offset = 0;
  int64_t nested_block_size = 256;
  /// Weights kept in half precision in place of their codes; undefined where there are none.
  Tensor outlier_index;  // int32 [outliers], flat, rising
  Tensor outlier_value;  // fp16 [outliers]
  Tensor outlier_rows;   // int32 [rows + 1], as outlier_row_starts gives it
};

/// An int8 matrix W [rows, columns] with one absmax (bitsandbytes' SCB) a row: W = codes * absmax / 127.
struct Int8Weight {
  Tensor codes;   // int8 [rows, columns]
  Tensor absmax;  // fp32 [rows]
};

/// Where the outliers of each row begin in `index`, which is int32 on the CPU. Throws MODEL_CORRUPT where it
/// does not rise or leaves the matrix.
Tensor outlier_row_starts(const Tensor& index, int64_t rows, int64_t columns);

/// Throws MODEL_CORRUPT where shapes, types or devices do not fit together: kernels do not check them. For
/// once, after a weight was put together.
void check_weight(const FourBitWeight& weight);
void check_weight(const Int8Weight& weight);

/// out [n, columns] = rows first_row to first_row + n - 1 of W; contiguous.
void dequantize(Launcher& launcher, const FourBitWeight& weight, int64_t first_row, Tensor& out);
/// out [rows, columns] = W; contiguous.
void dequantize(Launcher& launcher, const Int8Weight& weight, Tensor& out);

/// y [T, rows] = x [T, columns] W' + bias, which is fp32 or undefined. The rows of y may lie apart (some
/// columns of a wider matrix). Up to 16 rows of x W is decoded as it is read, beyond that into a matrix of
/// x's type first.
void linear(Launcher& launcher, const FourBitWeight& weight, const Tensor& x, const Tensor& bias, Tensor& y);
/// The same, with x in int8 by row; its entries from `outlier_threshold` on (0: none) go through half
/// precision. Where W has sides that are not multiples of 8, which at::_int_mm does not take, x stays as it
/// is.
void linear(Launcher& launcher, const Int8Weight& weight, const Tensor& x, const Tensor& bias,
            double outlier_threshold, Tensor& y);

}  // namespace peft::cuda
