#include "gpu_times.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "core/packed_batch.h"
#include "cuda/flash_attention.h"
#include "cuda/quant_kernels.h"
#include "kernels/kernels.h"
#include "quant_reference.h"
#include "weights/code_book.h"
#include "weights/frozen_linear.h"

namespace peft::test {
namespace {

using at::Tensor;
using Clock = std::chrono::steady_clock;

constexpr double kSecondsEach = 0.1;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Microseconds of one call. Many are queued, and reading a number of the result waits for them all.
template <typename Run>
double microseconds(const Tensor& result, const Run& run) {
  const auto wait = [&] { (void)result.flatten()[0].item<float>(); };
  const auto timed = [&](int64_t calls) {
    const auto start = Clock::now();
    for (int64_t i = 0; i < calls; i++) run();
    wait();
    return seconds_since(start) / static_cast<double>(calls);
  };
  timed(2);
  const double once = timed(3);
  return 1e6 * timed(std::clamp<int64_t>(static_cast<int64_t>(kSecondsEach / once), 3, 5000));
}

template <typename Kernel, typename Plain>
void report(const char* name, const std::string& shape, const Tensor& result, const Kernel& kernel,
            const Plain& plain) {
  const double ours = microseconds(result, kernel), aten = microseconds(result, plain);
  std::printf("{\"event\":\"kernel\",\"name\":\"%s\",\"shape\":\"%s\",\"microseconds\":%.2f,\"aten\":%.2f}\n",
              name, shape.c_str(), ours, aten);
  std::fflush(stdout);
}

struct Texts {
  int64_t count, length, heads, size;

  int64_t tokens() const { return count * length; }
  int64_t width() const { return heads * size; }
  std::string shape() const {
    return std::to_string(count) + " texts of " + std::to_string(length) + ", " + std::to_string(heads) +
           " heads of " + std::to_string(size);
  }
  PackedLayout layout(at::Device device) const {
    TokenBatch batch;
    for (int64_t i = 0; i <= count; i++) batch.offsets.push_back(static_cast<int32_t>(i * length));
    batch.ids.resize(static_cast<size_t>(tokens()));
    return make_micro_batch(batch, 0, count, device).layout;
  }
};

void time_attention(at::Device device, cuda::Launcher& gpu, const Texts& texts) {
  const PackedLayout layout = texts.layout(device);
  const auto random = [&](int64_t columns) { return at::randn({texts.tokens(), columns}).to(device); };
  const Tensor qkv = random(3 * texts.width()), g = random(texts.width());
  Tensor context = random(texts.width()), lse = random(texts.heads), dqkv = random(3 * texts.width());
  for (const float rate : {0.0f, 0.1f}) {
    const Dropout dropout{rate, 42, 1, 3, 0};
    const std::string shape = texts.shape() + (rate > 0 ? ", dropout" : "");
    report(
        "attention", shape, context,
        [&] { cuda::attention(gpu, qkv, layout, texts.heads, dropout, context, lse); },
        [&] { reference::attention(qkv, layout, texts.heads, dropout, context, lse); });
    report(
        "attention_backward", shape, dqkv,
        [&] { cuda::attention_backward(gpu, g, qkv, lse, layout, texts.heads, dropout, dqkv); },
        [&] { reference::attention_backward(g, qkv, lse, layout, texts.heads, dropout, dqkv); });
  }
  if (!cuda::has_flash_attention(device, texts.size)) return;
  for (const auto& [type, name] : {std::pair(at::kHalf, "fp16"), std::pair(at::kBFloat16, "bf16")}) {
    const std::string shape = texts.shape() + ", " + name;
    report(
        "libtorch's flash attention", shape, context,
        [&] { cuda::flash_attention(qkv, layout, texts.heads, type, context); },
        [&] { reference::attention(qkv, layout, texts.heads, {}, context, lse); });
    report(
        "libtorch's flash attention, backward", shape, dqkv,
        [&] { cuda::flash_attention_backward(g, qkv, layout, texts.heads, type, dqkv); },
        [&] { reference::attention_backward(g, qkv, lse, layout, texts.heads, {}, dqkv); });
  }
}

void time_rows(at::Device device, cuda::Launcher& gpu, int64_t rows, int64_t d) {
  const auto random = [&](at::IntArrayRef shape) { return at::randn(shape).to(device); };
  const std::string shape = std::to_string(rows) + "x" + std::to_string(d);
  const LayerNormWeights norm{random({d}), random({d}), 1e-12};
  const Tensor bias = random({d}), residual = random({rows, d}), g = random({rows, d});
  Tensor y = random({rows, d}), out = random({rows, d}), masked = random({rows, d});
  RowMoments moments{random({rows}), random({rows})};
  const Dropout dropout{0.1f, 42, 1, 3, 0};
  report(
      "residual_layer_norm", shape, out,
      [&] { cuda::residual_layer_norm(gpu, y, bias, residual, norm, dropout, out, moments); },
      [&] { reference::residual_layer_norm(y, bias, residual, norm, dropout, out, moments); });
  report(
      "layer_norm_backward", shape, out,
      [&] { cuda::layer_norm_backward(gpu, g, y, moments, norm, dropout, out, masked); },
      [&] { reference::layer_norm_backward(g, y, moments, norm, dropout, out, masked); });
  report(
      "dropout", shape, out, [&] { cuda::dropout_apply(gpu, g, dropout, false, out); },
      [&] { reference::dropout_apply(g, dropout, false, out); });

  const std::string wide = std::to_string(rows) + "x" + std::to_string(4 * d);
  const Tensor no_bias = at::zeros({4 * d}, y.options());
  Tensor u = random({rows, 4 * d}), activated = random({rows, 4 * d}), none;
  report(
      "bias_gelu", wide, activated, [&] { cuda::bias_gelu(gpu, u, no_bias, activated); },
      [&] { reference::bias_gelu(u, no_bias, activated); });
  report(
      "gelu_backward", wide, activated, [&] { cuda::gelu_backward(gpu, activated, u, none); },
      [&] { reference::gelu_backward(activated, u, none); });
}

void time_pooling(at::Device device, cuda::Launcher& gpu, const Texts& texts) {
  const PackedLayout layout = texts.layout(device);
  const Tensor x = at::randn({texts.tokens(), texts.width()}).to(device);
  Tensor out = at::randn({texts.count, texts.width()}).to(device), dx = at::empty_like(x);
  report(
      "mean_pool", texts.shape(), out, [&] { cuda::mean_pool(gpu, x, layout, out); },
      [&] { reference::mean_pool(x, layout, out); });
  report(
      "mean_pool_backward", texts.shape(), dx, [&] { cuda::mean_pool_backward(gpu, out, layout, dx); },
      [&] { reference::mean_pool_backward(out, layout, dx); });
}

/// x [T, in] with W [out, in] in fp16, beside the dense product.
void time_product(at::Device device, cuda::Launcher& gpu, int64_t in, int64_t out) {
  const BlockwiseWeight b = quantize_blockwise(at::randn({out, in}), {WeightFormat::kNf4, 64, true, 0, 6});
  cuda::FourBitWeight w;
  w.rows = out, w.columns = in, w.block_size = 64;
  w.codes = b.codes.to(device);
  w.table = at::tensor(at::ArrayRef<float>(four_bit_code_book(b.format).value)).to(device);
  w.absmax_codes = b.absmax_codes.to(device);
  w.absmax_table = at::tensor(at::ArrayRef<float>(dynamic_code_book().value)).to(device);
  w.nested_absmax = b.nested_absmax.to(device);
  w.absmax_offset = b.nested_offset;
  const RowInt8Weight rows = quantize_rows(at::randn({out, in}));
  const cuda::Int8Weight w8{rows.codes.to(device), rows.absmax.to(device)};
  const Tensor dense = at::randn({out, in}).to(device, at::kHalf);
  for (const int64_t batch : {1, 4, 16, 64, 1024}) {
    const Tensor x = at::randn({batch, in}).to(device, at::kHalf);
    Tensor y = at::empty({batch, out}, x.options());
    const std::string shape = std::to_string(batch) + "x" + std::to_string(in) + " by " + std::to_string(out);
    report(
        "NF4 product", shape, y, [&] { cuda::linear(gpu, w, x, Tensor(), y); },
        [&] { cuda::reference::linear(w, x, Tensor(), y); });
    report(
        "int8 product", shape, y, [&] { cuda::linear(gpu, w8, x, Tensor(), 6, y); },
        [&] { cuda::reference::linear(w8, x, Tensor(), 6, y); });
    const double plain = microseconds(y, [&] { at::mm_out(y, x, dense.t()); });
    std::printf("{\"event\":\"kernel\",\"name\":\"fp16 product\",\"shape\":\"%s\",\"aten\":%.2f}\n",
                shape.c_str(), plain);
  }
}

}  // namespace

void time_kernels(at::Device device, cuda::Launcher& launcher) {
  for (const Texts& texts :
       {Texts{128, 25, 12, 32}, {256, 64, 12, 64}, {16, 512, 12, 64}, {64, 128, 8, 128}}) {
    time_attention(device, launcher, texts);
  }
  for (const auto& [rows, d] : {std::pair<int64_t, int64_t>{3200, 384}, {16384, 768}})
    time_rows(device, launcher, rows, d);
  time_pooling(device, launcher, {128, 25, 12, 32});
  time_pooling(device, launcher, {16, 512, 12, 64});
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{384, 1536}, {1536, 384}, {1024, 4096}})
    time_product(device, launcher, in, out);
}

}  // namespace peft::test
