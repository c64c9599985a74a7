#include "cuda/launcher.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>

#include "cuda/kernel_args.h"
#include "cuda/kernel_cache.h"
#include "cuda/nvrtc.h"

namespace peft::cuda {
namespace {

/// The cudaStream_t that libtorch queues its own work on.
template <typename Stream>
void* native_stream(const Stream& stream) {
  if constexpr (requires { stream.native_handle(); }) {
    return stream.native_handle();
  } else {
    throw EngineError("DEVICE_UNAVAILABLE", "This libtorch does not hand out its CUDA streams");
  }
}

std::string libtorch_file() {
  Dl_info info = {};
  ::dladdr(reinterpret_cast<void*>(&c10::impl::device_guard_impl_registry), &info);
  return info.dli_fname == nullptr ? "" : info.dli_fname;
}

/// Machine code where this NVRTC knows the architecture, else PTX for the newest one below it.
Nvrtc::Options options_for(const Nvrtc& nvrtc, int architecture) {
  const std::vector<int>& known = nvrtc.architectures();
  if (std::find(known.begin(), known.end(), architecture) != known.end()) {
    return {.architecture = architecture, .machine_code = true};
  }
  const auto above = std::upper_bound(known.begin(), known.end(), architecture);
  if (above == known.begin()) {
    throw EngineError("DEVICE_UNAVAILABLE",
                      "NVRTC " + nvrtc.version() + " does not compile for compute capability " +
                          std::to_string(architecture / 10) + "." + std::to_string(architecture % 10));
  }
  return {.architecture = *(above - 1), .machine_code = false};
}

class GpuLauncher final : public Launcher {
 public:
  /// Compiles and loads everything at once, so that what is wrong shows here and not in the middle of a step.
  explicit GpuLauncher(c10::Device device) : device_(device), context_(driver_.context(device.index())) {
    native_stream(current_stream());
    const Nvrtc nvrtc(nvrtc_folders(libtorch_file()));
    const Nvrtc::Options options = options_for(nvrtc, driver_.architecture(device.index()));
    for (const KernelSource& program : kernel_programs()) load(nvrtc, options, program);
  }

 protected:
  void run(const char* program, const std::string& kernel, Grid grid, const void* args, size_t) override {
    driver_.launch(context_, function_of(program, kernel), grid, kThreads, native_stream(current_stream()),
                   args);
  }

 private:
  c10::Stream current_stream() const {
    return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  }

  void* function_of(const char* program, const std::string& kernel) {
    const std::lock_guard<std::mutex> lock(mutex_);
    void*& function = functions_[kernel];
    if (function == nullptr) function = modules_.at(program).function(kernel);
    return function;
  }

  void load(const Nvrtc& nvrtc, const Nvrtc::Options& options, const KernelSource& program) {
    const std::string target =
        (options.machine_code ? "sm_" : "compute_") + std::to_string(options.architecture);
    std::string text = nvrtc.version() + target + program.name + program.text;
    for (const KernelSource& header : kernel_headers()) text += header.text;
    const std::string file = KernelCache::key(text) + "-" + target;
    if (const std::string binary = cache_.read(file); !binary.empty()) {
      try {
        modules_.emplace(program.name, Driver::Module(driver_, context_, binary));
        return;
      } catch (const EngineError&) {
        // A file that was damaged: it is written anew below.
      }
    }
    const std::string binary = nvrtc.compile(program, options).binary;
    modules_.emplace(program.name, Driver::Module(driver_, context_, binary));
    cache_.write(file, binary);
  }

  c10::Device device_;
  Driver driver_;
  void* context_;
  KernelCache cache_;
  std::map<std::string, Driver::Module> modules_;
  std::mutex mutex_;  // encoders run on threads of their own
  std::map<std::string, void*> functions_;
};

struct Slot {
  std::unique_ptr<Launcher> launcher;
  std::string failure;
};

bool switched_off() {
  const char* const value = std::getenv("PEFT_TRAIN_CUDA_KERNELS");
  return value != nullptr && std::string(value) == "off";
}

const Slot& slot_for(c10::Device device) {
  static std::mutex mutex;
  static std::map<int, Slot> slots;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = slots.find(device.index());
  if (found != slots.end()) return found->second;
  Slot& slot = slots[device.index()];
  if (switched_off()) return slot;
  const c10::DeviceGuard guard(device);
  try {
    slot.launcher = std::make_unique<GpuLauncher>(device);
  } catch (const std::exception& e) {
    slot.failure = e.what();
    TORCH_WARN("The CUDA kernels are not used, slower calls are: ", slot.failure);
  }
  return slot;
}

}  // namespace

Launcher* launcher_for(c10::Device device) {
  return device.is_cuda() ? slot_for(device).launcher.get() : nullptr;
}

std::string launcher_failure(c10::Device device) { return device.is_cuda() ? slot_for(device).failure : ""; }

}  // namespace peft::cuda
