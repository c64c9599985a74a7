#include "kernels/kernels.h"

#include <ATen/Parallel.h>

#include "check.h"
#include "kernel_sets.h"
#include "kernels/cpu/table.h"
#include "kernels/philox.h"

// Every vector kernel of every instruction set that this processor runs, against the plain ATen reference,
// over shapes that do not fill vectors, rows or dropout groups.

namespace peft::test {
namespace {

Dropout some_dropout(float rate) { return {rate, 0x123456789ABCDEF, 7, 19, 1000}; }

const float* in(const at::Tensor& t) { return t.const_data_ptr<float>(); }
float* io(at::Tensor& t) { return t.mutable_data_ptr<float>(); }

PackedLayout layout_of(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> offsets = {0}, positions;
  for (const int32_t n : lengths) {
    offsets.push_back(offsets.back() + n);
    for (int32_t i = 0; i < n; i++) positions.push_back(i);
  }
  return {at::tensor(offsets, at::kInt), at::tensor(positions, at::kInt),
          static_cast<int64_t>(lengths.size()), offsets.back()};
}

Packed packed(const PackedLayout& l) { return {l.offsets.const_data_ptr<int32_t>(), l.sequences}; }

const int64_t kColumns[] = {1, 8, 16, 31, 32, 64, 100, 384, 1536};

}  // namespace

PEFT_TEST(philox_gives_the_published_vectors) {
  // Known answers of the authors' Random123 distribution.
  const auto zero = philox({0, 0, 0, 0}, {0, 0});
  check(zero == std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, "counter and key 0");
  const auto ones = philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff});
  check(ones == std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        "counter and key all ones");
  const auto pi = philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0});
  check(pi == std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}, "digits of pi");
}

PEFT_TEST(dropout_masks_are_the_same_everywhere) {
  for (const int64_t d : kColumns) {
    const Dropout dropout = some_dropout(0.3f);
    const at::Tensor x = at::ones({9, d}), expected = reference::dropout_mask(dropout, 9, d, at::kCPU);
    for (int64_t t = 0; t < 9; t++) {
      for (int64_t j = 0; j < d; j++) {
        const auto words =
            philox({static_cast<uint32_t>(j / 64 * 16 + j % 16), 1000 + static_cast<uint32_t>(t), 7, 19},
                   {0x89ABCDEF, 0x1234567});
        const float keep = words[j / 16 % 4] < dropout.threshold() ? 0.0f : dropout.scale();
        check(expected[t][j].item<float>() == keep, "reference mask against the scalar generator");
      }
      if (d > 100) break;  // one long row is enough
    }
    for_each_set([&](const CpuKernels& k, const std::string& name) {
      at::Tensor out = at::empty_like(x);
      k.dropout(in(x), 9, d, dropout, false, io(out));
      check(at::equal(out, expected), name + " dropout, d = " + std::to_string(d));
      k.dropout(in(x), 9, d, dropout, true, io(out));
      check(at::equal(out, expected * 2), name + " dropout accumulated");
    });
  }
}

PEFT_TEST(attention_dropout_masks_are_as_documented) {
  const Dropout dropout = some_dropout(0.3f).at_head(2);
  const at::Tensor mask = reference::attention_dropout_mask(dropout, 5, 13, at::kCPU);
  for (uint32_t t = 0; t < 5; t++) {
    for (uint32_t j = 0; j < 13; j++) {
      const auto words = philox({1000 + t, j / 4, 7, 19 | 3 << 16}, {0x89ABCDEF, 0x1234567});
      const float keep = words[j % 4] < dropout.threshold() ? 0.0f : dropout.scale();
      check(mask[t][j].item<float>() == keep, "attention mask against the scalar generator");
    }
  }
}

PEFT_TEST(dropout_keeps_the_promised_share) {
  for (const float rate : {0.05f, 0.1f, 0.5f, 0.9f}) {
    const at::Tensor mask = reference::dropout_mask({rate, 42, 3, 5, 0}, 1000, 384, at::kCPU);
    const double kept = (mask > 0).to(at::kDouble).mean().item<double>();
    // 384,000 draws: five standard deviations are 0.004 at worst.
    check(std::abs(kept - (1 - rate)) < 0.004, "share kept at rate " + std::to_string(rate));
  }
}

PEFT_TEST(embed_matches_reference) {
  const PackedLayout layout = layout_of({1, 5, 13});
  for (const int64_t d : kColumns) {
    const at::Tensor word = at::randn({50, d}), position = at::randn({20, d}), type = at::randn({d});
    const LayerNormWeights norm = {at::randn({d}), at::randn({d}), 1e-12};
    const at::Tensor ids = at::randint(50, {19}, at::kInt);
    for (const float rate : {0.0f, 0.4f}) {
      at::Tensor expected = at::empty({19, d});
      reference::embed(ids, layout, word, position, type, norm, some_dropout(rate), expected);
      for_each_set([&](const CpuKernels& k, const std::string& name) {
        at::Tensor out = at::empty({19, d});
        k.embed(ids.const_data_ptr<int32_t>(), layout.positions.const_data_ptr<int32_t>(), 19, d, in(word),
                in(position), in(type), in(norm.gamma), in(norm.beta), 1e-12f, some_dropout(rate), io(out));
        // A LayerNorm of one column divides rounding noise by itself: only d > 1 says anything.
        if (d > 1) check_close(out, expected, 1e-6, 2e-6, name + " embed, d = " + std::to_string(d));
      });
    }
  }
}

PEFT_TEST(layer_norm_matches_reference_both_ways) {
  for (const int64_t d : kColumns) {
    if (d == 1) continue;
    const at::Tensor y0 = at::randn({11, d}) * 3, bias = at::randn({d}), residual = at::randn({11, d}),
                     g = at::randn({11, d});
    const LayerNormWeights norm = {at::randn({d}), at::randn({d}), 1e-12};
    for (const float rate : {0.0f, 0.1f}) {
      const Dropout dropout = some_dropout(rate);
      at::Tensor y = y0.clone(), out = at::empty_like(y), dy = at::empty_like(y), masked = at::empty_like(y);
      RowMoments moments = {at::empty({11}), at::empty({11})};
      reference::residual_layer_norm(y, bias, residual, norm, dropout, out, moments);
      reference::layer_norm_backward(g, y, moments, norm, dropout, dy, masked);
      for_each_set([&](const CpuKernels& k, const std::string& name) {
        const std::string what = name + ", d = " + std::to_string(d);
        at::Tensor y1 = y0.clone(), out1 = at::empty_like(y), again = at::empty_like(y),
                   mean = at::empty({11}), rstd = at::empty({11});
        k.residual_layer_norm(io(y1), in(bias), in(residual), 11, d, in(norm.gamma), in(norm.beta), 1e-12f,
                              dropout, io(out1), io(mean), io(rstd));
        check_close(y1, y, 1e-6, 1e-6, "sum " + what);
        check_close(out1, out, 1e-6, 3e-6, "layer norm " + what);
        k.layer_norm_apply(in(y1), in(mean), in(rstd), 11, d, in(norm.gamma), in(norm.beta), io(again));
        check(at::equal(again, out1), "layer norm from kept moments " + what);
        at::Tensor dy1 = at::empty_like(y), masked1 = at::empty_like(y);
        k.layer_norm_backward(in(g), in(y1), in(mean), in(rstd), 11, d, in(norm.gamma), dropout, io(dy1),
                              rate > 0 ? io(masked1) : nullptr);
        check_close(dy1, dy, 1e-6, 5e-6, "layer norm backward " + what);
        if (rate > 0) check_close(masked1, masked, 1e-6, 5e-6, "masked gradient " + what);
      });
    }
  }
}

PEFT_TEST(gelu_matches_reference_both_ways) {
  for (const int64_t d : kColumns) {
    const at::Tensor u0 = at::randn({7, d}) * 4, bias = at::randn({d}), g = at::randn({7, d});
    at::Tensor u = u0.clone(), out = at::empty_like(u), du = g.clone(), none;
    reference::bias_gelu(u, bias, out);
    reference::gelu_backward(du, u, none);
    for_each_set([&](const CpuKernels& k, const std::string& name) {
      at::Tensor u1 = u0.clone(), out1 = at::empty_like(u), du1 = g.clone(), out2 = at::empty_like(u);
      k.bias_gelu(io(u1), in(bias), 7, d, io(out1));
      check(at::equal(u1, u), name + " bias");
      // 3e-7 is two units in the last place at the size of these values.
      check_close(out1, out, 1e-7, 3e-7, name + " gelu");
      k.gelu_backward(io(du1), in(u), 7, d, io(out2));
      check_close(du1, du, 1e-7, 5e-7, name + " gelu backward");
      check(at::equal(out2, out1), name + " gelu again");
    });
  }
  // Far out the function is 0 or the identity, and never NaN.
  const at::Tensor far = at::tensor({-1e30f, -200.0f, -14.0f, 0.0f, 14.0f, 200.0f, 1e30f}).view({1, 7}),
                   zero = at::zeros({7});
  for_each_set([&](const CpuKernels& k, const std::string& name) {
    at::Tensor u = far.clone(), out = at::empty_like(u);
    k.bias_gelu(io(u), in(zero), 1, 7, io(out));
    check_close(out, at::relu(far), 1e-6, 0, name + " gelu far out");
  });
}

PEFT_TEST(attention_matches_reference_both_ways) {
  struct Shape {
    int64_t heads, size;
    std::vector<int32_t> lengths;
  };
  const Shape shapes[] = {{2, 16, {1, 2, 3}},   {3, 32, {17, 64, 5, 33}}, {2, 8, {4, 19}},
                          {1, 20, {7, 48, 49}}, {2, 64, {128, 1, 70}},    {1, 32, {512, 100}}};
  for (const Shape& shape : shapes) {
    const PackedLayout layout = layout_of(shape.lengths);
    const int64_t d = shape.heads * shape.size, tokens = layout.tokens;
    const at::Tensor qkv = at::randn({tokens, 3 * d}), g = at::randn({tokens, d});
    for (const float rate : {0.0f, 0.2f}) {
      const Dropout dropout = some_dropout(rate);
      at::Tensor context = at::empty({tokens, d}), lse = at::empty({tokens, shape.heads}),
                 dqkv = at::empty({tokens, 3 * d});
      reference::attention(qkv, layout, shape.heads, dropout, context, lse);
      reference::attention_backward(g, qkv, lse, layout, shape.heads, dropout, dqkv);
      for_each_set([&](const CpuKernels& k, const std::string& name) {
        const std::string what =
            name + ", heads of " + std::to_string(shape.size) + ", dropout " + std::to_string(rate);
        at::Tensor context1 = at::empty_like(context), lse1 = at::empty_like(lse),
                   dqkv1 = at::full_like(dqkv, NAN);
        k.attention(in(qkv), packed(layout), d, shape.heads, dropout, io(context1), io(lse1));
        check_close(context1, context, 1e-6, 2e-6, "attention " + what);
        check_close(lse1, lse, 1e-6, 2e-6, "lse " + what);
        k.attention_backward(in(g), in(qkv), in(lse), packed(layout), d, shape.heads, dropout, io(dqkv1));
        check_close(dqkv1, dqkv, 1e-6, 5e-6, "attention backward " + what);
      });
    }
  }
}

PEFT_TEST(attention_of_large_scores_stays_finite) {
  const PackedLayout layout = layout_of({20});
  const at::Tensor qkv = at::randn({20, 96}) * 100;
  at::Tensor expected = at::empty({20, 32}), lse = at::empty({20, 1});
  reference::attention(qkv, layout, 1, {}, expected, lse);
  for_each_set([&](const CpuKernels& k, const std::string& name) {
    at::Tensor out = at::empty({20, 32}), lse1 = at::empty({20, 1});
    k.attention(in(qkv), packed(layout), 32, 1, {}, io(out), io(lse1));
    // Scores near 5e4 have an ulp of 4e-3, which the exponential turns into a relative error of the same
    // size.
    check_close(out, expected, 0, 1e-2, name + " large scores");
  });
}

PEFT_TEST(mean_pool_matches_reference_both_ways) {
  const PackedLayout layout = layout_of({1, 6, 30});
  const at::Tensor x = at::randn({37, 33}), g = at::randn({3, 33});
  at::Tensor out = at::empty({3, 33}), dx = at::empty({37, 33});
  reference::mean_pool(x, layout, out);
  reference::mean_pool_backward(g, layout, dx);
  for_each_set([&](const CpuKernels& k, const std::string& name) {
    at::Tensor out1 = at::empty_like(out), dx1 = at::empty_like(dx);
    k.mean_pool(in(x), packed(layout), 33, io(out1));
    check_close(out1, out, 1e-7, 1e-6, name + " mean pool");
    k.mean_pool_backward(in(g), packed(layout), 33, io(dx1));
    check_close(dx1, dx, 1e-7, 1e-6, name + " mean pool backward");
  });
}

PEFT_TEST(packed_products_match_fp64_and_do_not_depend_on_rows_or_threads) {
  struct Shape {
    int64_t rows, k, n;
  };
  const Shape shapes[] = {{1, 1, 1},       {3, 5, 7},        {14, 32, 32},  {29, 100, 33},
                          {25, 384, 1152}, {150, 1536, 384}, {257, 385, 95}};
  for (const Shape& s : shapes) {
    const at::Tensor a = at::randn({s.rows, s.k}), w = at::randn({s.n, s.k}), bias = at::randn({s.n}),
                     c0 = at::randn({s.rows, s.n});
    const at::Tensor product = at::mm(a.to(at::kDouble), w.to(at::kDouble).t());
    const double tolerance = 2e-7 * std::sqrt(static_cast<double>(s.k)) + 1e-6;  // of the largest entry
    for_each_set([&](const CpuKernels& k, const std::string& name) {
      const std::string what =
          name + " " + std::to_string(s.rows) + "x" + std::to_string(s.k) + "x" + std::to_string(s.n);
      at::Tensor packed = at::full({k.packed_floats(s.k, s.n)}, NAN), back = at::empty_like(w),
                 c = at::empty({s.rows, s.n});
      k.pack(in(w), 1, s.k, s.k, s.n, io(packed));
      k.unpack(in(packed), 1, s.k, s.k, s.n, io(back));
      check(at::equal(back, w), "unpack " + what);
      k.product_packed(in(a), s.k, in(packed), s.rows, s.k, s.n, {.bias = in(bias)}, io(c), s.n);
      check_close(c, (product + bias).to(at::kFloat), 0, tolerance, "product " + what);
      at::Tensor sum = c0.clone();
      k.product_packed(in(a), s.k, in(packed), s.rows, s.k, s.n, {.accumulate = true}, io(sum), s.n);
      check_close(sum, (product + c0).to(at::kFloat), 0, tolerance, "accumulated product " + what);
      at::Tensor last = at::empty({1, s.n});
      k.product_packed(in(a) + (s.rows - 1) * s.k, s.k, in(packed), 1, s.k, s.n, {.bias = in(bias)}, io(last),
                       s.n);
      check(at::equal(last[0], c[s.rows - 1]), "one row alone gives the same bits " + what);
      const int threads = at::get_num_threads();
      at::set_num_threads(threads == 1 ? 3 : 1);
      at::Tensor other = at::empty_like(c);
      k.product_packed(in(a), s.k, in(packed), s.rows, s.k, s.n, {.bias = in(bias)}, io(other), s.n);
      at::set_num_threads(threads);
      check(at::equal(other, c), "other number of threads gives the same bits " + what);
    });
  }
}

/// Products in pairs scale every row to the size of B: the numbers of a row are as exact whatever its size,
/// and no business of the others.
PEFT_TEST(packed_products_are_as_exact_for_rows_of_any_size) {
  const int64_t k = 300, n = 70;
  const std::vector<double> sizes = {1, 1e-3, 1e5, 0, 1e-12, 1e12, 1e-24, 1e24, 1e-32, 1e33, 3, 1e-8, 1e8};
  const auto rows = static_cast<int64_t>(sizes.size());
  for (const double level : {1e-4, 0.05, 1e3}) {
    const at::Tensor w = at::randn({n, k}) * level;
    at::Tensor a = at::randn({rows, k});
    a.select(1, 7).mul_(50);  // an outlying column, as trained models have
    for (int64_t i = 0; i < rows; i++) a[i].mul_(sizes[static_cast<size_t>(i)]);
    const at::Tensor exact = at::mm(a.to(at::kDouble), w.to(at::kDouble).t());
    for_each_set([&](const CpuKernels& kernels, const std::string& name) {
      at::Tensor packed = at::empty({kernels.packed_floats(k, n)}), c = at::empty({rows, n});
      kernels.pack(in(w), 1, k, k, n, io(packed));
      kernels.product_packed(in(a), k, in(packed), rows, k, n, {}, io(c), n);
      for (int64_t i = 0; i < rows; i++) {
        const double size = exact[i].abs().max().item<double>();
        const double error = (c[i].to(at::kDouble) - exact[i]).abs().max().item<double>();
        // Sums of 300 products of fp32, among which are tenfold outliers.
        check(error <= 4e-6 * size, name + ": a row of size " +
                                        std::to_string(sizes[static_cast<size_t>(i)]) + ", weights of size " +
                                        std::to_string(level) + ": " + std::to_string(error / size));
      }
      at::Tensor broken = a.clone(), other = at::empty_like(c);
      broken[4][9] = NAN;
      broken[5][9] = INFINITY;
      kernels.product_packed(in(broken), k, in(packed), rows, k, n, {}, io(other), n);
      for (int64_t i = 0; i < rows; i++) {
        if (i == 4 || i == 5) {
          check(!other[i].isfinite().any().item<bool>(), name + ": what is not finite stays so");
        } else {
          check(at::equal(other[i], c[i]), name + ": other rows are as they were");
        }
      }
    });
  }
}

}  // namespace peft::test
