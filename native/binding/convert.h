#pragma once

#include <napi.h>

#include <map>
#include <string>
#include <vector>

#include "core/session.h"

// From JavaScript values to the engine's types and back; every check of a type is here. A value of the wrong
// type throws a TypeError that names it.

namespace peft::binding {

ModelShape to_model_shape(const Napi::Value& value);
/// Throws an EngineError with code USAGE for a format that is none or a number out of range.
WeightStorage to_weight_storage(const Napi::Value& value);
SessionOptions to_session_options(const Napi::Value& value);
AdapterSpec to_adapter_spec(const Napi::Value& value);
/// Of the options of encode.
AdapterChoice to_adapter_choice(const Napi::Object& options);
/// A name, or the default adapter's where there is none.
std::string to_adapter_name(const Napi::Value& value);
std::vector<InputSite> to_input_sites(const Napi::Value& value);
TokenBatch to_token_batch(const Napi::Value& value);
ExampleBatch to_example_batch(const Napi::Value& value);
LossSpec to_loss_spec(const Napi::Value& value);
PassOptions to_pass_options(const Napi::Value& value);
StepOptions to_step_options(const Napi::Value& value);

std::string to_string(const Napi::Value& value, const char* name);
uint64_t to_seed(const Napi::Value& value, const char* name);
bool to_bool(const Napi::Object& object, const char* name);
int64_t to_count(const Napi::Object& object, const char* name, int64_t least);

Napi::Float32Array from_floats(Napi::Env env, const std::vector<float>& values);
Napi::Object from_named_floats(Napi::Env env, const std::map<std::string, std::vector<float>>& values);

/// A JavaScript Error with code and hint.
Napi::Error make_error(Napi::Env env, const std::string& code, const std::string& message,
                       const std::string& hint = "");
/// The error in flight, in the same form; c10's backtraces are cut off.
struct ErrorFields {
  std::string code, message, hint;
};
ErrorFields describe_current_exception();

}  // namespace peft::binding
