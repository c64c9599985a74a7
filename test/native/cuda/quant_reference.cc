#include "quant_reference.h"

#include <ATen/ATen.h>

#include <limits>

namespace peft::cuda::reference {
namespace {

/// absmax of `count` blocks from `first` on, fp32.
Tensor block_absmax(const FourBitWeight& w, int64_t first, int64_t count) {
  if (w.absmax.defined()) return w.absmax.flatten().narrow(0, first, count);
  const Tensor code =
      w.absmax_table.index_select(0, w.absmax_codes.flatten().narrow(0, first, count).to(at::kInt));
  const int64_t nested = first / w.nested_block_size;
  const int64_t nested_end = (first + count + w.nested_block_size - 1) / w.nested_block_size;
  const Tensor scale = w.nested_absmax.flatten()
                           .narrow(0, nested, nested_end - nested)
                           .repeat_interleave(w.nested_block_size)
                           .narrow(0, first - nested * w.nested_block_size, count);
  return code * scale + w.absmax_offset;
}

void put_outliers(const FourBitWeight& w, int64_t first, Tensor& out) {
  if (!w.outlier_index.defined() || w.outlier_index.numel() == 0) return;
  const Tensor at = w.outlier_index.to(at::kLong) - first;
  const Tensor chosen = at.ge(0).logical_and(at.lt(out.numel())).nonzero().flatten();
  Tensor flat = out.view({-1});
  flat.index_copy_(0, at.index_select(0, chosen),
                   w.outlier_value.index_select(0, chosen).to(out.scalar_type()));
}

/// What half precision makes of x; x itself where that would be infinite.
Tensor through_half(const Tensor& x) {
  const Tensor rounded = x.to(at::kHalf).to(at::kFloat);
  return at::where(at::isfinite(rounded).logical_or(at::isfinite(x).logical_not()), rounded, x);
}

/// x after its rows went through int8 and its outliers through half precision, fp32.
Tensor rounded_rows(const Tensor& x, double threshold) {
  const Tensor input = x.to(at::kFloat);
  const Tensor apart = threshold > 0 ? input.abs().ge(threshold) : at::zeros_like(input, at::kBool);
  const Tensor small = input.masked_fill(apart, 0);
  const Tensor absmax = small.abs().amax(1, true);
  const Tensor inverse =
      (at::full_like(absmax, 127) / absmax)  // a scalar over a tensor would go by way of 1 / absmax
          .clamp_max(std::numeric_limits<float>::max())
          .masked_fill(absmax.eq(0), 0);
  const Tensor codes = (small * inverse).round().clamp(-127, 127);
  return at::where(apart, through_half(input), codes * (absmax / 127));
}

void finish(const Tensor& product, const Tensor& bias, Tensor& y) {
  y.copy_(bias.defined() ? product + bias : product);
}

}  // namespace

void dequantize(const FourBitWeight& w, int64_t first_row, Tensor& out) {
  const int64_t first = first_row * w.columns, end = first + out.numel();
  if (first == end) return;
  const int64_t first_block = first / w.block_size,
                blocks = (end + w.block_size - 1) / w.block_size - first_block;
  const int64_t begin = first_block * w.block_size;  // even, and so is what a whole block has
  const int64_t stop = std::min(begin + blocks * w.block_size, w.rows * w.columns);
  const Tensor bytes = w.codes.flatten().narrow(0, begin / 2, (stop - begin + 1) / 2);
  const Tensor nibbles =
      at::stack({bytes.bitwise_right_shift(4), bytes.bitwise_and(15)}, 1).flatten().to(at::kInt);
  Tensor values = w.table.index_select(0, nibbles).narrow(0, 0, stop - begin);
  values = values *
           block_absmax(w, first_block, blocks).repeat_interleave(w.block_size).narrow(0, 0, stop - begin);
  out.copy_(values.narrow(0, first - begin, end - first).view(out.sizes()));
  put_outliers(w, first, out);
}

void dequantize(const Int8Weight& w, Tensor& out) {
  out.copy_(w.codes.to(at::kFloat) * (w.absmax / 127.0f).unsqueeze(1));
}

void linear(const FourBitWeight& w, const Tensor& x, const Tensor& bias, Tensor& y) {
  Tensor plain = at::empty({w.rows, w.columns}, x.options());
  reference::dequantize(w, 0, plain);
  finish(at::mm(x, plain.t()), bias, y);
}

void linear(const Int8Weight& w, const Tensor& x, const Tensor& bias, double outlier_threshold, Tensor& y) {
  Tensor plain = at::empty(w.codes.sizes(), x.options().dtype(at::kFloat));
  reference::dequantize(w, plain);
  finish(at::mm(rounded_rows(x, outlier_threshold), plain.t()), bias, y);
}

}  // namespace peft::cuda::reference
