#pragma once

#include "cuda/quant_kernels.h"

// What cuda/quant_kernels.h does, once more in plain ATen calls, on any device.

namespace peft::cuda::reference {

void dequantize(const FourBitWeight& weight, int64_t first_row, Tensor& out);
void dequantize(const Int8Weight& weight, Tensor& out);
void linear(const FourBitWeight& weight, const Tensor& x, const Tensor& bias, Tensor& y);
void linear(const Int8Weight& weight, const Tensor& x, const Tensor& bias, double outlier_threshold,
            Tensor& y);

}  // namespace peft::cuda::reference
