#include "kernels/cpu/kernels_internal.h"

namespace peft::cpu::PEFT_KERNEL_NS {

void mean_pool(const float* x, Packed packed, int64_t d, float* out) {
#pragma omp parallel for schedule(static)
  for (int64_t s = 0; s < packed.sequences; s++) {
    const int64_t begin = packed.offsets[s], end = packed.offsets[s + 1];
    float* row = out + s * d;
    for (int64_t j = 0; j < d; j++) row[j] = 0.0f;
    for (int64_t t = begin; t < end; t++)
      for (int64_t j = 0; j < d; j++) row[j] += x[t * d + j];
    const float inverse = 1.0f / (float)(end - begin);
    for (int64_t j = 0; j < d; j++) row[j] *= inverse;
  }
}

void mean_pool_backward(const float* dout, Packed packed, int64_t d, float* dx) {
#pragma omp parallel for schedule(static)
  for (int64_t s = 0; s < packed.sequences; s++) {
    const int64_t begin = packed.offsets[s], end = packed.offsets[s + 1];
    const float inverse = 1.0f / (float)(end - begin);
    for (int64_t t = begin; t < end; t++)
      for (int64_t j = 0; j < d; j++) dx[t * d + j] = dout[s * d + j] * inverse;
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
