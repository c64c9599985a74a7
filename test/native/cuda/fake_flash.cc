#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <stdexcept>

#include "fake_cuda.h"
#include "kernels/kernels.h"

// libtorch's flash attention for FakeCuda: takes and gives what the real one does (shapes, types, strides,
// logsumexp by head), computed by the plain version.

namespace peft::test {
namespace {

using at::Tensor;
using Optional = std::optional<Tensor>;

void require(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(std::string("flash attention: ") + what);
}

Tensor here(const Tensor& t) { return on_device(t, at::kCPU).to(at::kFloat); }

int64_t calls = 0;

struct Problem {
  PackedLayout layout;
  int64_t tokens, heads, size;
  Tensor qkv;

  Problem(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets, int64_t longest,
          double dropout, bool causal, std::optional<double> scale)
      : tokens(q.size(0)), heads(q.size(1)), size(q.size(2)) {
    calls++;
    for (const Tensor* each : {&q, &k, &v}) {
      require(each->is_cuda() && each->scalar_type() == q.scalar_type() && each->sizes() == q.sizes() &&
                  each->dim() == 3 && each->stride(2) == 1,
              "query, key and value");
    }
    require(q.scalar_type() == at::kHalf || q.scalar_type() == at::kBFloat16, "16 bits");
    require(size % 8 == 0 && size <= 256, "head size");
    require(offsets.is_cuda() && offsets.scalar_type() == at::kInt && offsets.is_contiguous(), "offsets");
    require(dropout == 0 && !causal && scale && std::abs(*scale * std::sqrt(double(size)) - 1) < 1e-12,
            "what kind of attention");
    layout.offsets = on_device(offsets, at::kCPU);
    layout.sequences = offsets.numel() - 1;
    layout.tokens = tokens;
    const Tensor lengths = at::diff(layout.offsets);
    require(lengths.max().item<int64_t>() == longest && lengths.sum().item<int64_t>() == tokens, "lengths");
    const auto rows = [&](const Tensor& t) { return here(t).reshape({tokens, heads * size}); };
    qkv = at::cat({rows(q), rows(k), rows(v)}, 1);
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& q, const Tensor& k, const Tensor& v, const Optional& offsets, const Optional&,
    c10::SymInt longest, c10::SymInt, double dropout, bool causal, bool, std::optional<double> scale,
    std::optional<c10::SymInt>, std::optional<c10::SymInt>, const Optional&, const Optional&, const Optional&,
    std::optional<int64_t>) {
  const Problem p(q, k, v, offsets.value(), longest.expect_int(), dropout, causal, scale);
  Tensor context = at::empty({p.tokens, p.heads * p.size}), lse = at::empty({p.tokens, p.heads});
  reference::attention(p.qkv, p.layout, p.heads, {}, context, lse);
  const auto there = [&](const Tensor& t) { return on_device(t, q.device()); };
  const Tensor state = at::empty({2}, at::kLong);
  return {there(context.to(q.scalar_type()).view(q.sizes())), there(lse.t().contiguous()), there(state),
          there(at::empty({}, at::kLong)), there(at::empty({0}))};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& g, const Tensor& q, const Tensor& k,
                                            const Tensor& v, const Tensor& out, const Tensor& lse,
                                            const Tensor& offsets, const Tensor&, c10::SymInt longest,
                                            c10::SymInt, double dropout, bool causal, const Tensor&,
                                            const Tensor&, std::optional<double> scale,
                                            std::optional<c10::SymInt>, std::optional<c10::SymInt>) {
  const Problem p(q, k, v, offsets, longest.expect_int(), dropout, causal, scale);
  require(g.scalar_type() == q.scalar_type() && g.sizes() == q.sizes(), "gradient");
  require(out.scalar_type() == q.scalar_type() && out.sizes() == q.sizes(), "result of forward");
  require(lse.scalar_type() == at::kFloat && lse.sizes() == at::IntArrayRef{p.heads, p.tokens}, "logsumexp");
  require(at::globalContext().deterministicAlgorithms(), "sums in one order");
  Tensor dqkv = at::empty_like(p.qkv);
  reference::attention_backward(here(g).reshape({p.tokens, -1}), p.qkv, here(lse).t().contiguous(), p.layout,
                                p.heads, {}, dqkv);
  const Tensor parts = dqkv.to(q.scalar_type()).view({p.tokens, 3, p.heads, p.size});
  const auto part = [&](int64_t i) { return on_device(parts.select(1, i).contiguous(), q.device()); };
  return {part(0), part(1), part(2)};
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("_flash_attention_forward", &forward);
  m.impl("_flash_attention_backward", &backward);
}

}  // namespace

int64_t flash_calls() { return calls; }

}  // namespace peft::test
