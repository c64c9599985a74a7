// gpu_tests LIBTORCH: every CUDA kernel, and the whole engine, on the first GPU against the CPU. With --times
// it measures the kernels instead, a line of JSON each. The folder holds torch/. npm run test:gpu and npm run
// bench:gpu build and run it.

#include <ATen/ATen.h>
#include <dlfcn.h>

#include <chrono>
#include <cstdio>

#include "flash_cases.h"
#include "fused_cases.h"
#include "gpu_times.h"
#include "model_cases.h"
#include "quant_cases.h"

namespace {

using namespace peft;

/// Nothing here refers to CUDA, so that its half of libtorch has to be asked for.
void open_libtorch(const std::string& folder) {
  const std::string file = folder + "/torch/lib/libtorch.so";
  if (::dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw std::runtime_error("libtorch for CUDA does not load: " + std::string(::dlerror()));
  }
  if (!at::hasCUDA() || at::detail::getCUDAHooks().deviceCount() == 0) {
    throw std::runtime_error("libtorch sees no GPU; is the driver new enough for its CUDA?");
  }
}

/// Prints a line a case and counts.
class Checks {
 public:
  void run(const std::vector<cuda::DeviceCase>& cases) {
    for (const cuda::DeviceCase& each : cases) {
      try {
        each.run();
        passed++;
        std::printf("ok   %s\n", each.name.c_str());
      } catch (const std::exception& e) {
        failed++;
        std::printf("FAIL %s: %s\n", each.name.c_str(), e.what());
      }
      std::fflush(stdout);
    }
  }

  int passed = 0, failed = 0;
};

/// The launcher of the first GPU.
cuda::Launcher& open_gpu(const std::string& libtorch, at::Device device) {
  open_libtorch(libtorch);
  at::globalContext().setAllowTF32CuBLAS(false);  // else fp32 products keep ten bits
  const auto start = std::chrono::steady_clock::now();
  cuda::Launcher* const launcher = cuda::launcher_for(device);
  if (launcher == nullptr)
    throw std::runtime_error("the kernels are not available: " + cuda::launcher_failure(device));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("{\"event\":\"ready\",\"computeCapability\":%d,\"seconds\":%.2f}\n",
              cuda::Driver().architecture(device.index()), seconds);
  return *launcher;
}

}  // namespace

int main(int argc, char** argv) {
  Checks checks;
  const at::Device device(at::kCUDA, 0);
  const bool times = argc == 3 && std::string(argv[1]) == "--times";
  try {
    if (argc != 2 && !times) throw std::runtime_error("usage: gpu_tests [--times] LIBTORCH");
    cuda::Launcher& launcher = open_gpu(argv[argc - 1], device);
    if (times) {
      test::time_kernels(device, launcher);
      return 0;
    }
    checks.run(cuda::quant_cases(device, launcher, true));
    checks.run(cuda::fused_cases(device, launcher, true));
    const auto flash = cuda::flash_cases(device, true);
    if (flash.empty()) std::printf("skip flash attention: below compute capability 8.0, or switched off\n");
    checks.run(flash);
    checks.run(cuda::model_cases("cuda", cuda::ModelSize::kReal));
  } catch (const std::exception& e) {
    checks.failed++;
    std::fprintf(stderr, "gpu_tests: %s\n", e.what());
  }
  if (!times) std::printf("gpu: %d passed, %d failed\n", checks.passed, checks.failed);
  return checks.failed == 0 && checks.passed > 0 ? 0 : 1;
}
