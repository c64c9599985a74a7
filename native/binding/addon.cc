#include <ATen/Parallel.h>
#include <napi.h>
#include <torch/headeronly/version.h>

#include "binding/convert.h"
#include "binding/encoder_handle.h"
#include "binding/quantize_task.h"
#include "core/session.h"
#include "error.h"
#include "kernels/cpu/table.h"

#ifndef PEFT_TRAIN_VERSION
#define PEFT_TRAIN_VERSION "0.0.0"
#endif

namespace peft::binding {
namespace {

/// Raised with every change of what this file exports or takes; lib/native/load.ts expects the same number.
constexpr int kInterfaceVersion = 12;

Napi::Value engine_info(const Napi::CallbackInfo& info) {
  Napi::Object o = Napi::Object::New(info.Env());
  const CpuKernels* kernels = nullptr;
  try {
    kernels = &cpu_kernels();
  } catch (const EngineError& e) {
    throw make_error(info.Env(), e.code(), e.what(), e.hint());
  }
  o.Set("engineVersion", PEFT_TRAIN_VERSION);
  o.Set("torchVersion", TORCH_VERSION);
  o.Set("cudaDevices", cuda_device_count());
  o.Set("cpuKernels", kernels->name);
  o.Set("fastBfloat16", Napi::Boolean::New(info.Env(), kernels->has_fast_bfloat16()));
  return o;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new EnvironmentData();
  data->encoder_constructor = Napi::Persistent(EncoderHandle::define(env));
  env.SetInstanceData(data);
  exports.Set("interfaceVersion", kInterfaceVersion);
  exports.Set("info", Napi::Function::New<engine_info>(env, "info"));
  exports.Set("open", Napi::Function::New<EncoderHandle::open>(env, "open"));
  exports.Set("quantize", Napi::Function::New<quantize>(env, "quantize"));
  return exports;
}

}  // namespace
}  // namespace peft::binding

// Called by the loader once libtorch is in the process.
extern "C" __attribute__((visibility("default"))) napi_value peft_train_init(napi_env env,
                                                                             napi_value exports) {
  return Napi::RegisterModule(env, exports, peft::binding::init);
}

extern "C" __attribute__((visibility("default"))) const char* peft_train_built_for() { return TORCH_VERSION; }
