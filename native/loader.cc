#include <dlfcn.h>
#include <napi.h>
#include <unistd.h>

#include <string>

// The .node itself: it links nothing, is handed a libtorch folder, and brings libtorch and then the engine
// into the process by absolute path. The engine's needs are met by SONAME, so no rpath and no LD_LIBRARY_PATH
// is involved.

namespace {

#ifdef __APPLE__
constexpr const char* kTorchLibraries[] = {"libtorch.dylib", "libtorch_cpu.dylib"};
#else
constexpr const char* kTorchLibraries[] = {"libtorch.so", "libtorch_cpu.so"};
#endif

Napi::Error load_error(Napi::Env env, const char* code, const std::string& message, const std::string& hint) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", code);
  error.Set("hint", hint);
  return error;
}

/// libtorch.so brings CUDA in too; where CUDA's libraries are not installed it does not load, and the CPU
/// half does. Returns why CUDA was left out, nothing where it was not.
std::string open_libtorch(Napi::Env env, const std::string& folder) {
  std::string reason;
  for (const char* name : kTorchLibraries) {
    const std::string path = folder + "/torch/lib/" + name;
    if (::access(path.c_str(), R_OK) != 0) continue;
    if (::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return reason;
    reason = ::dlerror();
  }
  if (reason.empty()) {
    throw load_error(env, "LIBTORCH_MISSING", "No libtorch in " + folder + "/torch/lib",
                     "Run: npx peft-train setup");
  }
  throw load_error(env, "LIBTORCH_INCOMPATIBLE", "libtorch in " + folder + " does not load: " + reason,
                   "Run: npx peft-train setup --force");
}

/// load(libtorchFolder, enginePath) -> the engine's exports
Napi::Value load(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString() || !info[1].IsString())
    throw Napi::TypeError::New(env, "load(libtorchFolder, enginePath)");
  const std::string no_cuda = open_libtorch(env, info[0].As<Napi::String>());
  const std::string engine = info[1].As<Napi::String>();
  void* handle = ::dlopen(engine.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw load_error(env, "ADDON_MISSING", "The engine " + engine + " does not load: " + ::dlerror(),
                     "Build it for this libtorch with: npm run build");
  }
  using Init = napi_value (*)(napi_env, napi_value);
  const auto init = reinterpret_cast<Init>(::dlsym(handle, "peft_train_init"));
  if (init == nullptr) {
    throw load_error(env, "ADDON_MISSING", engine + " is not the engine of this package",
                     "Reinstall peft-train.");
  }
  Napi::Object engine_exports(env, init(env, Napi::Object::New(env)));
  if (!no_cuda.empty()) engine_exports.Set("noCuda", no_cuda);
  return engine_exports;
}

/// What libcuda.so.1 says, without libtorch: {version: 13000 for 13.0, devices: [{name, memory,
/// capability}]}, or {error}. Nothing of it is linked; signatures and numbers are those of cuda.h.
Napi::Value cuda_driver(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  const auto failed = [&](const std::string& reason) {
    result.Set("error", reason);
    return result;
  };
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return failed(::dlerror());
  const auto find = [&]<typename F>(F*& function, const char* name) {
    function = reinterpret_cast<F*>(::dlsym(library, name));
    return function != nullptr;
  };
  int (*initialise)(unsigned) = nullptr;
  int (*driver_version)(int*) = nullptr;
  int (*device_count)(int*) = nullptr;
  int (*device_get)(int*, int) = nullptr;
  int (*device_name)(char*, int, int) = nullptr;
  int (*device_memory)(size_t*, int) = nullptr;
  int (*device_attribute)(int*, int, int) = nullptr;
  if (!find(initialise, "cuInit") || !find(driver_version, "cuDriverGetVersion") ||
      !find(device_count, "cuDeviceGetCount") || !find(device_get, "cuDeviceGet") ||
      !find(device_name, "cuDeviceGetName") || !find(device_memory, "cuDeviceTotalMem_v2") ||
      !find(device_attribute, "cuDeviceGetAttribute")) {
    return failed("libcuda.so.1 is not a CUDA driver");
  }
  int version = 0, count = 0;
  if (driver_version(&version) == 0) result.Set("version", version);
  if (const int code = initialise(0); code != 0) return failed("cuInit gives error " + std::to_string(code));
  if (const int code = device_count(&count); code != 0) {
    return failed("cuDeviceGetCount gives error " + std::to_string(code));
  }
  constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
  Napi::Array devices = Napi::Array::New(env);
  for (int i = 0; i < count; i++) {
    int device = 0, major = 0, minor = 0;
    char name[256] = "";
    size_t memory = 0;
    if (device_get(&device, i) != 0 || device_name(name, sizeof name, device) != 0 ||
        device_memory(&memory, device) != 0 || device_attribute(&major, kMajor, device) != 0 ||
        device_attribute(&minor, kMinor, device) != 0) {
      return failed("device " + std::to_string(i) + " does not answer");
    }
    Napi::Object found = Napi::Object::New(env);
    found.Set("name", std::string(name));
    found.Set("memory", static_cast<double>(memory));
    found.Set("capability", std::to_string(major) + "." + std::to_string(minor));
    devices.Set(static_cast<uint32_t>(i), found);
  }
  result.Set("devices", devices);
  return result;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("load", Napi::Function::New<load>(env, "load"));
  exports.Set("cudaDriver", Napi::Function::New<cuda_driver>(env, "cudaDriver"));
  return exports;
}

}  // namespace

NODE_API_MODULE(peft_train, init)
