#include "cuda/quant_kernels.h"

#include <ATen/ops/_int_mm.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <bit>

#include "cuda/kernel_args.h"

namespace peft::cuda {
namespace {

constexpr const char* kDequantize = "four_bit_dequantize.cu";
constexpr const char* kLinear = "four_bit_linear.cu";
constexpr const char* kInt8 = "int8.cu";

/// cuBLAS takes no fewer rows for int8, and only multiples of 8 for the rest (at::_int_mm).
constexpr int64_t kInt8Rows = 17, kInt8Multiple = 8;

std::string suffix(const Tensor& t) {
  switch (t.scalar_type()) {
    case at::kFloat:
      return "_f32";
    case at::kHalf:
      return "_f16";
    case at::kBFloat16:
      return "_bf16";
    default:
      throw EngineError("INTERNAL", std::string("No CUDA kernel for ") + at::toString(t.scalar_type()));
  }
}

unsigned blocks(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

template <typename T>
const T* pointer(const Tensor& t) {
  return t.defined() ? static_cast<const T*>(t.const_data_ptr()) : nullptr;
}

FourBitView view(const FourBitWeight& w) {
  const auto shift = [](int64_t power) { return std::countr_zero(static_cast<uint64_t>(power)); };
  return {pointer<unsigned char>(w.codes),
          pointer<float>(w.table),
          pointer<float>(w.absmax),
          pointer<unsigned char>(w.absmax_codes),
          pointer<float>(w.absmax_table),
          pointer<float>(w.nested_absmax),
          static_cast<float>(w.absmax_offset),
          shift(w.block_size),
          shift(w.nested_block_size)};
}

bool has_outliers(const FourBitWeight& w) { return w.outlier_index.defined() && w.outlier_index.numel() > 0; }

Tensor dense(int64_t rows, int64_t columns, const Tensor& like) {
  return at::empty({rows, columns}, like.options());
}

/// y = x w' + bias for a w of x's type.
void dense_linear(const Tensor& w, const Tensor& x, const Tensor& bias, Tensor& y) {
  if (bias.defined()) {
    at::addmm_out(y, bias.to(x.scalar_type()), x, w.t());
  } else {
    at::mm_out(y, x, w.t());
  }
}

}  // namespace

void dequantize(Launcher& launcher, const FourBitWeight& w, int64_t first_row, Tensor& out) {
  const int64_t first = first_row * w.columns, count = out.numel();
  if (count == 0) return;
  const int64_t groups = (first + count + kGroup - 1) / kGroup - first / kGroup;
  launcher.launch(kDequantize, "dequantize" + suffix(out), {blocks(groups, kThreads)},
                  DequantizeArgs{view(w), out.mutable_data_ptr(), first, count});
  if (!has_outliers(w)) return;
  const int64_t outliers = w.outlier_index.numel();
  launcher.launch(kDequantize, "put_outliers" + suffix(out), {blocks(outliers, kThreads)},
                  PutOutliersArgs{pointer<int>(w.outlier_index), pointer<Half>(w.outlier_value),
                                  out.mutable_data_ptr(), outliers, first, count});
}

void dequantize(Launcher& launcher, const Int8Weight& w, Tensor& out) {
  if (out.numel() == 0) return;
  launcher.launch(
      kInt8, "dequantize_int8" + suffix(out), {static_cast<unsigned>(out.size(0))},
      DequantizeInt8Args{pointer<signed char>(w.codes), pointer<float>(w.absmax), out.mutable_data_ptr(),
                         static_cast<int>(out.size(0)), static_cast<int>(out.size(1))});
}

void linear(Launcher& launcher, const FourBitWeight& w, const Tensor& x, const Tensor& bias, Tensor& y) {
  const int64_t batch = x.size(0);
  if (batch == 0) return;
  if (batch > kLinearBatch) {
    Tensor plain = dense(w.rows, w.columns, x);
    dequantize(launcher, w, 0, plain);
    return dense_linear(plain, x, bias, y);
  }
  const bool any = has_outliers(w);
  const Tensor input = x.contiguous();
  const auto variant = std::bit_ceil(static_cast<uint64_t>(batch));
  launcher.launch(
      kLinear, "four_bit_linear_" + std::to_string(variant) + suffix(x), {blocks(w.rows, kLinearRows)},
      FourBitLinearArgs{
          view(w), input.const_data_ptr(), pointer<float>(bias), any ? pointer<int>(w.outlier_rows) : nullptr,
          any ? pointer<int>(w.outlier_index) : nullptr, any ? pointer<Half>(w.outlier_value) : nullptr,
          y.mutable_data_ptr(), static_cast<int>(batch), static_cast<int>(w.rows),
          static_cast<int>(w.columns), y.stride(0)});
}

void linear(Launcher& launcher, const Int8Weight& w, const Tensor& x, const Tensor& bias,
            double outlier_threshold, Tensor& y) {
  const int64_t batch = x.size(0), rows = w.codes.size(0), columns = w.codes.size(1);
  if (batch == 0) return;
  if (rows % kInt8Multiple != 0 || columns % kInt8Multiple != 0) {
    Tensor plain = dense(rows, columns, x);
    dequantize(launcher, w, plain);
    return dense_linear(plain, x, bias, y);
  }
  const Tensor input = x.contiguous();
  Tensor codes = at::empty({std::max(batch, kInt8Rows), columns}, w.codes.options());
  if (batch < kInt8Rows) codes.narrow(0, batch, kInt8Rows - batch).zero_();
  Tensor absmax = at::empty({batch}, w.absmax.options());
  Tensor bits, count;
  const bool split = outlier_threshold > 0;
  if (split) {
    const at::TensorOptions integers = absmax.options().dtype(at::kInt);
    bits = at::empty({batch, (columns + 31) / 32}, integers);
    count = at::empty({batch}, integers);
  }
  launcher.launch(
      kInt8, "quantize_rows" + suffix(x), {static_cast<unsigned>(batch)},
      QuantizeRowsArgs{input.const_data_ptr(), static_cast<signed char*>(codes.mutable_data_ptr()),
                       static_cast<float*>(absmax.mutable_data_ptr()),
                       split ? static_cast<unsigned*>(bits.mutable_data_ptr()) : nullptr,
                       split ? static_cast<int*>(count.mutable_data_ptr()) : nullptr,
                       static_cast<float>(outlier_threshold), static_cast<int>(batch),
                       static_cast<int>(columns)});
  const Tensor product = at::_int_mm(codes, w.codes.t());
  launcher.launch(kInt8, "finish_int8" + suffix(x), {static_cast<unsigned>(batch), blocks(rows, kThreads)},
                  FinishInt8Args{pointer<int>(product), pointer<float>(absmax), pointer<float>(w.absmax),
                                 pointer<float>(bias), input.const_data_ptr(), pointer<signed char>(w.codes),
                                 pointer<unsigned>(bits), pointer<int>(count), y.mutable_data_ptr(),
                                 static_cast<int>(batch), static_cast<int>(rows), static_cast<int>(columns),
                                 y.stride(0)});
}

}  // namespace peft::cuda
