#include <ATen/ops/empty_like.h>

#include <cmath>

#include "cuda/kernel_args.h"
#include "cuda/launcher.h"
#include "kernels/kernels.h"

// The fused operations of kernels/kernels.h by the kernels of layer_norm.cu, gelu.cu, attention.cu and
// pooling.cu.

namespace peft::cuda {
namespace {

constexpr const char* kLayerNorm = "layer_norm.cu";
constexpr const char* kGelu = "gelu.cu";
constexpr const char* kAttention = "attention.cu";
constexpr const char* kAttentionBackward = "attention_backward.cu";
constexpr const char* kPooling = "pooling.cu";

/// Queries of a tile of attention, as Tile of attention_tile.h.
int64_t tile_rows(int64_t width) { return width <= 64 ? 32 : 16; }

unsigned blocks(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

template <typename T>
const T* in(const Tensor& t) {
  TORCH_CHECK(t.is_contiguous(), "a kernel needs a tensor in one piece");
  return t.const_data_ptr<T>();
}
const float* in(const Tensor& t) { return in<float>(t); }
float* io(Tensor& t) {
  TORCH_CHECK(t.is_contiguous(), "a kernel needs a tensor in one piece");
  return t.mutable_data_ptr<float>();
}

int rows_of(const Tensor& t) { return static_cast<int>(t.size(0)); }
int columns_of(const Tensor& t) { return static_cast<int>(t.size(1)); }

/// A warp a row.
Grid warps(const Tensor& rows) { return {blocks(rows.size(0), kWarpRows)}; }
/// A thread an entry.
Grid entries(const Tensor& rows) {
  return {static_cast<unsigned>(rows.size(0)), blocks(rows.size(1), kThreads)};
}

DropoutView view(const Dropout& d) {
  return {d.threshold(),
          d.threshold() > 0 ? d.scale() : 1.0f,
          static_cast<unsigned>(d.seed),
          static_cast<unsigned>(d.seed >> 32),
          d.step,
          d.site,
          d.first_token};
}

PackedView view(const PackedLayout& layout) {
  return {in<int>(layout.texts), in<int>(layout.device_offsets), static_cast<int>(layout.tokens)};
}

HeadNumbers head_numbers(const Tensor& t) {
  return {static_cast<float*>(const_cast<void*>(t.const_data_ptr())), t.stride(0), t.stride(1)};
}

float score_scale(int64_t size) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(size))); }

/// The kernel's width for heads of this size, and its blocks.
struct HeadLaunch {
  int64_t size, width;
  std::string suffix;
  Grid grid;

  HeadLaunch(int64_t tokens, int64_t d, int64_t heads)
      : size(d / heads),
        width(size <= 32   ? 32
              : size <= 64 ? 64
                           : 128),
        suffix("_" + std::to_string(width) + "_f32"),
        grid{blocks(tokens, tile_rows(width)), static_cast<unsigned>(heads)} {}
};

}  // namespace

bool has_attention(int64_t head_size) { return head_size <= kMaxHeadSize; }

void embed(Launcher& launcher, const Tensor& ids, const PackedLayout& layout, const Tensor& word,
           const Tensor& position, const Tensor& type, const LayerNormWeights& norm, const Dropout& dropout,
           Tensor& out) {
  launcher.launch(kLayerNorm, "embed_f32", warps(out),
                  EmbedArgs{in<int>(ids), in<int>(layout.positions), in(word), in(position), in(type),
                            in(norm.gamma), in(norm.beta), io(out), view(dropout),
                            static_cast<float>(norm.eps), rows_of(out), columns_of(out)});
}

void residual_layer_norm(Launcher& launcher, Tensor& y, const Tensor& bias, const Tensor& residual,
                         const LayerNormWeights& norm, const Dropout& dropout, Tensor& out,
                         RowMoments& moments) {
  launcher.launch(kLayerNorm, "residual_layer_norm_f32", warps(y),
                  ResidualLayerNormArgs{io(y), in(bias), in(residual), in(norm.gamma), in(norm.beta), io(out),
                                        io(moments.mean), io(moments.rstd), view(dropout),
                                        static_cast<float>(norm.eps), rows_of(y), columns_of(y)});
}

void layer_norm_apply(Launcher& launcher, const Tensor& y, const RowMoments& moments,
                      const LayerNormWeights& norm, Tensor& out) {
  launcher.launch(kLayerNorm, "layer_norm_apply_f32", warps(y),
                  LayerNormApplyArgs{in(y), in(moments.mean), in(moments.rstd), in(norm.gamma), in(norm.beta),
                                     io(out), rows_of(y), columns_of(y)});
}

void layer_norm_backward(Launcher& launcher, const Tensor& dout, const Tensor& y, const RowMoments& moments,
                         const LayerNormWeights& norm, const Dropout& dropout, Tensor& dy, Tensor& dmasked) {
  launcher.launch(kLayerNorm, "layer_norm_backward_f32", warps(y),
                  LayerNormBackwardArgs{in(dout), in(y), in(moments.mean), in(moments.rstd), in(norm.gamma),
                                        io(dy), dropout.active() ? io(dmasked) : nullptr, view(dropout),
                                        rows_of(y), columns_of(y)});
}

void bias_gelu(Launcher& launcher, Tensor& u, const Tensor& bias, Tensor& out) {
  launcher.launch(kGelu, "bias_gelu_f32", entries(u), BiasGeluArgs{io(u), in(bias), io(out), columns_of(u)});
}

void gelu_backward(Launcher& launcher, Tensor& dout, const Tensor& u, Tensor& out) {
  launcher.launch(kGelu, "gelu_backward_f32", entries(u),
                  GeluBackwardArgs{io(dout), in(u), out.defined() ? io(out) : nullptr, columns_of(u)});
}

void dropout_apply(Launcher& launcher, const Tensor& x, const Dropout& dropout, bool accumulate,
                   Tensor& out) {
  launcher.launch(kLayerNorm, "dropout_f32", warps(x),
                  DropoutArgs{in(x), io(out), view(dropout), accumulate, rows_of(x), columns_of(x)});
}

void attention(Launcher& launcher, const Tensor& qkv, const PackedLayout& layout, int64_t heads,
               const Dropout& dropout, Tensor& context, Tensor& lse) {
  const HeadLaunch launch(layout.tokens, context.size(1), heads);
  launcher.launch(
      kAttention, "attention" + launch.suffix, launch.grid,
      AttentionArgs{in(qkv), io(context), head_numbers(lse), view(layout), view(dropout),
                    score_scale(launch.size), static_cast<int>(heads), static_cast<int>(launch.size)});
}

void attention_backward(Launcher& launcher, const Tensor& dcontext, const Tensor& qkv, const Tensor& lse,
                        const PackedLayout& layout, int64_t heads, const Dropout& dropout, Tensor& dqkv) {
  const HeadLaunch launch(layout.tokens, dcontext.size(1), heads);
  const Tensor delta = at::empty_like(lse);
  const AttentionBackwardArgs args{in(dcontext),
                                   in(qkv),
                                   io(dqkv),
                                   head_numbers(lse),
                                   head_numbers(delta),
                                   view(layout),
                                   view(dropout),
                                   score_scale(launch.size),
                                   static_cast<int>(heads),
                                   static_cast<int>(launch.size)};
  launcher.launch(kAttentionBackward, "attention_query_gradient" + launch.suffix, launch.grid, args);
  launcher.launch(kAttentionBackward, "attention_key_value_gradient" + launch.suffix, launch.grid, args);
}

void mean_pool(Launcher& launcher, const Tensor& x, const PackedLayout& layout, Tensor& out) {
  launcher.launch(kPooling, "mean_pool_f32", entries(out),
                  MeanPoolArgs{in(x), view(layout), io(out), columns_of(x)});
}

void mean_pool_backward(Launcher& launcher, const Tensor& dout, const PackedLayout& layout, Tensor& dx) {
  launcher.launch(kPooling, "mean_pool_backward_f32", entries(dx),
                  MeanPoolBackwardArgs{in(dout), view(layout), io(dx), columns_of(dx)});
}

}  // namespace peft::cuda
