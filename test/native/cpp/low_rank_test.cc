#include "weights/low_rank.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "check.h"
#include "kernel_sets.h"
#include "weights/frozen_linear.h"

// LoRA's thin products, and the term that rides along with the product of a frozen weight.

namespace peft::test {
namespace {

std::string sizes(int64_t a, int64_t b, int64_t c) {
  return " " + std::to_string(a) + " x " + std::to_string(b) + " x " + std::to_string(c);
}

at::Tensor fp64(const at::Tensor& t) { return t.to(at::kDouble); }

/// Three blocks of ranks 3, 1 and 8 over a weight of 3 * size rows, of which the middle third has none.
std::vector<WideFactor::Block> some_blocks(int64_t size) {
  return {
      {at::randn({3, size}), 0, 2.0}, {at::randn({1, size}), 2 * size, 0.5}, {at::randn({8, size}), 0, -1.0}};
}

at::Tensor matrix_of(const std::vector<WideFactor::Block>& blocks, int64_t n) {
  std::vector<at::Tensor> rows;
  for (const WideFactor::Block& b : blocks) {
    at::Tensor m = at::zeros({b.rows.size(0), n});
    m.narrow(1, b.column, b.rows.size(1)).copy_(b.rows * b.scale);
    rows.push_back(m);
  }
  return at::cat(rows);
}

/// fast with a tail against plain, which adds the same term by ATen.
void check_tail(FrozenLinear& fast, FrozenLinear& plain, const CpuKernels& kernels, double tolerance,
                const std::string& what) {
  const int64_t in = plain.in_features(), out = plain.out_features();
  for (const int64_t rows : {1, 23, 130}) {
    const auto blocks = some_blocks(out / 3);
    WideFactor up(kernels), back(kernels);
    up.assign(out, blocks);
    back.assign(in, {{at::randn({12, in}), 0, 1.5}});
    check_close(up.matrix(), matrix_of(blocks, out), 0, 1e-6, what + ": blocks");
    // Rows of t lie apart, as slices of a wider one do.
    const at::Tensor t = at::randn({rows, 15}).narrow(1, 2, 12), bias = at::randn({out});
    const at::Tensor x = at::randn({rows, in}), dy = at::randn({rows, out});
    at::Tensor y = at::empty({rows, out}), expected = at::empty({rows, out});
    fast.forward(x, {.bias = bias, .t = t, .u = &up}, y);
    plain.forward(x, {.bias = bias, .t = t, .u = &up}, expected);
    check_close(y, expected, tolerance, tolerance, what + ": forward, " + std::to_string(rows) + " rows");
    at::Tensor dx = at::ones({rows, in}), expected_dx = at::ones({rows, in});
    fast.backward_input(dy, {.accumulate = true, .t = t, .u = &back}, dx);
    plain.backward_input(dy, {.accumulate = true, .t = t, .u = &back}, expected_dx);
    check_close(dx, expected_dx, tolerance, tolerance,
                what + ": gradient, " + std::to_string(rows) + " rows");
  }
}

}  // namespace

PEFT_TEST(thin_products_match_fp64) {
  at::manual_seed(31);
  for_each_set([&](const CpuKernels& kernels, const std::string& set) {
    for (const int64_t n : {1, 8, 17, 24, 64}) {
      for (const int64_t rows : {1, 14, 100}) {
        for (const int64_t k : {5, 384}) {
          const at::Tensor x = at::randn({rows, k + 1}).narrow(1, 0, k), w = at::randn({n, k});
          ThinWeight thin(kernels);
          thin.assign(w.t(), 0.25);
          at::Tensor out = at::full({rows, n + 2}, 7.0);
          at::Tensor columns = out.narrow(1, 1, n);
          thin.product(x, columns);
          check_close(columns, at::mm(fp64(x), fp64(w).t()).mul(0.25).to(at::kFloat), 1e-5, 1e-5,
                      set + sizes(rows, k, n));
          check(out.select(1, 0).eq(7).all().item<bool>() && out.select(1, n + 1).eq(7).all().item<bool>(),
                set + ": columns beside are left alone");
        }
      }
    }
  });
}

PEFT_TEST(outer_sums_match_fp64_and_do_not_depend_on_threads) {
  at::manual_seed(32);
  for_each_set([&](const CpuKernels& kernels, const std::string& set) {
    for (const int64_t m : {1, 8, 19}) {
      for (const int64_t n : {3, 48, 70, 384}) {
        const at::Tensor a = at::randn({60, m + 4}).narrow(1, 2, m), b = at::randn({60, n}),
                         start = at::randn({n, m});
        const auto run = [&] {
          at::Tensor out = start.clone();  // the transposed way round
          kernels.outer_sum(a.const_data_ptr<float>(), a.stride(0), b.const_data_ptr<float>(), n, 60, m, n,
                            0.5, out.mutable_data_ptr<float>(), 1, m);
          return out;
        };
        const at::Tensor out = run();
        const at::Tensor expected = fp64(start) + at::mm(fp64(b).t(), fp64(a)).mul(0.5);
        check_close(out, expected.to(at::kFloat), 1e-5, 1e-5, set + sizes(60, m, n));
        const int threads = at::get_num_threads();
        at::set_num_threads(threads == 1 ? 3 : 1);
        check(at::equal(run(), out), set + ": other number of threads");
        at::set_num_threads(threads);
      }
    }
  });
}

PEFT_TEST(low_rank_terms_ride_along_with_every_storage) {
  at::manual_seed(33);
  for (const int64_t size : {5, 40, 96}) {
    for (const int64_t in : {6, 70, 384}) {
      const at::Tensor w = at::randn({3 * size, in}) * 0.05;
      const auto dense = make_dense_linear(w);
      const auto half = reference::make_half_linear(w.to(at::kHalf));
      const auto plain_dense = reference::make_half_linear(w);  // of fp32, which it leaves alone
      check_tail(*dense, *plain_dense, cpu_kernels(), 2e-5, "fp32" + sizes(3, size, in));
      const RowInt8Weight rows = quantize_rows(w);
      const BlockwiseWeight blockwise = quantize_blockwise(w, {WeightFormat::kNf4, 64, true, 0.01, 6});
      for_each_set([&](const CpuKernels& kernels, const std::string& set) {
        check_tail(*make_half_linear(w.to(at::kHalf), kernels), *half, kernels, 2e-5,
                   set + " fp16" + sizes(3, size, in));
        check_tail(*make_four_bit_linear({blockwise}, at::kCPU, kernels),
                   *reference::make_four_bit_linear({blockwise}, at::kCPU), kernels, 2e-5,
                   set + " nf4" + sizes(3, size, in));
        for (const Int8Gradient gradient : {Int8Gradient::kExact, Int8Gradient::kRounded}) {
          // A product that lands between two codes may round to either.
          check_tail(*make_int8_linear(rows, 1.5, at::kCPU, gradient, kernels),
                     *reference::make_int8_linear(rows, 1.5, at::kCPU, gradient), kernels, 2e-3,
                     set + " int8" + sizes(3, size, in));
        }
      });
    }
  }
}

/// Rows with factors of their own come out as if each part were a batch of its own, to the bit: blocks of
/// rows that a kernel works on at once straddle the parts.
PEFT_TEST(rows_take_the_factors_of_their_part_to_the_bit) {
  at::manual_seed(34);
  const std::vector<int64_t> ends = {1, 4, 5, 19, 19 + 13, 60, 61, 62, 63, 64, 97};
  for (const int64_t size : {5, 96}) {
    for (const int64_t in : {70, 1000}) {
      const at::Tensor w = at::randn({3 * size, in}) * 0.05, x = at::randn({97, in});
      const RowInt8Weight bytes = quantize_rows(w);
      const BlockwiseWeight blockwise = quantize_blockwise(w, {WeightFormat::kNf4, 64, true, 0.01, 6});
      for_each_set([&](const CpuKernels& kernels, const std::string& set) {
        std::vector<ThinWeight> down(ends.size(), ThinWeight(kernels));
        std::vector<WideFactor> up(ends.size(), WideFactor(kernels));
        std::vector<ThinRows> thin;
        std::vector<WideRows> wide;
        for (size_t i = 0; i < ends.size(); i++) {
          const int64_t rank = 1 + 7 * static_cast<int64_t>(i % 3);
          down[i].assign(at::randn({in, 3 * rank}), 1);
          up[i].assign(3 * size, {{at::randn({rank, size}), 0, 2.0},
                                  {at::randn({rank, size}), size, 0.5},
                                  {at::randn({rank, size}), 2 * size, -1.0}});
          const int64_t begin = i == 0 ? 0 : ends[i - 1];
          const bool any = i % 4 != 1;  // the second and the sixth have none
          thin.push_back({begin, ends[i], any ? &down[i] : nullptr});
          wide.push_back({begin, ends[i], any ? &up[i] : nullptr});
        }
        const WideByRows by_rows(wide);
        at::Tensor t = at::full({97, 45}, NAN);
        product_by_rows(x, thin, t);
        const at::Tensor bias = at::randn({3 * size});
        const auto compare = [&](FrozenLinear& linear, const std::string& what) {
          at::Tensor all = at::empty({97, 3 * size});
          linear.forward(x, {.bias = bias, .t = t, .by_rows = &by_rows}, all);
          for (size_t i = 0; i < ends.size(); i++) {
            const int64_t begin = thin[i].begin, rows = ends[i] - begin;
            const at::Tensor own = x.narrow(0, begin, rows);
            at::Tensor own_t = at::empty({rows, 3 * (1 + 7 * static_cast<int64_t>(i % 3))});
            at::Tensor expected = at::empty({rows, 3 * size});
            ProductTail tail{.bias = bias};
            if (thin[i].weight != nullptr) {
              down[i].product(own, own_t);
              tail.t = own_t;
              tail.u = &up[i];
            }
            linear.forward(own, tail, expected);
            check(at::equal(all.narrow(0, begin, rows), expected),
                  set + " " + what + sizes(3, size, in) + ": part " + std::to_string(i));
          }
        };
        compare(*make_half_linear(w.to(at::kHalf), kernels), "fp16");
        compare(*make_four_bit_linear({blockwise}, at::kCPU, kernels), "nf4");
        compare(*make_int8_linear(bytes, 1.5, at::kCPU, Int8Gradient::kExact, kernels), "int8");
        compare(*make_rounded_linear(w, at::kBFloat16, kernels), "bfloat16");
        if (&kernels == &cpu_kernels()) compare(*make_dense_linear(w), "fp32");
      });
    }
  }
}

/// The largest sums there can be: instructions that add pairs of products in 16 bits would be found out.
PEFT_TEST(int8_products_are_exact_at_full_scale) {
  for_each_set([&](const CpuKernels& kernels, const std::string& set) {
    for (const double sign : {1.0, -1.0}) {
      const at::Tensor w = at::full({37, 1536}, 127.0 * sign), x = at::full({29, 1536}, -127.0);
      at::Tensor y = at::empty({29, 37}), dx = at::empty({29, 1536});
      const auto linear = make_int8_linear(quantize_rows(w), 0, at::kCPU, Int8Gradient::kRounded, kernels);
      linear->forward(x, {}, y);
      check_close(y, at::full_like(y, -127.0 * 127.0 * 1536 * sign), 0, 1e-6, set + ": forward");
      linear->backward_input(at::full({29, 37}, 127.0), {}, dx);
      check_close(dx, at::full_like(dx, 127.0 * 127.0 * 37 * sign), 0, 1e-6, set + ": gradient");
    }
  });
}

}  // namespace peft::test
