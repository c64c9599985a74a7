#pragma once

#include <napi.h>

namespace peft::binding {

/// quantize(options, onProgress?) -> Promise<QuantizeReport>, on a thread of Node's pool.
Napi::Value quantize(const Napi::CallbackInfo& info);

}  // namespace peft::binding
