#include <cmath>

#include "checks.h"
#include "kernel_args.h"
#include "weights.h"

// The shim itself: what it must refuse, and that its orders differ where it counts.

namespace peft::cuda {

struct ProbeArgs {
  int variant;
  float* out;
};
struct ProbeShared {
  float sum[8];
};

namespace {

/// The sum over a block of one number a thread. Without the second barrier a fast warp may begin the next sum
/// while a slow one still reads this one.
float block_sum(float (&slots)[8], float value, bool second_barrier) {
  for (int width = 16; width > 0; width /= 2) value += __shfl_xor_sync(0xffffffffu, value, width);
  if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
  __syncthreads();
  float all = 0;
  for (const float each : slots) all += each;
  if (second_barrier) __syncthreads();
  return all;
}

}  // namespace
}  // namespace peft::cuda

constexpr int kKernelSet = -1;

PEFT_KERNEL(probe_sums, ProbeArgs) {
  PEFT_SHARED(peft::cuda::ProbeShared, shared);
  float all = 0;
  for (int round = 1; round <= 3; round++) {
    all += peft::cuda::block_sum(shared.sum, static_cast<float>(round), args.variant == 1);
  }
  args.out[threadIdx.x] = all;
}

PEFT_KERNEL(probe_faults, ProbeArgs) {
  PEFT_SHARED(peft::cuda::ProbeShared, shared);
  const bool some = threadIdx.x < 100;
  float* const slots = shared.sum;
  switch (args.variant) {
    case 0:
      if (some) __syncthreads();
      break;
    case 1:
      if (some) {
        __syncthreads();
      } else {
        __syncthreads();
      }
      break;
    case 2:
      slots[8 + threadIdx.x % 2] = 1;
      break;
    case 3:
      if (threadIdx.x % 32 < 31) __shfl_xor_sync(0xffffffffu, 1.0f, 1);
      break;
    case 4:
      __shfl_xor_sync(0x0000ffffu, 1.0f, 1);
      break;
    default:
      args.out[threadIdx.x] = slots[threadIdx.x % 8];
      break;
  }
}

namespace peft::cuda {
namespace {

constexpr float kSums = (1 + 2 + 3) * kThreads;

/// What the first thread whose sum is wrong has, else kSums.
float sums(int variant, shim::Order order) {
  Guarded<float> out(kThreads);
  const ProbeArgs args = {variant, out.data()};
  shim::launch(shim::find_kernel(-1, "probe_sums"), {1, 1, 1}, kThreads, &args, order);
  for (size_t i = 0; i < out.size(); i++) {
    if (out[i] != kSums) return out[i];
  }
  return kSums;
}

bool faults(const char* kernel, int variant, const std::string& part) {
  Guarded<float> out(kThreads);
  const ProbeArgs args = {variant, out.data()};
  for (const shim::Order order : shim::kOrders) {
    try {
      shim::launch(shim::find_kernel(-1, kernel), {1, 1, 1}, kThreads, &args, order);
      return false;
    } catch (const shim::Fault& fault) {
      if (std::string(fault.what()).find(part) == std::string::npos) return false;
    }
  }
  return true;
}

void check_halves() {
  for (unsigned bits = 0; bits < 0x10000; bits++) {
    const float value = shim::half_to_float(static_cast<uint16_t>(bits));
    const uint16_t back = shim::float_to_half(value);
    require(std::isnan(value) ? (back & 0x7fff) > 0x7c00 : back == bits, "half precision back and forth");
    if ((bits & 0x7fff) >= 0x7bff) continue;
    const float next = shim::half_to_float(static_cast<uint16_t>(bits + 1));
    const uint16_t even = static_cast<uint16_t>(bits % 2 == 0 ? bits : bits + 1);
    require(shim::float_to_half((value + next) / 2) == even, "half precision ties go to even");
    require(static_cast<double>(shim::half_to_float(even)) == rounded_to_half((value + next) / 2),
            "rounded_to_half");
  }
  require(shim::half_to_float(0x3c01) == 1 + 0x1p-10f && shim::half_to_float(0x0001) == 0x1p-24f &&
              shim::half_to_float(0x7bff) == 65504 && shim::float_to_half(65519.9f) == 0x7bff &&
              shim::float_to_half(-65520.0f) == 0xfc00,
          "half precision of known values");
  require(rounded_to_bfloat16(1 + 0x1p-8) == 1 && rounded_to_bfloat16(1 + 0x3p-8) == 1 + 0x1p-6 &&
              rounded_to_bfloat16(3.4e38) == INFINITY,
          "bfloat16 of known values");
}

}  // namespace

void check_shim() {
  for (const shim::Order order : shim::kOrders) {
    require(sums(1, order) == kSums, std::string("block sums in the order ") + shim::order_name(order));
  }
  require(sums(0, shim::Order::kForward) == kSums, "the missing barrier does not show going forward");
  require(sums(0, shim::Order::kWarpGreedy) != kSums, "a greedy warp shows the missing barrier");
  // By the order, others wait in vain or have ended already.
  require(faults("probe_faults", 0, "thread"), "a barrier for some threads");
  require(faults("probe_faults", 1, "different barriers"), "two barriers at once");
  require(faults("probe_faults", 2, "beyond shared memory"), "a write beyond shared memory");
  require(faults("probe_faults", 3, "deadlock"), "an exchange without one lane");
  require(faults("probe_faults", 4, "part of a warp"), "an exchange among half a warp");
  Guarded<float> out(kThreads);
  const ProbeArgs args = {5, out.data()};
  shim::launch(shim::find_kernel(-1, "probe_faults"), {1, 1, 1}, kThreads, &args, shim::Order::kForward);
  require(std::isnan(out[0]) && std::isnan(out[kThreads - 1]), "unwritten shared memory is NaN");
  check_halves();
}

}  // namespace peft::cuda
