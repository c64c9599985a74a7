#include "weights/low_rank.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace peft {

void ThinWeight::assign(const Tensor& b, double scale) {
  k_ = b.size(0);
  n_ = b.size(1);
  if (!b.device().is_cpu()) {
    packed_ = scale == 1 ? b : b.mul(scale);
    return;
  }
  const int64_t floats = kernels_->thin_floats(k_, n_);
  if (!packed_.defined() || packed_.numel() != floats) packed_ = at::empty({floats}, b.options());
  kernels_->pack_thin(b.const_data_ptr<float>(), b.stride(0), b.stride(1), k_, n_, static_cast<float>(scale),
                      packed_.mutable_data_ptr<float>());
}

void ThinWeight::product(const Tensor& x, Tensor& out) const {
  product_by_rows(x, {{0, x.size(0), this}}, out);
}

void product_by_rows(const Tensor& x, const std::vector<ThinRows>& parts, Tensor& out) {
  if (!x.device().is_cpu()) {
    for (const ThinRows& p : parts) {
      if (p.weight == nullptr) continue;
      Tensor rows = out.narrow(0, p.begin, p.end - p.begin).narrow(1, 0, p.weight->n_);
      at::mm_out(rows, x.narrow(0, p.begin, p.end - p.begin), p.weight->packed_);
    }
    return;
  }
  const CpuKernels* kernels = nullptr;
  std::vector<ThinPart> raw;
  for (const auto& [begin, end, w] : parts) {
    if (w != nullptr) kernels = w->kernels_;
    raw.push_back(
        {begin, end, w == nullptr ? nullptr : w->packed_.const_data_ptr<float>(), w == nullptr ? 0 : w->n_});
  }
  if (kernels == nullptr) return;
  kernels->product_thin(x.const_data_ptr<float>(), x.stride(0), raw.data(), static_cast<int64_t>(raw.size()),
                        x.size(1), out.mutable_data_ptr<float>(), out.stride(0));
}

void WideFactor::assign(int64_t n, const std::vector<Block>& blocks) {
  n_ = n;
  rank_ = 0;
  for (const Block& b : blocks) rank_ += b.rows.size(0);
  if (blocks.front().rows.device().is_cpu()) return pack(blocks);
  const at::TensorOptions options = blocks.front().rows.options();
  if (!matrix_.defined() || matrix_.size(0) != rank_ || matrix_.size(1) != n) {
    matrix_ = at::zeros({rank_, n}, options);
  }
  int64_t row = 0;
  for (const Block& b : blocks) {
    Tensor to = matrix_.narrow(0, row, b.rows.size(0)).narrow(1, b.column, b.rows.size(1));
    at::mul_out(to, b.rows, at::scalar_tensor(b.scale, at::kDouble));
    row += b.rows.size(0);
  }
}

void WideFactor::pack(const std::vector<Block>& blocks) {
  const int64_t panel = kernels_->stored_rows(1), panels = kernels_->stored_rows(n_) / panel;
  rows_.clear();
  int64_t floats = 0;
  for (int64_t p = 0; p < panels; p++) {
    int64_t first = rank_, last = 0, row = 0;
    for (const Block& b : blocks) {
      const int64_t next = row + b.rows.size(0);
      if (b.column < (p + 1) * panel && b.column + b.rows.size(1) > p * panel) {
        first = std::min(first, row);
        last = next;
      }
      row = next;
    }
    first = std::min(first, last);
    rows_.push_back({static_cast<int32_t>(first), static_cast<int32_t>(last), floats});
    floats += (last - first) * panel;
  }
  if (!packed_.defined() || packed_.numel() != floats) {
    packed_ = at::empty({floats}, blocks.front().rows.options());
  }
  float* const packed = packed_.mutable_data_ptr<float>();
  at::parallel_for(0, panels, std::max<int64_t>(1, 65536 * panels / std::max<int64_t>(1, floats)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t p = begin; p < end; p++) {
                       int64_t row = 0;
                       for (const Block& b : blocks) {
                         const float* from = b.rows.const_data_ptr<float>();
                         const auto scale = static_cast<float>(b.scale);
                         for (int64_t r = 0; r < b.rows.size(0); r++, row++) {
                           if (row < rows_[p].begin || row >= rows_[p].end) continue;
                           float* to = packed + rows_[p].at + (row - rows_[p].begin) * panel;
                           for (int64_t j = 0; j < panel; j++) {
                             const int64_t column = p * panel + j - b.column;
                             to[j] = column < 0 || column >= b.rows.size(1)
                                         ? 0.0f
                                         : scale * from[r * b.rows.stride(0) + column * b.rows.stride(1)];
                           }
                         }
                       }
                     }
                   });
}

Tensor WideFactor::matrix() const {
  if (matrix_.defined()) return matrix_;
  const int64_t panel = kernels_->stored_rows(1);
  Tensor whole = at::zeros({rank_, static_cast<int64_t>(rows_.size()) * panel}, packed_.options());
  for (size_t p = 0; p < rows_.size(); p++) {
    const int64_t rank = rows_[p].end - rows_[p].begin;
    whole.narrow(0, rows_[p].begin, rank)
        .narrow(1, static_cast<int64_t>(p) * panel, panel)
        .copy_(packed_.narrow(0, rows_[p].at, rank * panel).view({rank, panel}));
  }
  return whole.narrow(1, 0, n_);
}

int64_t WideFactor::bytes() const {
  int64_t total = static_cast<int64_t>(rows_.size() * sizeof(PanelRows));
  for (const Tensor* t : {&matrix_, &packed_}) {
    if (t->defined()) total += static_cast<int64_t>(t->nbytes());
  }
  return total;
}

WideByRows::WideByRows(std::vector<WideRows> parts) : parts_(std::move(parts)) {
  for (const auto& [begin, end, u] : parts_) {
    part_of_.resize(static_cast<size_t>(end), static_cast<int32_t>(panels_.size()));
    panels_.push_back(u == nullptr ? WidePanels{} : u->panels());
  }
}

void WideByRows::fill(Tail& tail) const {
  tail.parts = panels_.data();
  tail.part_of = part_of_.data();
}

Tail kernel_tail(const ProductTail& tail) {
  Tail out;
  if (tail.bias.defined()) out.bias = tail.bias.const_data_ptr<float>();
  out.accumulate = tail.accumulate;
  if (tail.t.defined()) {
    out.t = tail.t.const_data_ptr<float>();
    out.ldt = tail.t.stride(0);
  }
  if (tail.u != nullptr) out.u = tail.u->panels();
  if (tail.by_rows != nullptr) tail.by_rows->fill(out);
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
  if (tail.by_rows == nullptr) return;
  for (const auto& [begin, end, u] : tail.by_rows->parts()) {
    if (u == nullptr) continue;
    Tensor rows = out.narrow(0, begin, end - begin);
    at::addmm_out(rows, rows, tail.t.narrow(0, begin, end - begin).narrow(1, 0, u->rank()), u->matrix());
  }
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
