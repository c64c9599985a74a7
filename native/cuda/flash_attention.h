#pragma once

#include "kernels/kernels.h"

namespace peft::cuda {

/// Whether a device has libtorch's flash attention in 16 bits for heads of this size: a GPU of compute
/// capability 8.0 or higher, unless PEFT_TRAIN_FLASH_ATTENTION is "off".
bool has_flash_attention(at::Device device, int64_t head_size);

/// context [T, d] = softmax(q k' / sqrt(head size)) v in each text and head, of a qkv [T, 3d] that is rounded
/// to `type`, fp16 or bfloat16; sums are fp32. Tensors are fp32 and on the device. Dao, "FlashAttention-2",
/// 2023. Without dropout: its masks would not be those of kernels/dropout.h, which are drawn again in
/// backward.
void flash_attention(const Tensor& qkv, const PackedLayout& layout, int64_t heads, at::ScalarType type,
                     Tensor& context);
/// dqkv [T, 3d] from dcontext [T, d]. Runs forward once more rather than keep its result; the same input
/// gives the same bits.
void flash_attention_backward(const Tensor& dcontext, const Tensor& qkv, const PackedLayout& layout,
                              int64_t heads, at::ScalarType type, Tensor& dqkv);

}  // namespace peft::cuda
