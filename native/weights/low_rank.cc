#include "weights/low_rank.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

namespace peft {

void ThinWeight::assign(const Tensor& b, double scale) {
  k_ = b.size(0);
  n_ = b.size(1);
  if (!b.device().is_cpu()) {
    packed_ = b.mul(scale);
    return;
  }
  const int64_t floats = kernels_->thin_floats(k_, n_);
  if (!packed_.defined() || packed_.numel() != floats) packed_ = at::empty({floats}, b.options());
  kernels_->pack_thin(b.const_data_ptr<float>(), b.stride(0), b.stride(1), k_, n_, static_cast<float>(scale),
                      packed_.mutable_data_ptr<float>());
}

void ThinWeight::product(const Tensor& x, Tensor& out) const {
  if (!x.device().is_cpu()) {
    at::mm_out(out, x, packed_);
    return;
  }
  kernels_->product_thin(x.const_data_ptr<float>(), x.stride(0), packed_.const_data_ptr<float>(), x.size(0),
                         k_, n_, out.mutable_data_ptr<float>(), out.stride(0));
}

void WideFactor::assign(int64_t n, const std::vector<Block>& blocks) {
  int64_t rank = 0;
  for (const Block& b : blocks) rank += b.rows.size(0);
  const at::TensorOptions options = blocks.front().rows.options();
  if (!matrix_.defined() || matrix_.size(0) != rank || matrix_.size(1) != n) {
    matrix_ = at::zeros({rank, n}, options);
  }
  int64_t row = 0;
  for (const Block& b : blocks) {
    matrix_.narrow(0, row, b.rows.size(0)).narrow(1, b.column, b.rows.size(1)).copy_(b.rows).mul_(b.scale);
    row += b.rows.size(0);
  }
  if (!matrix_.device().is_cpu()) return;
  const int64_t floats = kernels_->packed_floats(rank, n), panel = kernels_->stored_rows(1);
  if (!packed_.defined() || packed_.numel() != floats) packed_ = at::empty({floats}, options);
  kernels_->pack(matrix_.const_data_ptr<float>(), n, 1, rank, n, packed_.mutable_data_ptr<float>());
  const int64_t panels = kernels_->stored_rows(n) / panel;
  used_ = at::zeros({panels, 2}, options.dtype(at::kInt));
  auto* used = used_.mutable_data_ptr<int32_t>();
  for (int64_t p = 0; p < panels; p++) {
    int64_t first = rank, last = 0;
    row = 0;
    for (const Block& b : blocks) {
      const int64_t next = row + b.rows.size(0);
      if (b.column < (p + 1) * panel && b.column + b.rows.size(1) > p * panel) {
        first = std::min(first, row);
        last = next;
      }
      row = next;
    }
    used[2 * p] = static_cast<int32_t>(std::min(first, last));
    used[2 * p + 1] = static_cast<int32_t>(last);
  }
}

void WideFactor::fill(const Tensor& t, Tail& tail) const {
  tail.t = t.const_data_ptr<float>();
  tail.ldt = t.stride(0);
  tail.rank = matrix_.size(0);
  tail.u = packed_.const_data_ptr<float>();
  tail.used = used_.const_data_ptr<int32_t>();
}

Tail kernel_tail(const ProductTail& tail) {
  Tail out;
  if (tail.bias.defined()) out.bias = tail.bias.const_data_ptr<float>();
  out.accumulate = tail.accumulate;
  if (tail.u != nullptr) tail.u->fill(tail.t, out);
  return out;
}

void plain_product(const Tensor& x, const Tensor& transposed, const ProductTail& tail, Tensor& out) {
  if (tail.bias.defined() && !tail.accumulate) {
    at::addmm_out(out, tail.bias.to(x.scalar_type()), x, transposed);
  } else {
    at::addmm_out(out, out, x, transposed, tail.accumulate ? 1 : 0);
    if (tail.bias.defined()) out.add_(tail.bias);
  }
  add_low_rank(tail, out);
}

void add_low_rank(const ProductTail& tail, Tensor& out) {
  if (tail.u != nullptr) at::addmm_out(out, out, tail.t, tail.u->matrix());
}

void add_outer_sum(const Tensor& a, const Tensor& b, double scale, Tensor out) {
  if (!a.device().is_cpu()) {
    out.addmm_(a.t(), b, 1, scale);
    return;
  }
  cpu_kernels().outer_sum(a.const_data_ptr<float>(), a.stride(0), b.const_data_ptr<float>(), b.stride(0),
                          a.size(0), a.size(1), b.size(1), static_cast<float>(scale),
                          out.mutable_data_ptr<float>(), out.stride(0), out.stride(1));
}

}  // namespace peft
