#include <filesystem>
#include <fstream>

#include "check.h"
#include "cuda/kernel_args.h"
#include "cuda/kernel_cache.h"
#include "cuda/kernel_source.h"
#include "cuda/nvrtc.h"
#include "cuda/quant_kernels.h"
#include "cuda/quant_linear.h"
#include "fake_driver.h"
#include "fake_gpu.h"
#include "fused_cases.h"
#include "quant_cases.h"
#include "scoped.h"
#include "shim.h"

// The host side of the CUDA kernels without a GPU: what it launches runs on the CPU through the shim, on CPU
// tensors.

namespace peft::test {
namespace {

namespace fs = std::filesystem;

/// That the named program holds the kernel, at least its name up to the type.
void check_program(const std::string& program, const std::string& kernel) {
  for (const cuda::KernelSource& each : cuda::kernel_programs()) {
    if (program != each.name) continue;
    const std::string stem = kernel.substr(0, kernel.rfind('_') + 1);
    check(std::string(each.text).find(stem) != std::string::npos, program + " has no " + kernel);
    return;
  }
  throw std::runtime_error("no kernel file " + program);
}

class ShimLauncher final : public cuda::Launcher {
 protected:
  void run(const char* program, const std::string& kernel, cuda::Grid grid, const void* args,
           size_t bytes) override {
    check_program(program, kernel);
    const shim::Kernel& found = shim::find_kernel(0, kernel);
    check(bytes == found.args_size, kernel + " is handed another struct");
    shim::launch(found, {grid.x, grid.y, 1}, cuda::kThreads, args, shim::Order::kWarpGreedy);
  }
};

/// Through Driver and a stand-in for libcuda.so.1.
class FakeDriverLauncher final : public cuda::Launcher {
 public:
  explicit FakeDriverLauncher(const cuda::Driver& driver)
      : driver_(driver), context_(driver.context(0)), module_(driver, context_, "machine code") {}

 protected:
  void run(const char*, const std::string& kernel, cuda::Grid grid, const void* args, size_t) override {
    driver_.launch(context_, module_.function(kernel), grid, cuda::kThreads, kStream, args);
  }

 private:
  static inline int stream_ = 0;
  static inline void* const kStream = &stream_;

  const cuda::Driver& driver_;
  void* context_;
  cuda::Driver::Module module_;
};

void run_all(cuda::Launcher& launcher) {
  for (const auto& cases :
       {cuda::quant_cases(at::kCPU, launcher, false), cuda::fused_cases(at::kCPU, launcher, false)}) {
    for (const cuda::DeviceCase& each : cases) {
      try {
        each.run();
      } catch (const std::exception& e) {
        throw std::runtime_error(each.name + ": " + e.what());
      }
    }
  }
}

}  // namespace

PEFT_TEST(cuda_kernels_agree_with_the_reference_through_their_host_side) {
  ShimLauncher launcher;
  run_all(launcher);
}

PEFT_TEST(cuda_kernels_agree_with_the_reference_through_the_driver_interface) {
  if (cuda::SharedLibrary("libcuda.so.1").opened()) return;  // a real driver: npm run test:gpu
  check_error([] { cuda::Driver(); }, "DEVICE_UNAVAILABLE", "No CUDA driver");
  const FakeDriver fake;
  const cuda::Driver driver;
  check(driver.architecture(0) == 86, "the compute capability of the device");
  check_error([&] { (void)driver.architecture(5); }, "INTERNAL", "CUDA_ERROR_FAKE");
  FakeDriverLauncher launcher(driver);
  run_all(launcher);
  check(fake.launches() > 0 && fake.contexts_pushed() == 0, "contexts are put back");
  check_error([&] { cuda::Driver::Module(driver, driver.context(0), ""); }, "OUT_OF_MEMORY",
              "cuModuleLoadData");
}

PEFT_TEST(compiled_kernels_are_kept_on_disk) {
  const TemporaryFolder folder;
  const cuda::KernelCache cache(folder.path + "/deeper/kernels");
  const std::string key = cuda::KernelCache::key("source");
  check(key == cuda::KernelCache::key("source") && key != cuda::KernelCache::key("source "),
        "keys follow the text");
  check(cache.read(key).empty(), "nothing yet");
  const std::string binary(
      "\x7f"
      "ELF\0\1\2",
      7);
  cache.write(key, binary);
  check(cache.read(key) == binary, "what was written");
  for (const auto& entry : fs::directory_iterator(folder.path + "/deeper/kernels")) {
    check(entry.path().filename() == key, "a temporary file was left");
  }
  std::ofstream(folder.path + "/file") << "in the way";
  const cuda::KernelCache blocked(folder.path + "/file/kernels");
  blocked.write(key, binary);
  check(blocked.read(key).empty(), "a folder that cannot be made is no error");
}

PEFT_TEST(nvrtc_is_looked_for_beside_libtorch) {
  const TemporaryFolder folder;
  for (const char* each : {"/torch/lib", "/nvidia/cu13/lib", "/nvidia/cuda_nvrtc/lib"}) {
    fs::create_directories(folder.path + each);
  }
  const std::vector<std::string> expected = {folder.path + "/torch/lib", folder.path + "/nvidia/cu13/lib",
                                             folder.path + "/nvidia/cuda_nvrtc/lib"};
  check(cuda::nvrtc_folders(folder.path + "/torch/lib/libc10.so") == expected, "the folders of a wheel");
  const Variable named("PEFT_TRAIN_NVRTC", folder.path + "/nvidia/cu13/lib");
  std::ofstream(folder.path + "/nvidia/cu13/lib/libnvrtc.so.13") << "no library";
  check_error([] { cuda::Nvrtc nvrtc({}); }, "DEVICE_UNAVAILABLE", "/nvidia/cu13/lib: ");
}

PEFT_TEST(the_gpu_launcher_compiles_once_and_falls_back) {
  if (cuda::SharedLibrary("libcuda.so.1").opened() && !FakeDriver::loaded()) return;  // npm run test:gpu
  const FakeDriver fake;
  const FakeGpu gpu;
  const TemporaryFolder cache;
  const Variable folder("PEFT_TRAIN_CACHE", cache.path), compiler("PEFT_TRAIN_NVRTC", PEFT_FAKE_LIBNVRTC);
  const auto programs = static_cast<int>(cuda::kernel_programs().size());
  const int compiled = gpu.compiled();  // by other tests
  const auto on = [](int index) { return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index)); };
  const auto files = [&] {
    std::vector<fs::path> all;
    for (const auto& entry : fs::directory_iterator(cache.path + "/kernels")) all.push_back(entry.path());
    return all;
  };

  cuda::Launcher* const first = cuda::launcher_for(on(0));
  check(first != nullptr && first == cuda::launcher_for(on(0)), cuda::launcher_failure(on(0)));
  check(gpu.compiled() == compiled + programs && files().size() == cuda::kernel_programs().size(),
        "compiled once, and kept");
  check(fake.loaded_module() == "pooling.cu for sm_86",
        "machine code of the device, not " + fake.loaded_module());
  const int before = fake.launches();
  run_all(*first);
  check(fake.launches() > before, "launched by the GPU's launcher");

  check(cuda::launcher_for(on(1)) != nullptr && gpu.compiled() == compiled + programs,
        "another device takes what is kept");
  for (const fs::path& file : files()) std::ofstream(file) << "damaged";
  check(cuda::launcher_for(on(2)) != nullptr && gpu.compiled() == compiled + 2 * programs,
        "what is damaged is compiled again");
  std::string text;
  std::ifstream(files().front()) >> text;
  check(!text.empty() && text != "damaged", "and kept again");

  check(cuda::launcher_for(on(3)) == nullptr, "a device that is too old");
  check(cuda::launcher_failure(on(3)).find("compute capability 7.2") != std::string::npos,
        cuda::launcher_failure(on(3)));
  check(cuda::make_int8_linear({}, 0, on(3), Int8Gradient::kExact) == nullptr,
        "the caller is left to the plain version");
  check(cuda::launcher_for(on(4)) != nullptr, cuda::launcher_failure(on(4)));
  check(fake.loaded_module() == "pooling.cu for compute_90",
        "PTX for a device that is newer than the compiler");

  const Variable off("PEFT_TRAIN_CUDA_KERNELS", "off");
  check(cuda::launcher_for(on(5)) == nullptr && cuda::launcher_failure(on(5)).empty(), "switched off");
}

PEFT_TEST(the_cpu_has_no_launcher) {
  check(cuda::launcher_for(at::kCPU) == nullptr && cuda::launcher_failure(at::kCPU).empty(), "no launcher");
}

}  // namespace peft::test
