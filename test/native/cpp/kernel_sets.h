#pragma once

#include <ATen/Context.h>

#include <string>

#include "kernels/cpu/table.h"

namespace peft::test {

/// f(kernels, name) for every set that this processor runs. What f draws is the same for all, so that no
/// processor has numbers of its own to round.
template <typename F>
void for_each_set(F f) {
  for (int i = 0; const CpuKernels* const kernels = cpu_kernel_set(i); i++) {
    at::manual_seed(17);
    f(*kernels, std::string(kernels->name));
  }
}

}  // namespace peft::test
