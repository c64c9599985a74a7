#include <dlfcn.h>
#include <napi.h>
#include <unistd.h>

#include <string>

// The .node itself: it links nothing, is handed a libtorch folder, and brings libtorch and then the engine
// into the process by absolute path. The engine's needs are met by SONAME, so no rpath and no LD_LIBRARY_PATH
// is involved.

namespace {

constexpr const char* kTorchLibraries[] = {"libtorch.so", "libtorch_cpu.so"};

Napi::Error load_error(Napi::Env env, const char* code, const std::string& message, const std::string& hint) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", code);
  error.Set("hint", hint);
  return error;
}

/// libtorch.so brings CUDA in too; where CUDA's libraries are not installed it does not load, and the CPU
/// half does.
void open_libtorch(Napi::Env env, const std::string& folder) {
  std::string reason;
  for (const char* name : kTorchLibraries) {
    const std::string path = folder + "/torch/lib/" + name;
    if (::access(path.c_str(), R_OK) != 0) continue;
    if (::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return;
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
  open_libtorch(env, info[0].As<Napi::String>());
  const std::string engine = info[1].As<Napi::String>();
  void* handle = ::dlopen(engine.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw load_error(env, "ADDON_MISSING", "The engine " + engine + " does not load: " + ::dlerror(),
                     "Build it for this libtorch with: npm run build:native");
  }
  using Init = napi_value (*)(napi_env, napi_value);
  const auto init = reinterpret_cast<Init>(::dlsym(handle, "peft_train_init"));
  if (init == nullptr) {
    throw load_error(env, "ADDON_MISSING", engine + " is not the engine of this package",
                     "Reinstall peft-train.");
  }
  return Napi::Value(env, init(env, Napi::Object::New(env)));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("load", Napi::Function::New<load>(env, "load"));
  return exports;
}

}  // namespace

NODE_API_MODULE(peft_train, init)
