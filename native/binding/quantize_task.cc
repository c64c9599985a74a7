#include "binding/quantize_task.h"

#include <c10/core/InferenceMode.h>

#include <atomic>
#include <string>
#include <utility>

#include "binding/convert.h"
#include "weights/quantize_model.h"

namespace peft::binding {
namespace {

struct Progress {
  int64_t done, total;
};

class QuantizeTask final : public Napi::AsyncProgressQueueWorker<Progress> {
 public:
  QuantizeTask(Napi::Env env, std::string source, std::string output, const ModelShape& shape,
               const WeightStorage& storage, const Napi::Value& on_progress)
      : AsyncProgressQueueWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        source_(std::move(source)),
        output_(std::move(output)),
        shape_(shape),
        storage_(storage) {
    if (on_progress.IsFunction()) on_progress_ = Napi::Persistent(on_progress.As<Napi::Function>());
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute(const ExecutionProgress& progress) override {
    const c10::InferenceMode no_grad;
    try {
      report_ = quantize_model(source_, output_, shape_, storage_, [&](int64_t done, int64_t total) {
        const Progress p{done, total};
        progress.Send(&p, 1);
        return !stopped_;
      });
    } catch (...) {
      error_ = describe_current_exception();
      SetError(error_.message);
    }
  }

  void OnProgress(const Progress* progress, size_t count) override {
    if (on_progress_.IsEmpty() || count == 0) return;
    const Napi::HandleScope scope(Env());
    const Napi::Value go_on =
        on_progress_.Call({Napi::Number::New(Env(), static_cast<double>(progress->done)),
                           Napi::Number::New(Env(), static_cast<double>(progress->total))});
    if (go_on.IsBoolean() && !go_on.As<Napi::Boolean>().Value()) stopped_ = true;
  }

  void OnOK() override {
    const Napi::HandleScope scope(Env());
    Napi::Object o = Napi::Object::New(Env());
    o.Set("tensors", static_cast<double>(report_.tensors));
    o.Set("parameters", static_cast<double>(report_.parameters));
    o.Set("bytes", static_cast<double>(report_.bytes));
    o.Set("sourceBytes", static_cast<double>(report_.source_bytes));
    o.Set("outliers", static_cast<double>(report_.outliers));
    o.Set("leftOut", static_cast<double>(report_.left_out));
    o.Set("meanSquaredError", report_.mean_squared_error);
    o.Set("relativeError", report_.relative_error);
    deferred_.Resolve(o);
  }

  void OnError(const Napi::Error&) override {
    const Napi::HandleScope scope(Env());
    deferred_.Reject(make_error(Env(), error_.code, error_.message, error_.hint).Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::string source_, output_;
  ModelShape shape_;
  WeightStorage storage_;
  Napi::FunctionReference on_progress_;
  std::atomic<bool> stopped_ = false;
  QuantizeReport report_;
  ErrorFields error_;
};

}  // namespace

Napi::Value quantize(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) throw Napi::TypeError::New(info.Env(), "options must be an object");
  const Napi::Object o = info[0].As<Napi::Object>();
  // Deletes itself once it has run.
  auto* task = new QuantizeTask(info.Env(), to_string(o.Get("weightsPath"), "weightsPath"),
                                to_string(o.Get("output"), "output"), to_model_shape(o.Get("shape")),
                                to_weight_storage(o.Get("storage")), info[1]);
  task->Queue();
  return task->promise();
}

}  // namespace peft::binding
