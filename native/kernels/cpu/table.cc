#include "kernels/cpu/table.h"

#include "kernels/cpu/kernels_internal.h"

#define PEFT_STRING(x) #x
#define PEFT_NAME(x) PEFT_STRING(x)

#if defined(__AVX2__) && !defined(__AVX512F__)
#define PEFT_WITH_AVXVNNI 1
// int8_product.cc once more.
namespace peft::cpu::avxvnni {
void product_int8(const Int8Rows& a, const StoredWeight& w, const Tail& tail, float* c, int64_t ldc);
}
#endif

namespace peft::cpu::PEFT_KERNEL_NS {

extern const CpuKernels kKernels, kPairedKernels;
constexpr CpuKernels kPlain = {
    PEFT_NAME(PEFT_KERNEL_NS),
    embed,
    residual_layer_norm,
    layer_norm_apply,
    layer_norm_backward,
    bias_gelu,
    gelu_backward,
    dropout,
    attention,
    attention_backward,
    mean_pool,
    mean_pool_backward,
    packed_floats,
    pack,
    unpack,
    product_packed,
    thin_floats,
    pack_thin,
    product_thin,
    outer_sum,
    stored_rows,
    store_half,
    store_four_bit,
    expand_stored,
    product_stored,
    product_stored_transposed,
    int8_row_bytes,
    store_int8,
    quantize_rows_int8,
    product_int8,
    find_outliers,
    add_outliers,
#if defined(__AVX512F__)
    has_fast_bfloat16,
    bfloat16_row,
    pack_bfloat16,
    unpack_bfloat16,
    round_rows_bfloat16,
    product_bfloat16,
#else
    [] { return false; },
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
#endif
};

constexpr CpuKernels named(CpuKernels kernels, const char* name) {
  kernels.name = name;
  return kernels;
}

constexpr CpuKernels paired(CpuKernels kernels) {
  kernels.packed_floats = packed_floats_paired;
  kernels.pack = pack_paired;
  kernels.product_packed = product_packed_paired;
  kernels.product_stored = product_stored_paired;
  kernels.product_stored_transposed = product_stored_transposed_paired;
  return kernels;
}

const CpuKernels kKernels = kPlain,
                 kPairedKernels = named(paired(kPlain), PEFT_NAME(PEFT_KERNEL_NS) "-paired");

#if defined(PEFT_WITH_AVXVNNI)
extern const CpuKernels kVnniKernels, kPairedVnniKernels;
constexpr CpuKernels with_vnni(CpuKernels kernels) {
  kernels.product_int8 = avxvnni::product_int8;
  return kernels;
}

const CpuKernels kVnniKernels = named(with_vnni(kPlain), PEFT_NAME(PEFT_KERNEL_NS) "-vnni"),
                 kPairedVnniKernels =
                     named(with_vnni(paired(kPlain)), PEFT_NAME(PEFT_KERNEL_NS) "-vnni-paired");
#endif

}  // namespace peft::cpu::PEFT_KERNEL_NS
