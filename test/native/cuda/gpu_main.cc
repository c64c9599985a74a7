// gpu_tests LIBTORCH: every CUDA kernel on the first GPU against plain ATen calls on the CPU, and how long
// they take. The folder holds torch/. npm run test:gpu builds and runs it.

#include <ATen/ATen.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "cuda/quant_kernels.h"
#include "quant_cases.h"
#include "quant_reference.h"
#include "weights/code_book.h"
#include "weights/frozen_linear.h"

namespace {

using namespace peft;

constexpr int kRuns = 200;

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

/// Microseconds of one call: many are queued, and reading a number waits for them.
template <typename Run>
double microseconds(const at::Tensor& result, const Run& run) {
  for (int i = 0; i < 20; i++) run();
  (void)result.flatten()[0].item<float>();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kRuns; i++) run();
  (void)result.flatten()[0].item<float>();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / kRuns;
}

void time_products(at::Device device, cuda::Launcher& launcher) {
  std::printf("\nOne product in microseconds: x [T, in] with W [out, in], fp16\n");
  std::printf("%5s %5s %5s  %10s  %14s  %10s  %10s\n", "T", "in", "out", "NF4", "NF4 plain ATen", "int8",
              "fp16");
  for (const auto& [in, out] :
       {std::pair<int64_t, int64_t>{384, 1536}, {1536, 384}, {1024, 4096}, {4096, 1024}}) {
    const BlockwiseWeight b = quantize_blockwise(at::randn({out, in}), {WeightFormat::kNf4, 64, true, 0, 6});
    cuda::FourBitWeight w;
    w.rows = out, w.columns = in, w.block_size = 64;
    w.codes = b.codes.to(device);
    w.table = at::tensor(at::ArrayRef<float>(four_bit_code_book(b.format).value)).to(device);
    w.absmax_codes = b.absmax_codes.to(device);
    w.absmax_table = at::tensor(at::ArrayRef<float>(dynamic_code_book().value)).to(device);
    w.nested_absmax = b.nested_absmax.to(device);
    w.absmax_offset = b.nested_offset;
    const RowInt8Weight rows = quantize_rows(at::randn({out, in}));
    const cuda::Int8Weight w8{rows.codes.to(device), rows.absmax.to(device)};
    const at::Tensor plain = at::randn({out, in}).to(device, at::kHalf);
    for (const int64_t batch : {1, 4, 16, 64, 1024}) {
      const at::Tensor x = at::randn({batch, in}).to(device, at::kHalf);
      at::Tensor y = at::empty({batch, out}, x.options());
      const double four = microseconds(y, [&] { cuda::linear(launcher, w, x, at::Tensor(), y); });
      const double slow = microseconds(y, [&] { cuda::reference::linear(w, x, at::Tensor(), y); });
      const double eight = microseconds(y, [&] { cuda::linear(launcher, w8, x, at::Tensor(), 6, y); });
      const double half = microseconds(y, [&] { at::mm_out(y, x, plain.t()); });
      std::printf("%5ld %5ld %5ld  %10.1f  %14.1f  %10.1f  %10.1f\n", static_cast<long>(batch),
                  static_cast<long>(in), static_cast<long>(out), four, slow, eight, half);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  int passed = 0, failed = 0;
  try {
    if (argc != 2) throw std::runtime_error("usage: gpu_tests LIBTORCH");
    open_libtorch(argv[1]);
    const at::Device device(at::kCUDA, 0);
    at::globalContext().setAllowTF32CuBLAS(false);  // else fp32 products keep ten bits
    const auto start = std::chrono::steady_clock::now();
    cuda::Launcher* const launcher = cuda::launcher_for(device);
    if (launcher == nullptr)
      throw std::runtime_error("the kernels are not available: " + cuda::launcher_failure(device));
    std::printf("Compute capability %d, kernels ready after %.2f s\n", cuda::Driver().architecture(0),
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    for (const cuda::QuantCase& each : cuda::quant_cases(device, *launcher, true)) {
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
    if (failed == 0) time_products(device, *launcher);
  } catch (const std::exception& e) {
    failed++;
    std::fprintf(stderr, "gpu_tests: %s\n", e.what());
  }
  std::printf("gpu: %d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
