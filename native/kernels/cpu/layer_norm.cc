#include "kernels/cpu/kernels_internal.h"
#include "kernels/cpu/philox.h"

namespace peft::cpu::PEFT_KERNEL_NS {
namespace {

struct Moments {
  float mean, rstd;
};

/// Two passes: the variance of differences from the mean loses no digits.
inline Moments moments(const float* y, int64_t d, float eps) {
  const int64_t whole = d / kLanes * kLanes;
  Vec s{};
  for (int64_t j = 0; j < whole; j += kLanes) s += load(y + j);
  float total = sum(s);
  for (int64_t j = whole; j < d; j++) total += y[j];
  const float mean = total / (float)d;
  Vec q{};
  for (int64_t j = 0; j < whole; j += kLanes) {
    const Vec c = load(y + j) - mean;
    q += c * c;
  }
  float squares = sum(q);
  for (int64_t j = whole; j < d; j++) squares += (y[j] - mean) * (y[j] - mean);
  return {mean, 1.0f / __builtin_sqrtf(squares / (float)d + eps)};
}

inline void normalize(const float* y, Moments m, int64_t d, const float* gamma, const float* beta,
                      float* out) {
  const int64_t whole = d / kLanes * kLanes;
  for (int64_t j = 0; j < whole; j += kLanes) {
    store(out + j, (load(y + j) - m.mean) * m.rstd * load(gamma + j) + load(beta + j));
  }
  for (int64_t j = whole; j < d; j++) out[j] = (y[j] - m.mean) * m.rstd * gamma[j] + beta[j];
}

}  // namespace

void embed(const int32_t* ids, const int32_t* positions, int64_t tokens, int64_t d, const float* word,
           const float* position, const float* type, const float* gamma, const float* beta, float eps,
           const Dropout& dropout, float* out) {
#pragma omp parallel
  {
    Scratch scratch(padded(d, 64));
    float* keep = scratch.data;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
      const float* w = word + (int64_t)ids[t] * d;
      const float* p = position + (int64_t)positions[t] * d;
      float* row = out + t * d;
      for (int64_t j = 0; j < d; j++) row[j] = w[j] + type[j] + p[j];
      normalize(row, moments(row, d, eps), d, gamma, beta, row);
      if (dropout.active()) {
        dropout_row(dropout, (uint32_t)t, d, keep);
        for (int64_t j = 0; j < d; j++) row[j] *= keep[j];
      }
    }
  }
}

void residual_layer_norm(float* y, const float* bias, const float* residual, int64_t tokens, int64_t d,
                         const float* gamma, const float* beta, float eps, const Dropout& dropout, float* out,
                         float* mean, float* rstd) {
#pragma omp parallel
  {
    Scratch scratch(padded(d, 64));
    float* keep = scratch.data;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
      float* row = y + t * d;
      const float* r = residual + t * d;
      if (dropout.active()) {
        dropout_row(dropout, (uint32_t)t, d, keep);
        for (int64_t j = 0; j < d; j++) row[j] = (row[j] + bias[j]) * keep[j] + r[j];
      } else {
        for (int64_t j = 0; j < d; j++) row[j] = row[j] + bias[j] + r[j];
      }
      const Moments m = moments(row, d, eps);
      mean[t] = m.mean;
      rstd[t] = m.rstd;
      normalize(row, m, d, gamma, beta, out + t * d);
    }
  }
}

void layer_norm_apply(const float* y, const float* mean, const float* rstd, int64_t tokens, int64_t d,
                      const float* gamma, const float* beta, float* out) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < tokens; t++) normalize(y + t * d, {mean[t], rstd[t]}, d, gamma, beta, out + t * d);
}

void layer_norm_backward(const float* dout, const float* y, const float* mean, const float* rstd,
                         int64_t tokens, int64_t d, const float* gamma, const Dropout& dropout, float* dy,
                         float* dmasked) {
  const int64_t whole = d / kLanes * kLanes;
#pragma omp parallel
  {
    Scratch scratch(padded(d, 64));
    float* keep = scratch.data;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
      const float *g = dout + t * d, *row = y + t * d;
      const float mu = mean[t], inv = rstd[t];
      Vec s1{}, s2{};
      for (int64_t j = 0; j < whole; j += kLanes) {
        const Vec dx = load(g + j) * load(gamma + j);
        s1 += dx;
        s2 += dx * ((load(row + j) - mu) * inv);
      }
      float a = sum(s1), b = sum(s2);
      for (int64_t j = whole; j < d; j++) {
        const float dx = g[j] * gamma[j];
        a += dx;
        b += dx * ((row[j] - mu) * inv);
      }
      a /= (float)d;
      b /= (float)d;
      float* to = dy + t * d;
      for (int64_t j = 0; j < d; j++) to[j] = (g[j] * gamma[j] - a - (row[j] - mu) * inv * b) * inv;
      if (dmasked != nullptr) {
        dropout_row(dropout, (uint32_t)t, d, keep);
        for (int64_t j = 0; j < d; j++) dmasked[t * d + j] = to[j] * keep[j];
      }
    }
  }
}

void dropout(const float* x, int64_t tokens, int64_t d, const Dropout& dropout, bool accumulate, float* out) {
#pragma omp parallel
  {
    Scratch scratch(padded(d, 64));
    float* keep = scratch.data;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
      dropout_row(dropout, (uint32_t)t, d, keep);
      const float* row = x + t * d;
      float* to = out + t * d;
      if (accumulate) {
        for (int64_t j = 0; j < d; j++) to[j] += row[j] * keep[j];
      } else {
        for (int64_t j = 0; j < d; j++) to[j] = row[j] * keep[j];
      }
    }
  }
}

}  // namespace peft::cpu::PEFT_KERNEL_NS
