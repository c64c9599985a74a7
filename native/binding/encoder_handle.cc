#include "binding/encoder_handle.h"

#include <utility>

#include "binding/convert.h"
#include "error.h"

namespace peft::binding {
namespace {

Resolver resolve_undefined() {
  return [](Napi::Env env) { return env.Undefined(); };
}

Napi::Value rejected(Napi::Env env, const char* code, const char* message, const char* hint) {
  const auto deferred = Napi::Promise::Deferred::New(env);
  deferred.Reject(make_error(env, code, message, hint).Value());
  return deferred.Promise();
}

Napi::Object from_step_result(Napi::Env env, const StepResult& result) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("loss", result.loss);
  o.Set("gradNorm", result.grad_norm);
  if (!result.not_finite.empty()) o.Set("notFinite", result.not_finite);
  return o;
}

}  // namespace

Napi::Function EncoderHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeEncoder",
                     {InstanceMethod<&EncoderHandle::info>("info"),
                      InstanceMethod<&EncoderHandle::adapters>("adapters"),
                      InstanceMethod<&EncoderHandle::memory>("memory"),
                      InstanceMethod<&EncoderHandle::create_adapter>("createAdapter"),
                      InstanceMethod<&EncoderHandle::load_adapter>("loadAdapter"),
                      InstanceMethod<&EncoderHandle::save_adapter>("saveAdapter"),
                      InstanceMethod<&EncoderHandle::save_optimizer>("saveOptimizer"),
                      InstanceMethod<&EncoderHandle::load_optimizer>("loadOptimizer"),
                      InstanceMethod<&EncoderHandle::merge_adapter>("mergeAdapter"),
                      InstanceMethod<&EncoderHandle::remove_adapter>("removeAdapter"),
                      InstanceMethod<&EncoderHandle::step>("step"),
                      InstanceMethod<&EncoderHandle::queue_step>("queueStep"),
                      InstanceMethod<&EncoderHandle::step_results>("stepResults"),
                      InstanceMethod<&EncoderHandle::gradients>("gradients"),
                      InstanceMethod<&EncoderHandle::encode>("encode"),
                      InstanceMethod<&EncoderHandle::input_components>("inputComponents"),
                      InstanceMethod<&EncoderHandle::adapter_weights>("adapterWeights"),
                      InstanceMethod<&EncoderHandle::save_model>("saveModel"),
                      InstanceMethod<&EncoderHandle::load_model>("loadModel"),
                      InstanceMethod<&EncoderHandle::model_weights>("modelWeights"),
                      InstanceMethod<&EncoderHandle::close>("close")});
}

EncoderHandle::EncoderHandle(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<EncoderHandle>(info), worker_(info.Env()) {}

EncoderHandle::~EncoderHandle() {
  worker_.stop();
  session_.reset();
  tell_memory();
}

Napi::Value EncoderHandle::open(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const SessionOptions options = to_session_options(info[0]);
  const Napi::Object object = env.GetInstanceData<EnvironmentData>()->encoder_constructor.New({});
  EncoderHandle* handle = Unwrap(object);
  handle->opening_ = true;
  return handle->run(env, [handle, options]() -> Resolver {
    handle->session_ = std::make_unique<Session>(options);
    return [handle](Napi::Env) { return handle->Value(); };
  });
}

Napi::Value EncoderHandle::run(Napi::Env env, Work work) {
  if (closed_)
    return rejected(env, "ENCODER_CLOSED", "The encoder is closed", "Open another one with Encoder.load().");
  if (worker_.busy()) {
    return rejected(env, "ENCODER_BUSY", "The encoder is running another call",
                    "Wait for the promise of that call first.");
  }
  Ref();
  return worker_.run(env, std::move(work), [this] { after_call(); });
}

void EncoderHandle::after_call() {
  tell_memory();
  if (closed_) finish_close();
  Unref();
}

void EncoderHandle::tell_memory() {
  int64_t bytes = 0;
  if (session_) {
    bytes = session_->info().frozen_bytes;
    for (const AdapterInfo& adapter : session_->adapters()) bytes += adapter.bytes;
  }
  if (bytes == told_bytes_) return;
  // Not by Napi::MemoryManagement, which throws in an environment that ends; then nobody counts any more.
  int64_t total = 0;
  napi_adjust_external_memory(Env(), bytes - told_bytes_, &total);
  told_bytes_ = bytes;
}

void EncoderHandle::require_idle(Napi::Env env) const {
  if (closed_ || !session_) throw make_error(env, "ENCODER_CLOSED", "The encoder is closed");
  if (worker_.busy()) throw make_error(env, "ENCODER_BUSY", "The encoder is running another call");
}

Napi::Value EncoderHandle::adapters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  require_idle(env);
  Napi::Array all = Napi::Array::New(env);
  for (const AdapterInfo& adapter : session_->adapters()) {
    Napi::Object o = Napi::Object::New(env);
    o.Set("name", adapter.name);
    o.Set("parameters", static_cast<double>(adapter.parameters));
    o.Set("bytes", static_cast<double>(adapter.bytes));
    if (!adapter.merged_from.empty()) o.Set("mergedFrom", adapter.merged_from);
    all.Set(all.Length(), o);
  }
  return all;
}

Napi::Value EncoderHandle::info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  require_idle(env);
  const SessionInfo s = session_->info();
  Napi::Object o = Napi::Object::New(env);
  o.Set("device", s.device);
  o.Set("threads", s.threads);
  o.Set("baseParameters", static_cast<double>(s.base_parameters));
  o.Set("trainableParameters", static_cast<double>(s.trainable_parameters));
  o.Set("frozenBytes", static_cast<double>(s.frozen_bytes));
  return o;
}

Napi::Value EncoderHandle::memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  require_idle(env);
  if (!info[0].IsNumber() || !info[1].IsBoolean()) {
    throw Napi::TypeError::New(env, "memory(microBatchTokens, training) needs a number and a boolean");
  }
  std::optional<std::string> name;
  if (!info[2].IsUndefined()) name = to_string(info[2], "name");
  MemoryPlan plan;
  try {
    plan =
        session_->memory(info[0].As<Napi::Number>().Int64Value(), info[1].As<Napi::Boolean>().Value(), name);
  } catch (const EngineError& e) {
    throw make_error(env, e.code(), e.what(), e.hint());
  }
  Napi::Object o = Napi::Object::New(env);
  o.Set("linear", static_cast<double>(plan.linear));
  o.Set("embeddings", static_cast<double>(plan.embeddings));
  o.Set("other", static_cast<double>(plan.other));
  o.Set("adapter", static_cast<double>(plan.adapter));
  o.Set("optimizer", static_cast<double>(plan.optimizer));
  o.Set("activations", static_cast<double>(plan.activations));
  o.Set("float32Weights", static_cast<double>(plan.float32_weights));
  return o;
}

Napi::Value EncoderHandle::create_adapter(const Napi::CallbackInfo& info) {
  const AdapterSpec spec = to_adapter_spec(info[0]);
  const uint64_t seed = to_seed(info[1], "seed");
  const std::string name = to_adapter_name(info[2]);
  return run(info.Env(), [this, spec, seed, name] {
    session_->create_adapter(spec, seed, name);
    return resolve_undefined();
  });
}

Napi::Value EncoderHandle::load_adapter(const Napi::CallbackInfo& info) {
  const std::string path = to_string(info[0], "path");
  const AdapterSpec spec = to_adapter_spec(info[1]);
  const std::string name = to_adapter_name(info[2]);
  return run(info.Env(), [this, path, spec, name] {
    session_->load_adapter(path, spec, name);
    return resolve_undefined();
  });
}

Napi::Value EncoderHandle::save_adapter(const Napi::CallbackInfo& info) {
  const std::string path = to_string(info[0], "path");
  const std::string name = to_adapter_name(info[1]);
  return run(info.Env(), [this, path, name] {
    session_->save_adapter(path, name);
    return resolve_undefined();
  });
}

Napi::Value EncoderHandle::save_optimizer(const Napi::CallbackInfo& info) {
  const std::string path = to_string(info[0], "path");
  const std::string name = to_adapter_name(info[1]);
  return run(info.Env(), [this, path, name] {
    session_->save_optimizer(path, name);
    return resolve_undefined();
  });
}

Napi::Value EncoderHandle::load_optimizer(const Napi::CallbackInfo& info) {
  const std::string path = to_string(info[0], "path");
  const std::string name = to_adapter_name(info[1]);
  return run(info.Env(), [this, path, name] {
    session_->load_optimizer(path, name);
    return resolve_undefined();
  });
}

Napi::Value EncoderHandle::merge_adapter(const Napi::CallbackInfo& info) {
  const std::string name = to_string(info[0], "name"), merged = to_string(info[1], "merged");
  if (!info[2].IsBoolean()) throw Napi::TypeError::New(info.Env(), "exact must be a boolean");
  const bool exact = info[2].As<Napi::Boolean>().Value();
  return run(info.Env(), [this, name, merged, exact]() -> Resolver {
    const MergeInfo merge = session_->merge_adapter(name, merged, exact);
    return [merge](Napi::Env env) -> Napi::Value {
      Napi::Object o = Napi::Object::New(env);
      o.Set("modules", static_cast<double>(merge.modules));
      o.Set("bytes", static_cast<double>(merge.bytes));
      return o;
    };
  });
}

Napi::Value EncoderHandle::remove_adapter(const Napi::CallbackInfo& info) {
  const std::string name = to_adapter_name(info[0]);
  return run(info.Env(), [this, name] {
    session_->remove_adapter(name);
    return resolve_undefined();
  });
}

Napi::Value EncoderHandle::step(const Napi::CallbackInfo& info) {
  auto batch = std::make_shared<ExampleBatch>(to_example_batch(info[0]));
  const StepOptions options = to_step_options(info[1]);
  return run(info.Env(), [this, batch, options]() -> Resolver {
    const StepResult result = session_->step(*batch, options);
    return [result](Napi::Env env) -> Napi::Value { return from_step_result(env, result); };
  });
}

Napi::Value EncoderHandle::queue_step(const Napi::CallbackInfo& info) {
  auto batch = std::make_shared<ExampleBatch>(to_example_batch(info[0]));
  const StepOptions options = to_step_options(info[1]);
  return run(info.Env(), [this, batch, options] {
    session_->queue_step(*batch, options);
    return resolve_undefined();
  });
}

Napi::Value EncoderHandle::step_results(const Napi::CallbackInfo& info) {
  const std::string name = to_adapter_name(info[0]);
  return run(info.Env(), [this, name]() -> Resolver {
    auto results = std::make_shared<std::vector<StepResult>>(session_->step_results(name));
    return [results](Napi::Env env) -> Napi::Value {
      Napi::Array all = Napi::Array::New(env, results->size());
      for (size_t i = 0; i < results->size(); i++)
        all.Set(static_cast<uint32_t>(i), from_step_result(env, (*results)[i]));
      return all;
    };
  });
}

Napi::Value EncoderHandle::gradients(const Napi::CallbackInfo& info) {
  auto batch = std::make_shared<ExampleBatch>(to_example_batch(info[0]));
  const PassOptions options = to_pass_options(info[1]);
  return run(info.Env(), [this, batch, options]() -> Resolver {
    auto named = std::make_shared<std::map<std::string, std::vector<float>>>();
    const double loss = session_->gradients(*batch, options, *named);
    return [loss, named](Napi::Env env) -> Napi::Value {
      Napi::Object o = Napi::Object::New(env);
      o.Set("loss", loss);
      o.Set("gradients", from_named_floats(env, *named));
      return o;
    };
  });
}

Napi::Value EncoderHandle::encode(const Napi::CallbackInfo& info) {
  auto batch = std::make_shared<TokenBatch>(to_token_batch(info[0]));
  if (!info[1].IsObject()) throw Napi::TypeError::New(info.Env(), "options must be an object");
  const Napi::Object o = info[1].As<Napi::Object>();
  const AdapterChoice choice = to_adapter_choice(o);
  const bool normalize = to_bool(o, "normalize");
  const int64_t tokens = to_count(o, "microBatchTokens", 1);
  return run(info.Env(), [this, batch, choice, normalize, tokens]() -> Resolver {
    auto rows = std::make_shared<std::vector<float>>(session_->encode(*batch, choice, normalize, tokens));
    return [rows](Napi::Env env) -> Napi::Value { return from_floats(env, *rows); };
  });
}

Napi::Value EncoderHandle::input_components(const Napi::CallbackInfo& info) {
  auto batch = std::make_shared<TokenBatch>(to_token_batch(info[0]));
  const std::vector<InputSite> sites = to_input_sites(info[1]);
  if (!info[2].IsNumber() || info[2].As<Napi::Number>().Int64Value() < 1) {
    throw Napi::TypeError::New(info.Env(), "microBatchTokens must be a number above 0");
  }
  const int64_t tokens = info[2].As<Napi::Number>().Int64Value();
  return run(info.Env(), [this, batch, sites, tokens]() -> Resolver {
    auto named = std::make_shared<std::map<std::string, std::vector<float>>>(
        session_->input_components(*batch, sites, tokens));
    return [named](Napi::Env env) -> Napi::Value { return from_named_floats(env, *named); };
  });
}

Napi::Value EncoderHandle::adapter_weights(const Napi::CallbackInfo& info) {
  const std::string name = to_adapter_name(info[0]);
  return run(info.Env(), [this, name]() -> Resolver {
    auto named = std::make_shared<std::map<std::string, std::vector<float>>>(session_->adapter_weights(name));
    return [named](Napi::Env env) -> Napi::Value { return from_named_floats(env, *named); };
  });
}

Napi::Value EncoderHandle::save_model(const Napi::CallbackInfo& info) {
  const std::string path = to_string(info[0], "path");
  return run(info.Env(), [this, path] {
    session_->save_model(path);
    return resolve_undefined();
  });
}

Napi::Value EncoderHandle::load_model(const Napi::CallbackInfo& info) {
  const std::string path = to_string(info[0], "path");
  return run(info.Env(), [this, path] {
    session_->load_model(path);
    return resolve_undefined();
  });
}

Napi::Value EncoderHandle::model_weights(const Napi::CallbackInfo& info) {
  return run(info.Env(), [this]() -> Resolver {
    auto named = std::make_shared<std::map<std::string, std::vector<float>>>(session_->model_weights());
    return [named](Napi::Env env) -> Napi::Value { return from_named_floats(env, *named); };
  });
}

Napi::Value EncoderHandle::close(const Napi::CallbackInfo& info) {
  const auto deferred = Napi::Promise::Deferred::New(info.Env());
  waiting_for_close_.push_back(deferred);
  closed_ = true;
  if (!worker_.busy()) finish_close();
  return deferred.Promise();
}

void EncoderHandle::finish_close() {
  worker_.stop();
  session_.reset();
  tell_memory();
  for (const auto& deferred : waiting_for_close_) deferred.Resolve(Env().Undefined());
  waiting_for_close_.clear();
}

}  // namespace peft::binding
