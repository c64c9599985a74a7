#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

// Runs the text of a CUDA kernel on the CPU: a thread of a block is a fiber, a barrier is a point where the
// scheduler goes on with another one, and the order in which it picks is the test's to choose, because a
// missing barrier shows in some orders only. Include it before a .cu file; every PEFT_KERNEL there is then
// found by `find_kernel`.

namespace shim {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
/// Which fiber goes next: by number, downwards, at random, or one warp as far as it gets before any other.
enum class Order { kForward, kReverse, kShuffled, kWarpGreedy, kWarpGreedyReverse };
constexpr Order kOrders[] = {Order::kForward, Order::kReverse, Order::kShuffled, Order::kWarpGreedy,
                             Order::kWarpGreedyReverse};
const char* order_name(Order order);

/// What a GPU would hang on, or would do without a word: divergent barriers, writes beyond shared memory.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Kernel {
  std::string name;
  size_t args_size = 0;
  void (*call)(const void* args) = nullptr;
};
/// A set is one version of all kernels: 0 as they are, others with a change. Throws where there is none.
const Kernel& find_kernel(int set, const std::string& name);
void launch(const Kernel& kernel, Index grid, unsigned threads, const void* args, Order order);

// What the macros below come down to.

extern Index thread_index, block_index, block_size, grid_size;
void sync_threads(int line);
/// Every lane of the warp gives a word and sees those of all lanes.
const uint32_t* exchange(unsigned mask, uint32_t word, int line);
/// `bytes` of the block's shared memory, filled with NaN when the block starts.
void* shared_memory(const void* site, size_t bytes);

template <typename T, typename Site>
T& shared(Site) {
  static const char site = 0;
  return *static_cast<T*>(shared_memory(&site, sizeof(T)));
}

struct Registration {
  Registration(int set, Kernel kernel);
};

template <typename T>
T shuffle_xor(unsigned mask, T value, int width, int line) {
  static_assert(sizeof(T) == 4);
  uint32_t word;
  std::memcpy(&word, &value, 4);
  word = exchange(mask, word, line)[(thread_index.x % 32) ^ static_cast<unsigned>(width)];
  std::memcpy(&value, &word, 4);
  return value;
}

inline unsigned ballot(unsigned mask, bool vote, int line) {
  const uint32_t* votes = exchange(mask, vote ? 1 : 0, line);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; lane++) bits |= votes[lane] << lane;
  return bits;
}

float half_to_float(uint16_t bits);
uint16_t float_to_half(float value);

}  // namespace shim

#define __device__
#define threadIdx (::shim::thread_index)
#define blockIdx (::shim::block_index)
#define blockDim (::shim::block_size)
#define gridDim (::shim::grid_size)
#define __syncthreads() ::shim::sync_threads(__LINE__)
#define __syncwarp() static_cast<void>(::shim::exchange(0xffffffffu, 0, __LINE__))
#define __shfl_xor_sync(mask, value, width) ::shim::shuffle_xor(mask, value, width, __LINE__)
#define __ballot_sync(mask, vote) ::shim::ballot(mask, vote, __LINE__)
#define PEFT_SHARED(Type, name) Type& name = ::shim::shared<Type>([] {})
#define PEFT_KERNEL(name, Args)                                                                   \
  static void name(peft::cuda::Args args);                                                        \
  static const ::shim::Registration register_##name(                                              \
      kKernelSet, {#name, sizeof(peft::cuda::Args),                                               \
                   [](const void* args) { name(*static_cast<const peft::cuda::Args*>(args)); }}); \
  static void name(peft::cuda::Args args)

// Plain operations: this code is compiled without fused multiply-add.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
namespace peft::cuda {
inline float half_bits_to_float(unsigned short bits) { return ::shim::half_to_float(bits); }
inline unsigned short float_to_half_bits(float x) { return ::shim::float_to_half(x); }
}  // namespace peft::cuda
