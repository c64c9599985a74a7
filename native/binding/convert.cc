#include "binding/convert.h"

#include <c10/util/Exception.h>

#include <cmath>
#include <new>

#include "error.h"

namespace peft::binding {
namespace {

[[noreturn]] void wrong_type(Napi::Env env, const std::string& name, const char* expected) {
  throw Napi::TypeError::New(env, name + " must be " + expected);
}

Napi::Object to_object(const Napi::Value& value, const char* name) {
  if (!value.IsObject() || value.IsFunction()) wrong_type(value.Env(), name, "an object");
  return value.As<Napi::Object>();
}

double number(const Napi::Value& value, const std::string& name) {
  if (!value.IsNumber()) wrong_type(value.Env(), name, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

double number(const Napi::Object& object, const char* name) { return number(object.Get(name), name); }

double finite(const Napi::Object& object, const char* name, double least) {
  const double value = number(object, name);
  if (!std::isfinite(value) || value < least) {
    wrong_type(object.Env(), name, least == 0 ? "a finite number, 0 or more" : "a finite number");
  }
  return value;
}

double rate(const Napi::Object& object, const char* name) {
  const double value = number(object, name);
  if (!(value >= 0 && value < 1)) wrong_type(object.Env(), name, "a rate from 0 up to but not including 1");
  return value;
}

template <typename T, typename Array>
std::vector<T> copy_array(const Napi::Object& object, const char* name, napi_typedarray_type type,
                          const char* expected) {
  const Napi::Value value = object.Get(name);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    wrong_type(object.Env(), name, expected);
  }
  const Array array = value.As<Array>();
  return std::vector<T>(array.Data(), array.Data() + array.ElementLength());
}

std::vector<float> to_vectors(const Napi::Object& object) {
  return copy_array<float, Napi::Float32Array>(object, "vectors", napi_float32_array, "a Float32Array");
}

}  // namespace

std::string to_string(const Napi::Value& value, const char* name) {
  if (!value.IsString()) wrong_type(value.Env(), name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

uint64_t to_seed(const Napi::Value& value, const char* name) {
  const double seed = number(value, name);
  if (!(seed >= 0 && seed <= 9007199254740991.0) || std::floor(seed) != seed) {
    wrong_type(value.Env(), name, "a whole number from 0 to 2^53 - 1");
  }
  return static_cast<uint64_t>(seed);
}

bool to_bool(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsBoolean()) wrong_type(object.Env(), name, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

int64_t to_count(const Napi::Object& object, const char* name, int64_t least) {
  const double value = number(object, name);
  if (!(value >= static_cast<double>(least) && value <= 2147483647.0) || std::floor(value) != value) {
    wrong_type(object.Env(), name,
               least == 0 ? "a whole number from 0 to 2147483647" : "a whole number from 1 to 2147483647");
  }
  return static_cast<int64_t>(value);
}

ModelShape to_model_shape(const Napi::Value& value) {
  const Napi::Object o = to_object(value, "shape");
  ModelShape s;
  s.vocab_size = to_count(o, "vocabSize", 1);
  s.hidden_size = to_count(o, "hiddenSize", 1);
  s.num_layers = to_count(o, "numLayers", 1);
  s.num_heads = to_count(o, "numHeads", 1);
  s.intermediate_size = to_count(o, "intermediateSize", 1);
  s.max_positions = to_count(o, "maxPositions", 1);
  s.type_vocab_size = to_count(o, "typeVocabSize", 1);
  s.layer_norm_eps = finite(o, "layerNormEps", 0);
  s.hidden_dropout = rate(o, "hiddenDropout");
  s.attention_dropout = rate(o, "attentionDropout");
  if (s.hidden_size % s.num_heads != 0) wrong_type(o.Env(), "hiddenSize", "a multiple of numHeads");
  return s;
}

WeightStorage to_weight_storage(const Napi::Value& value) {
  const Napi::Object o = to_object(value, "storage");
  WeightStorage s;
  try {
    s.format = parse_weight_format(to_string(o.Get("format"), "format"));
    s.block_size = to_count(o, "blockSize", 1);
    s.double_quant = to_bool(o, "doubleQuant");
    s.outlier_fraction = finite(o, "outlierFraction", 0);
    s.outlier_threshold = finite(o, "outlierThreshold", 0);
    if (!o.Get("int8Gradient").IsUndefined()) s.int8_gradient = to_bool(o, "int8Gradient");
    if (!o.Get("products").IsUndefined())
      s.products = parse_weight_format(to_string(o.Get("products"), "products"));
    check_storage(s);
  } catch (const EngineError& e) {
    throw make_error(o.Env(), e.code(), e.what(), e.hint());
  }
  return s;
}

SessionOptions to_session_options(const Napi::Value& value) {
  const Napi::Object o = to_object(value, "options");
  SessionOptions options;
  options.weights_path = to_string(o.Get("weightsPath"), "weightsPath");
  options.shape = to_model_shape(o.Get("shape"));
  const std::string pooling = to_string(o.Get("pooling"), "pooling");
  if (pooling != "mean" && pooling != "cls") wrong_type(o.Env(), "pooling", "\"mean\" or \"cls\"");
  options.pooling = pooling == "cls" ? Pooling::kCls : Pooling::kMean;
  options.device = to_string(o.Get("device"), "device");
  options.threads = static_cast<int>(to_count(o, "threads", 0));
  if (!o.Get("activationCheckpointing").IsUndefined()) {
    options.activation_checkpointing = to_bool(o, "activationCheckpointing");
  }
  if (!o.Get("trainable").IsUndefined()) options.trainable = to_bool(o, "trainable");
  if (!o.Get("storage").IsUndefined()) options.storage = to_weight_storage(o.Get("storage"));
  return options;
}

AdapterSpec to_adapter_spec(const Napi::Value& value) {
  const Napi::Object o = to_object(value, "spec");
  if (!o.Get("modules").IsArray()) wrong_type(o.Env(), "modules", "an array");
  const Napi::Array modules = o.Get("modules").As<Napi::Array>();
  AdapterSpec spec;
  spec.dropout = rate(o, "dropout");
  for (uint32_t i = 0; i < modules.Length(); i++) {
    const Napi::Object m = to_object(modules.Get(i), "module");
    spec.modules.push_back(
        {to_string(m.Get("name"), "name"), to_count(m, "rank", 1), finite(m, "scale", -1e30)});
  }
  if (!o.Get("dora").IsUndefined()) spec.dora = to_bool(o, "dora");
  if (!o.Get("bias").IsUndefined()) spec.bias = to_bool(o, "bias");
  if (!o.Get("init").IsUndefined()) {
    const Napi::Object init = to_object(o.Get("init"), "init");
    try {
      spec.init = parse_adapter_init(to_string(init.Get("kind"), "kind"));
      if (!init.Get("iterations").IsUndefined()) spec.init_iterations = to_count(init, "iterations", 1);
    } catch (const EngineError& e) {
      throw make_error(o.Env(), e.code(), e.what(), e.hint());
    }
  }
  if (!o.Get("a").IsUndefined()) {
    const Napi::Object given = to_object(o.Get("a"), "a");
    for (const LoraModuleSpec& m : spec.modules) {
      if (given.Get(m.name).IsUndefined()) continue;
      spec.a[m.name] =
          copy_array<float, Napi::Float32Array>(given, m.name.c_str(), napi_float32_array, "a Float32Array");
    }
  }
  if (!o.Get("parameters").IsUndefined()) {
    if (!o.Get("parameters").IsArray()) wrong_type(o.Env(), "parameters", "an array");
    const Napi::Array parameters = o.Get("parameters").As<Napi::Array>();
    for (uint32_t i = 0; i < parameters.Length(); i++) {
      const Napi::Object p = to_object(parameters.Get(i), "parameter");
      spec.parameters.push_back({to_string(p.Get("name"), "name"), to_string(p.Get("key"), "key")});
    }
  }
  if (spec.modules.empty()) wrong_type(o.Env(), "modules", "an array of at least one module");
  return spec;
}

std::string to_adapter_name(const Napi::Value& value) {
  return value.IsUndefined() ? kDefaultAdapter : to_string(value, "name");
}

AdapterChoice to_adapter_choice(const Napi::Object& o) {
  const Napi::Value one = o.Get("adapter"), each = o.Get("adapterOfText");
  if (each.IsUndefined()) {
    return one.IsString() ? AdapterChoice(to_string(one, "adapter")) : AdapterChoice(to_bool(o, "adapter"));
  }
  if (!o.Get("adapters").IsArray()) wrong_type(o.Env(), "adapters", "an array");
  const Napi::Array all = o.Get("adapters").As<Napi::Array>();
  std::vector<std::string> names;
  for (uint32_t i = 0; i < all.Length(); i++) names.push_back(to_string(all.Get(i), "adapters"));
  return {std::move(names),
          copy_array<int32_t, Napi::Int32Array>(o, "adapterOfText", napi_int32_array, "an Int32Array")};
}

std::vector<InputSite> to_input_sites(const Napi::Value& value) {
  if (!value.IsArray()) wrong_type(value.Env(), "sites", "an array");
  const Napi::Array all = value.As<Napi::Array>();
  std::vector<InputSite> sites;
  for (uint32_t i = 0; i < all.Length(); i++) {
    const Napi::Object o = to_object(all.Get(i), "site");
    try {
      sites.push_back({to_count(o, "layer", 0), parse_layer_matrix(to_string(o.Get("matrix"), "matrix")),
                       to_count(o, "count", 1)});
    } catch (const EngineError& e) {
      throw make_error(o.Env(), e.code(), e.what(), e.hint());
    }
  }
  return sites;
}

TokenBatch to_token_batch(const Napi::Value& value) {
  const Napi::Object o = to_object(value, "batch");
  return {copy_array<int32_t, Napi::Int32Array>(o, "ids", napi_int32_array, "an Int32Array"),
          copy_array<int32_t, Napi::Int32Array>(o, "cuSeqlens", napi_int32_array, "an Int32Array")};
}

ExampleBatch to_example_batch(const Napi::Value& value) {
  ExampleBatch batch;
  batch.tokens = to_token_batch(value);
  const Napi::Object o = value.As<Napi::Object>();
  batch.labels = copy_array<float, Napi::Float32Array>(o, "labels", napi_float32_array, "a Float32Array");
  if (!o.Get("textsPerExample").IsUndefined()) batch.texts_per_example = to_count(o, "textsPerExample", 1);
  if (!o.Get("fixed").IsUndefined()) {
    const Napi::Object fixed = to_object(o.Get("fixed"), "fixed");
    batch.fixed = {to_count(fixed, "first", 0), to_count(fixed, "count", 1), to_vectors(fixed)};
  }
  if (!o.Get("kept").IsUndefined()) {
    const Napi::Object kept = to_object(o.Get("kept"), "kept");
    batch.kept = {to_token_batch(kept), to_vectors(kept), finite(kept, "weight", 0)};
  }
  return batch;
}

LossSpec to_loss_spec(const Napi::Value& value) {
  LossSpec spec;
  if (value.IsUndefined()) return spec;
  const Napi::Object o = to_object(value, "loss");
  try {
    spec.kind = parse_loss(to_string(o.Get("name"), "name"));
    if (!o.Get("distance").IsUndefined()) {
      spec.distance = parse_distance(to_string(o.Get("distance"), "distance"));
    }
  } catch (const EngineError& e) {
    throw make_error(o.Env(), e.code(), e.what(), e.hint());
  }
  if (!o.Get("margin").IsUndefined()) spec.margin = finite(o, "margin", 0);
  if (!o.Get("scale").IsUndefined()) spec.scale = finite(o, "scale", 0);
  if (o.Get("matryoshka").IsUndefined()) return spec;
  if (!o.Get("matryoshka").IsArray()) wrong_type(o.Env(), "matryoshka", "an array");
  const Napi::Array widths = o.Get("matryoshka").As<Napi::Array>();
  for (uint32_t i = 0; i < widths.Length(); i++) {
    const Napi::Object width = to_object(widths.Get(i), "width");
    spec.dims.push_back(to_count(width, "dims", 1));
    spec.weights.push_back(finite(width, "weight", 0));
  }
  return spec;
}

PassOptions to_pass_options(const Napi::Value& value) {
  const Napi::Object o = to_object(value, "options");
  PassOptions options;
  options.seed = to_seed(o.Get("seed"), "seed");
  options.step = static_cast<uint32_t>(to_count(o, "step", 0));
  options.micro_batch_tokens = to_count(o, "microBatchTokens", 1);
  options.loss = to_loss_spec(o.Get("loss"));
  options.adapter = to_adapter_name(o.Get("adapter"));
  return options;
}

StepOptions to_step_options(const Napi::Value& value) {
  StepOptions options;
  options.pass = to_pass_options(value);
  const Napi::Object o = value.As<Napi::Object>();
  options.adam.learning_rate = finite(o, "learningRate", 0);
  options.adam.weight_decay = finite(o, "weightDecay", 0);
  options.adam.beta1 = rate(o, "beta1");
  options.adam.beta2 = rate(o, "beta2");
  options.adam.epsilon = finite(o, "epsilon", 0);
  options.max_grad_norm = finite(o, "maxGradNorm", 0);
  if (!o.Get("lossScale").IsUndefined()) options.loss_scale = finite(o, "lossScale", 0);
  return options;
}

Napi::Float32Array from_floats(Napi::Env env, const std::vector<float>& values) {
  Napi::Float32Array array = Napi::Float32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

Napi::Object from_named_floats(Napi::Env env, const std::map<std::string, std::vector<float>>& values) {
  Napi::Object object = Napi::Object::New(env);
  for (const auto& [key, floats] : values) object.Set(key, from_floats(env, floats));
  return object;
}

Napi::Error make_error(Napi::Env env, const std::string& code, const std::string& message,
                       const std::string& hint) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", code);
  if (!hint.empty()) error.Set("hint", hint);
  return error;
}

ErrorFields describe_current_exception() {
  try {
    throw;
  } catch (const EngineError& e) {
    return {e.code(), e.what(), e.hint()};
  } catch (const c10::OutOfMemoryError& e) {
    return {"OUT_OF_MEMORY", e.what_without_backtrace(),
            "Lower --per_device_train_batch_size or --max_length."};
  } catch (const c10::Error& e) {
    const std::string message = e.what_without_backtrace();
    // libtorch's CPU allocator reports through a plain c10::Error.
    const bool memory = message.find("can't allocate memory") != std::string::npos;
    return {memory ? "OUT_OF_MEMORY" : "INTERNAL", message,
            memory ? "Lower --per_device_train_batch_size or --max_length." : ""};
  } catch (const std::bad_alloc&) {
    return {"OUT_OF_MEMORY", "Out of memory", "Lower --per_device_train_batch_size or --max_length."};
  } catch (const std::exception& e) {
    return {"INTERNAL", e.what(), ""};
  } catch (...) {
    return {"INTERNAL", "An error of an unknown type in the engine", ""};
  }
}

}  // namespace peft::binding
