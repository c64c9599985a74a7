#include "kernels/cpu/kernels_internal.h"
#include "kernels/cpu/simd.h"

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

struct Normal {
  Vec cdf;          // P(N <= x)
  Vec exponential;  // e^(-x^2 / 2)
};

/// The normal distribution function through erfc(x / sqrt 2) = e^(-x^2/2) t P(t), t = 1 / (1 + 0.28 |x|). P
/// is our own weighted least-squares fit of degree 5: the fit is off by 1.2e-8, fp32 rounding by about 1e-7.
inline Normal normal(Vec x) {
  const Vec a = (Vec)((IntVec)x & 0x7fffffff);
  const Vec t = reciprocal(1.0f + 0.28f * a);
  Vec p = splat(-0.21266112f);
  p = p * t + 0.78415024f;
  p = p * t - 0.4813649f;
  p = p * t + 0.5439654f;
  p = p * t + 0.13245084f;
  p = p * t + 0.23345954f;
  const Vec e = exp(-0.5f * a * a);
  const Vec tail = 0.5f * e * t * p;
  return {x < 0.0f ? tail : 1.0f - tail, e};
}

inline Vec gelu(Vec x) { return x * normal(x).cdf; }

constexpr float kInverseSqrt2Pi = 0.3989422804014327f;

}  // namespace

void bias_gelu(float* u, const float* bias, int64_t tokens, int64_t d, float* out) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < tokens; t++) {
    float *row = u + t * d, *to = out + t * d;
    for (int64_t j = 0; j < d; j += kLanes) {
      const int64_t n = d - j;
      if (n >= kLanes) {
        const Vec x = load(row + j) + load(bias + j);
        store(row + j, x);
        store(to + j, gelu(x));
      } else {
        const Vec x = load_first(row + j, n) + load_first(bias + j, n);
        store_first(row + j, x, n);
        store_first(to + j, gelu(x), n);
      }
    }
  }
}

void gelu_backward(float* dout, const float* u, int64_t tokens, int64_t d, float* out) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < tokens; t++) {
    const float* row = u + t * d;
    float* grad = dout + t * d;
    for (int64_t j = 0; j < d; j += kLanes) {
      const int64_t n = d - j;
      const Vec x = n >= kLanes ? load(row + j) : load_first(row + j, n);
      const Vec g = n >= kLanes ? load(grad + j) : load_first(grad + j, n);
      const Normal p = normal(x);
      const Vec dx = g * (p.cdf + x * p.exponential * kInverseSqrt2Pi);
      if (n >= kLanes) {
        store(grad + j, dx);
        if (out != nullptr) store(out + t * d + j, x * p.cdf);
      } else {
        store_first(grad + j, dx, n);
        if (out != nullptr) store_first(out + t * d + j, x * p.cdf, n);
      }
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
