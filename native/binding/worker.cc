#include "binding/worker.h"

#include <memory>
#include <utility>

#include "binding/convert.h"

namespace peft::binding {

struct Worker::Call {
  Napi::Promise::Deferred deferred;
  Work work;
  std::function<void()> after;
  Resolver resolver;
  bool failed = false;
  ErrorFields error;
};

Worker::Worker(Napi::Env env)
    : env_(env),
      to_javascript_(Napi::ThreadSafeFunction::New(
          env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "peft-train encoder", 0, 1)) {
  to_javascript_.Unref(env);
  thread_ = std::thread([this] { loop(); });
  // A worker_thread or the process may end with a call running: the thread must be gone before the engine's
  // memory is.
  napi_add_env_cleanup_hook(env_, on_environment_cleanup, this);
}

Worker::~Worker() {
  napi_remove_env_cleanup_hook(env_, on_environment_cleanup, this);
  stop();
}

void Worker::on_environment_cleanup(void* worker) { static_cast<Worker*>(worker)->stop(); }

Napi::Promise Worker::run(Napi::Env env, Work work, std::function<void()> after) {
  auto* call = new Call{Napi::Promise::Deferred::New(env), std::move(work), std::move(after), {}, false, {}};
  const Napi::Promise promise = call->deferred.Promise();
  busy_ = true;
  to_javascript_.Ref(env);
  {
    const std::lock_guard lock(mutex_);
    next_ = call;
  }
  wake_.notify_one();
  return promise;
}

void Worker::stop() {
  if (stopped_) return;
  stopped_ = true;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
  to_javascript_.Release();
}

void Worker::loop() {
  while (true) {
    Call* call = nullptr;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return next_ != nullptr || stopping_; });
      call = std::exchange(next_, nullptr);
      if (call == nullptr) return;
    }
    try {
      call->resolver = call->work();
    } catch (...) {
      call->failed = true;
      call->error = describe_current_exception();
    }
    // Fails only when the environment is going down; then nobody waits for the promise.
    const napi_status status =
        to_javascript_.BlockingCall(call, [this](Napi::Env env, Napi::Function, Call* done) {
          if (static_cast<napi_env>(env) == nullptr) {
            delete done;  // the worker itself may be gone by now
          } else {
            finish(env, done);
          }
        });
    if (status != napi_ok) delete call;
  }
}

void Worker::finish(Napi::Env env, Call* call) {
  busy_ = false;
  if (!stopped_) to_javascript_.Unref(env);
  const std::unique_ptr<Call> done(call);
  // An environment that ends, as a worker_thread's that is terminated, runs no JavaScript: then nobody waits.
  try {
    const Napi::HandleScope scope(env);
    settle(env, *done);
  } catch (const Napi::Error&) {
  }
  try {
    done->after();
  } catch (const Napi::Error&) {
  }
}

void Worker::settle(Napi::Env env, const Call& call) {
  if (call.failed) {
    call.deferred.Reject(make_error(env, call.error.code, call.error.message, call.error.hint).Value());
    return;
  }
  try {
    call.deferred.Resolve(call.resolver(env));
  } catch (const Napi::Error& e) {
    call.deferred.Reject(e.Value());
  }
}

}  // namespace peft::binding
