#pragma once

#include <ATen/core/Tensor.h>

#include "weights/weight_storage.h"

namespace peft {

/// Chooses the weights that 4-bit quantisation is better without, at most storage.outlier_fraction of w (fp32
/// [out, in], contiguous): again and again the largest weight of the block whose squared error falls most
/// when that weight leaves, since the rest of the block then gets a finer scale. `index` (int32, rising) and
/// `value` (fp16) stay undefined where none is chosen. docs/quantization.md compares the criteria that were
/// measured.
void select_outliers(const at::Tensor& w, const WeightStorage& storage, at::Tensor& index, at::Tensor& value);

}  // namespace peft
