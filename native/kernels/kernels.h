#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/dropout.h"

// The fused operations of the encoder over row-major fp32 tensors. Each runs the vector kernels on the CPU,
// those of native/cuda on a GPU that they were compiled for, and the plain ATen version (namespace reference)
// elsewhere, which the tests hold the others against.

namespace peft {

using at::Tensor;

/// The layout of a packed batch of texts. `offsets` is int32 on the CPU, [sequences + 1], starting at 0.
struct PackedLayout {
  Tensor offsets;
  Tensor positions;  // int32 [T], position of each token in its text, on the device
  int64_t sequences = 0;
  int64_t tokens = 0;
  // What only a GPU's kernels read, on the device.
  Tensor texts{};  // int32 [T], the text of each token
  Tensor device_offsets{};
};

struct LayerNormWeights {
  Tensor gamma, beta;  // [d]
  double eps = 0;
};

struct RowMoments {
  Tensor mean, rstd;  // [T]
};

#define PEFT_KERNEL_DECLARATIONS(...)                                                                        \
  /* out [T, d] = dropout(layer_norm(word[ids] + position[positions] + type)); ids int32 [T] */              \
  void embed(__VA_ARGS__ const Tensor& ids, const PackedLayout& layout, const Tensor& word,                  \
             const Tensor& position, const Tensor& type, const LayerNormWeights& norm,                       \
             const Dropout& dropout, Tensor& out);                                                           \
  /* y = dropout(y + bias) + residual in place, out = layer_norm(y); y, residual, out [T, d] */              \
  void residual_layer_norm(__VA_ARGS__ Tensor& y, const Tensor& bias, const Tensor& residual,                \
                           const LayerNormWeights& norm, const Dropout& dropout, Tensor& out,                \
                           RowMoments& moments);                                                             \
  /* out = layer_norm(y) from kept moments */                                                                \
  void layer_norm_apply(__VA_ARGS__ const Tensor& y, const RowMoments& moments,                              \
                        const LayerNormWeights& norm, Tensor& out);                                          \
  /* dy = gradient with respect to y; dmasked = dropout(dy), the gradient before the residual, where dropout \
   * is on */                                                                                                \
  void layer_norm_backward(__VA_ARGS__ const Tensor& dout, const Tensor& y, const RowMoments& moments,       \
                           const LayerNormWeights& norm, const Dropout& dropout, Tensor& dy,                 \
                           Tensor& dmasked);                                                                 \
  /* u += bias in place, out = gelu(u) (erf); [T, f] */                                                      \
  void bias_gelu(__VA_ARGS__ Tensor& u, const Tensor& bias, Tensor& out);                                    \
  /* dout *= gelu'(u) in place; if out is defined it receives gelu(u) */                                     \
  void gelu_backward(__VA_ARGS__ Tensor& dout, const Tensor& u, Tensor& out);                                \
  /* out = x * mask / (1 - rate), added to out if accumulate */                                              \
  void dropout_apply(__VA_ARGS__ const Tensor& x, const Dropout& dropout, bool accumulate, Tensor& out);     \
  /* context [T, d] = softmax(q k' / sqrt(head size)) v in each text and head; qkv [T, 3d], lse [T, heads]   \
   */                                                                                                        \
  void attention(__VA_ARGS__ const Tensor& qkv, const PackedLayout& layout, int64_t heads,                   \
                 const Dropout& dropout, Tensor& context, Tensor& lse);                                      \
  /* dqkv [T, 3d] from dcontext [T, d] */                                                                    \
  void attention_backward(__VA_ARGS__ const Tensor& dcontext, const Tensor& qkv, const Tensor& lse,          \
                          const PackedLayout& layout, int64_t heads, const Dropout& dropout, Tensor& dqkv);  \
  /* out [texts, d] = mean of the rows of each text */                                                       \
  void mean_pool(__VA_ARGS__ const Tensor& x, const PackedLayout& layout, Tensor& out);                      \
  /* dx [T, d] = dout of the text / its length */                                                            \
  void mean_pool_backward(__VA_ARGS__ const Tensor& dout, const PackedLayout& layout, Tensor& dx);

PEFT_KERNEL_DECLARATIONS()

namespace reference {
PEFT_KERNEL_DECLARATIONS()
/// The keep factors, 0 or 1 / (1 - rate), as [tokens, columns] on `device`.
Tensor dropout_mask(const Dropout& dropout, int64_t tokens, int64_t columns, at::Device device);
/// Those of one head's probabilities, as [queries, keys]; `dropout` is that of the head.
Tensor attention_dropout_mask(const Dropout& dropout, int64_t queries, int64_t keys, at::Device device);
}  // namespace reference

namespace cuda {
class Launcher;
/// Tensors are in one piece and on the launcher's device.
PEFT_KERNEL_DECLARATIONS(Launcher& launcher, )
/// Heads of more columns have no kernel.
bool has_attention(int64_t head_size);
}  // namespace cuda

#undef PEFT_KERNEL_DECLARATIONS

}  // namespace peft
