#pragma once

// The little that the kernels need beyond the language: how a kernel and its shared memory are declared,
// number conversions, and sums over a warp. Without an include, so that a libtorch that brings NVRTC but no
// CUDA headers will do. A CPU build (the tests) defines these macros and primitives before it includes this.

#include "kernel_args.h"

#ifdef __CUDACC_RTC__
#define PEFT_KERNEL(name, Args) \
  extern "C" __global__ void __launch_bounds__(peft::cuda::kThreads, 2) name(peft::cuda::Args args)
#define PEFT_SHARED(Type, name) __shared__ Type name

namespace peft::cuda {

__device__ inline float half_bits_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ inline unsigned short float_to_half_bits(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

}  // namespace peft::cuda
#endif

namespace peft::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

/// N values that are read or written in as few accesses as their alignment allows.
template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T v[N];
};

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Half x) { return half_bits_to_float(x.bits); }
__device__ inline float to_float(Bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

/// Rounds to nearest, ties to even.
template <typename T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline Half from_float<Half>(float x) {
  return Half{float_to_half_bits(x)};
}
template <>
__device__ inline Bfloat16 from_float<Bfloat16>(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return Bfloat16{0x7fc0};
  return Bfloat16{static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

/// The larger of the two; NaN if either is.
__device__ inline float larger(float a, float b) { return a > b || a != a ? a : b; }

/// The sums over a warp of Count values that each lane holds, Count a power of two up to 32, in Count +
/// log2(32 / Count)
/// - 1 exchanges. Lane l is given the sum of value l / (32 / Count). Spoils `value`.
template <int Count>
__device__ inline float warp_sums(float (&value)[Count], int lane) {
  int width = 16;
#pragma unroll
  for (int held = Count; held > 1; held /= 2, width /= 2) {
    const bool upper = lane & width;
#pragma unroll
    for (int i = 0; i < held / 2; i++) {
      const float given = upper ? value[i] : value[i + held / 2];
      const float kept = upper ? value[i + held / 2] : value[i];
      value[i] = kept + __shfl_xor_sync(kWholeWarp, given, width);
    }
  }
  for (; width > 0; width /= 2) value[0] += __shfl_xor_sync(kWholeWarp, value[0], width);
  return value[0];
}

}  // namespace peft::cuda
