#pragma once

#include <napi.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace peft::binding {

/// Makes the value that a finished call resolves with; runs on the JavaScript thread.
using Resolver = std::function<Napi::Value(Napi::Env)>;
/// One call of the engine; runs on the worker's thread.
using Work = std::function<Resolver()>;

/// The one thread that runs an encoder's calls: OpenMP gives every calling thread a team of its own, so all
/// work of one encoder stays on one. Holds one call at a time; keeps the event loop alive only while one
/// runs.
class Worker {
 public:
  explicit Worker(Napi::Env env);
  ~Worker();
  Worker(const Worker&) = delete;

  bool busy() const { return busy_; }
  /// Runs `work`, settles the promise on the JavaScript thread, then calls `after` there. Must not be called
  /// while busy; the owner stays referenced until `after`.
  Napi::Promise run(Napi::Env env, Work work, std::function<void()> after);
  /// Waits for a running call and ends the thread. Safe to call twice.
  void stop();

 private:
  struct Call;

  static void on_environment_cleanup(void* worker);

  void loop();
  void finish(Napi::Env env, Call* call);
  static void settle(Napi::Env env, const Call& call);

  napi_env env_;
  Napi::ThreadSafeFunction to_javascript_;
  std::mutex mutex_;
  std::condition_variable wake_;
  Call* next_ = nullptr;
  bool stopping_ = false;
  bool busy_ = false;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace peft::binding
