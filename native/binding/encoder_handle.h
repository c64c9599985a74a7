#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "binding/worker.h"
#include "core/session.h"

namespace peft::binding {

/// The NativeEncoder of lib/native/types.ts.
///
/// What could go wrong, and what happens: a second call while one runs rejects with ENCODER_BUSY; any call
/// after close with ENCODER_CLOSED; close while busy waits; a handle that is collected while open frees its
/// memory; one that is collected while busy cannot be, since the running call holds it; an environment that
/// ends waits for the running call.
class EncoderHandle : public Napi::ObjectWrap<EncoderHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  /// `open(options)`: a promise of a loaded handle.
  static Napi::Value open(const Napi::CallbackInfo& info);

  explicit EncoderHandle(const Napi::CallbackInfo& info);
  ~EncoderHandle() override;

 private:
  /// Runs `work` on the encoder's thread, or rejects with ENCODER_BUSY or ENCODER_CLOSED.
  Napi::Value run(Napi::Env env, Work work);
  void after_call();
  /// Tells V8 what the model takes outside its heap, so that handles which nobody holds are collected in
  /// time.
  void tell_memory();

  /// Throws ENCODER_BUSY or ENCODER_CLOSED; for what is read at once.
  void require_idle(Napi::Env env) const;

  Napi::Value adapters(const Napi::CallbackInfo& info);
  Napi::Value info(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  Napi::Value create_adapter(const Napi::CallbackInfo& info);
  Napi::Value load_adapter(const Napi::CallbackInfo& info);
  Napi::Value save_adapter(const Napi::CallbackInfo& info);
  Napi::Value save_optimizer(const Napi::CallbackInfo& info);
  Napi::Value load_optimizer(const Napi::CallbackInfo& info);
  Napi::Value merge_adapter(const Napi::CallbackInfo& info);
  Napi::Value remove_adapter(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
  Napi::Value queue_step(const Napi::CallbackInfo& info);
  Napi::Value step_results(const Napi::CallbackInfo& info);
  Napi::Value gradients(const Napi::CallbackInfo& info);
  Napi::Value encode(const Napi::CallbackInfo& info);
  Napi::Value input_components(const Napi::CallbackInfo& info);
  Napi::Value adapter_weights(const Napi::CallbackInfo& info);
  Napi::Value save_model(const Napi::CallbackInfo& info);
  Napi::Value load_model(const Napi::CallbackInfo& info);
  Napi::Value model_weights(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  void finish_close();

  Worker worker_;
  std::unique_ptr<Session> session_;
  bool opening_ = false;
  bool closed_ = false;
  int64_t told_bytes_ = 0;
  std::vector<Napi::Promise::Deferred> waiting_for_close_;
};

/// What one environment (main thread or worker_thread) keeps.
struct EnvironmentData {
  Napi::FunctionReference encoder_constructor;
};

}  // namespace peft::binding
