#include "cuda/driver.h"

namespace peft::cuda {
namespace {

// Values of cuda.h.
constexpr int kSuccess = 0, kOutOfMemory = 2;
constexpr int kComputeCapabilityMajor = 75, kComputeCapabilityMinor = 76;

}  // namespace

/// Makes a context current for a scope, whatever the thread had before.
class Driver::CurrentContext {
 public:
  CurrentContext(const Driver& driver, void* context) : driver_(driver) {
    driver.check(driver.push_context_(context), "cuCtxPushCurrent");
  }
  ~CurrentContext() {
    void* ignored = nullptr;
    driver_.pop_context_(&ignored);
  }
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

 private:
  const Driver& driver_;
};

Driver::Driver() : library_("libcuda.so.1") {
  if (!library_.opened()) throw EngineError("DEVICE_UNAVAILABLE", "No CUDA driver: " + library_.reason());
  library_.find("cuInit", init_);
  library_.find("cuGetErrorName", error_name_);
  library_.find("cuGetErrorString", error_string_);
  library_.find("cuDeviceGet", device_get_);
  library_.find("cuDeviceGetAttribute", device_attribute_);
  library_.find("cuDevicePrimaryCtxRetain", retain_context_);
  library_.find("cuCtxPushCurrent_v2", push_context_);
  library_.find("cuCtxPopCurrent_v2", pop_context_);
  library_.find("cuModuleLoadData", load_);
  library_.find("cuModuleGetFunction", get_function_);
  library_.find("cuLaunchKernel", launch_);
  check(init_(0), "cuInit");
}

void Driver::check(int result, const std::string& what) const {
  if (result == kSuccess) return;
  const char* name = nullptr;
  const char* text = nullptr;
  error_name_(result, &name);
  error_string_(result, &text);
  const std::string message = what + ": " + (name ? name : "error " + std::to_string(result)) +
                              (text ? std::string(": ") + text : "");
  throw EngineError(result == kOutOfMemory ? "OUT_OF_MEMORY" : "INTERNAL", message);
}

int Driver::architecture(int device) const {
  int handle = 0, major = 0, minor = 0;
  check(device_get_(&handle, device), "cuDeviceGet");
  check(device_attribute_(&major, kComputeCapabilityMajor, handle), "cuDeviceGetAttribute");
  check(device_attribute_(&minor, kComputeCapabilityMinor, handle), "cuDeviceGetAttribute");
  return major * 10 + minor;
}

void* Driver::context(int device) const {
  int handle = 0;
  void* context = nullptr;
  check(device_get_(&handle, device), "cuDeviceGet");
  check(retain_context_(&context, handle), "cuDevicePrimaryCtxRetain");
  return context;
}

Driver::Module::Module(const Driver& driver, void* context, const std::string& binary)
    : driver_(driver), context_(context) {
  const CurrentContext current(driver_, context_);
  driver_.check(driver_.load_(&module_, binary.c_str()), "cuModuleLoadData");
}

void* Driver::Module::function(const std::string& name) const {
  const CurrentContext current(driver_, context_);
  void* function = nullptr;
  driver_.check(driver_.get_function_(&function, module_, name.c_str()), "cuModuleGetFunction " + name);
  return function;
}

void Driver::launch(void* context, void* function, Grid grid, unsigned threads, void* stream,
                    const void* args) const {
  const CurrentContext current(*this, context);
  void* parameters[] = {const_cast<void*>(args)};
  check(launch_(function, grid.x, grid.y, 1, threads, 1, 1, 0, stream, parameters, nullptr),
        "cuLaunchKernel");
}

}  // namespace peft::cuda
