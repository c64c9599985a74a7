#include "weights/quant_file.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "error.h"
#include "weights/code_book.h"
#include "weights/quant_state.h"

namespace peft {
namespace {

constexpr const char* kState = ".quant_state.bitsandbytes__";
constexpr WeightFormat kStoredFormats[] = {WeightFormat::kNf4, WeightFormat::kFp4, WeightFormat::kInt8};
/// The square of a larger weight is beyond fp32, and no LayerNorm behind it is finite.
const float kLargestScale = std::sqrt(std::numeric_limits<float>::max());

/// The tensors of one module, each checked as it is read.
class ModuleReader {
 public:
  ModuleReader(const SafetensorsFile& file, const std::string& module) : file_(file), module_(module) {}

  [[noreturn]] void fail(const std::string& name, const std::string& what) const {
    throw EngineError("QUANT_STATE", file_.path() + ": tensor \"" + module_ + name + "\" " + what,
                      "The file is damaged or was not written by bitsandbytes: quantise the model again with "
                      "`npx peft-train quantize`.");
  }

  bool has(const std::string& name) const { return file_.has(module_ + name); }

  Tensor read(const std::string& name, at::ScalarType type, int64_t elements) const {
    if (!has(name)) fail(name, "is missing");
    const Tensor t = file_.read(module_ + name);
    if (t.scalar_type() != type) {
      fail(name, "is " + file_.table().at(module_ + name).dtype + ", expected " + safetensors_dtype(type));
    }
    if (t.numel() != elements) {
      fail(name, "has " + std::to_string(t.numel()) + " elements, its quantisation state asks for " +
                     std::to_string(elements));
    }
    return t.flatten();
  }

  /// A tensor of fp32 without NaN, infinity, negative numbers or any that no model can have.
  Tensor read_scales(const std::string& name, int64_t elements) const {
    const Tensor t = read(name, at::kFloat, elements);
    if (!t.isfinite().all().item<bool>()) fail(name, "holds NaN or infinity");
    if ((t < 0).any().item<bool>()) fail(name, "holds a negative scale");
    if ((t > kLargestScale).any().item<bool>()) fail(name, "holds a scale beyond 1.8e19");
    return t;
  }

  template <size_t N>
  void check_map(const std::string& name, const std::array<float, N>& expected) const {
    const Tensor map = read(name, at::kFloat, N);
    for (size_t i = 0; i < N; i++) {
      if (map.const_data_ptr<float>()[i] != expected[i]) {
        fail(name, "differs at code " + std::to_string(i) + " from the map of its kind");
      }
    }
  }

 private:
  const SafetensorsFile& file_;
  const std::string& module_;
};

QuantState read_state(const SafetensorsFile& file, const std::string& key) {
  const Tensor bytes = file.read(key);
  if (bytes.scalar_type() != at::kByte) {
    throw EngineError(
        "QUANT_STATE",
        file.path() + ": tensor \"" + key + "\" is " + file.table().at(key).dtype + ", expected U8",
        "Quantise the model again with `npx peft-train quantize`.");
  }
  const auto* text = reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>());
  return parse_quant_state(std::string(text, static_cast<size_t>(bytes.numel())),
                           file.path() + ": tensor \"" + key + "\"");
}

void read_outliers(const ModuleReader& reader, const SafetensorsFile& file, const std::string& module,
                   BlockwiseWeight& w) {
  const std::string index = ".weight.outlier_index", value = ".weight.outlier_value";
  if (!reader.has(index) && !reader.has(value)) return;
  if (!reader.has(index)) reader.fail(index, "is missing beside its values");
  if (!reader.has(value)) reader.fail(value, "is missing beside its places");
  const int64_t count = static_cast<int64_t>(file.table().at(module + index).elements());
  w.outlier_index = reader.read(index, at::kInt, count);
  w.outlier_value = reader.read(value, at::kHalf, count);
  if (count == 0) {
    w.outlier_index = w.outlier_value = Tensor();
    return;
  }
  int64_t before = -1;
  for (int64_t i = 0; i < count; i++) {
    const int64_t at = w.outlier_index.const_data_ptr<int32_t>()[i];
    if (at <= before || at >= w.elements()) reader.fail(index, "does not rise within the matrix");
    before = at;
  }
  if (!w.outlier_value.isfinite().all().item<bool>()) reader.fail(value, "holds NaN or infinity");
}

Tensor text_tensor(const std::string& text) {
  Tensor t = at::empty({static_cast<int64_t>(text.size())}, at::TensorOptions().dtype(at::kByte));
  std::memcpy(t.mutable_data_ptr<uint8_t>(), text.data(), text.size());
  return t;
}

template <size_t N>
Tensor map_tensor(const std::array<float, N>& values) {
  return at::tensor(at::ArrayRef<float>(values.data(), N), at::kFloat);
}

}  // namespace

std::string state_key(const std::string& module, WeightFormat format) {
  if (format == WeightFormat::kInt8) return module + ".SCB";
  return module + ".weight" + kState + weight_format_name(format);
}

std::optional<WeightFormat> stored_format(const SafetensorsFile& file, const std::string& module) {
  std::optional<WeightFormat> found;
  for (const WeightFormat format : kStoredFormats) {
    if (!file.has(state_key(module, format))) continue;
    if (found) {
      ModuleReader(file, module)
          .fail(".weight", std::string("has a state of ") + weight_format_name(*found) + " and one of " +
                               weight_format_name(format));
    }
    found = format;
  }
  return found;
}

std::optional<WeightFormat> first_stored_format(const SafetensorsFile& file, const std::string& prefix) {
  for (const auto& [key, entry] : file.table()) {
    if (!key.starts_with(prefix)) continue;
    for (const WeightFormat format : kStoredFormats) {
      const std::string suffix = state_key("", format);
      if (key.ends_with(suffix)) return stored_format(file, key.substr(0, key.size() - suffix.size()));
    }
  }
  return std::nullopt;
}

BlockwiseWeight read_blockwise(const SafetensorsFile& file, const std::string& module, int64_t out,
                               int64_t in) {
  const ModuleReader reader(file, module);
  const WeightFormat format = *stored_format(file, module);
  const std::string name = state_key("", format);
  const QuantState state = read_state(file, module + name);
  if (state.format != format) reader.fail(name, "is of another quant_type than its key says");
  if (state.shape != std::vector<int64_t>{out, in}) {
    reader.fail(name, "is for another shape than [" + std::to_string(out) + ", " + std::to_string(in) +
                          "], which config.json asks for");
  }
  BlockwiseWeight w;
  w.format = format;
  w.out = out;
  w.in = in;
  w.block_size = state.block_size;
  reader.check_map(".weight.quant_map", four_bit_code_book(format).value);
  w.codes = reader.read(".weight", at::kByte, (w.elements() + 1) / 2);
  if (state.nested) {
    reader.check_map(".weight.nested_quant_map", dynamic_code_book().value);
    w.absmax_codes = reader.read(".weight.absmax", at::kByte, w.blocks());
    w.nested_absmax =
        reader.read_scales(".weight.nested_absmax", (w.blocks() + kNestedBlock - 1) / kNestedBlock);
    w.nested_offset = static_cast<float>(state.nested_offset);
    if (w.nested_offset < 0 || w.nested_offset > kLargestScale) {
      reader.fail(name, "has a nested_offset that is no mean of scales: expected 0 to 1.8e19");
    }
  } else {
    w.absmax = reader.read_scales(".weight.absmax", w.blocks());
  }
  read_outliers(reader, file, module, w);
  return w;
}

RowInt8Weight read_row_int8(const SafetensorsFile& file, const std::string& module, int64_t out, int64_t in) {
  const ModuleReader reader(file, module);
  const std::string key = module + ".weight_format";
  // 0 is row-major, the only layout that bitsandbytes writes on today's devices.
  if (file.has(key) && file.read(key).to(at::kLong).sum().item<int64_t>() != 0) {
    reader.fail(".weight_format", "names a layout other than row");
  }
  if (file.has(module + ".weight") && file.table().at(module + ".weight").shape != std::vector{out, in}) {
    reader.fail(".weight", "has another shape than config.json asks for");
  }
  for (const char* name : {".weight.outlier_index", ".weight.outlier_value"}) {
    if (reader.has(name)) reader.fail(name, "stands beside 8-bit weights, which keep no weights apart");
  }
  const Tensor codes = reader.read(".weight", at::kChar, out * in).view({out, in});
  if ((codes == -128).any().item<bool>()) reader.fail(".weight", "holds -128; codes go from -127 to 127");
  return {codes, reader.read_scales(".SCB", out)};
}

void put_blockwise(std::map<std::string, Tensor>& tensors, const std::string& module,
                   const BlockwiseWeight& w) {
  const std::string key = module + ".weight";
  QuantState state;
  state.format = w.format;
  state.block_size = w.block_size;
  state.shape = {w.out, w.in};
  state.nested = w.double_quant();
  state.nested_offset = w.nested_offset;
  tensors[key] = w.codes.unsqueeze(1);
  tensors[key + ".absmax"] = state.nested ? w.absmax_codes : w.absmax;
  tensors[key + ".quant_map"] = map_tensor(four_bit_code_book(w.format).value);
  if (state.nested) {
    tensors[key + ".nested_absmax"] = w.nested_absmax;
    tensors[key + ".nested_quant_map"] = map_tensor(dynamic_code_book().value);
  }
  tensors[key + kState + weight_format_name(w.format)] = text_tensor(format_quant_state(state));
  if (w.outlier_index.defined()) {
    tensors[key + ".outlier_index"] = w.outlier_index;
    tensors[key + ".outlier_value"] = w.outlier_value;
  }
}

void put_row_int8(std::map<std::string, Tensor>& tensors, const std::string& module, const RowInt8Weight& w) {
  tensors[module + ".weight"] = w.codes;
  tensors[module + ".SCB"] = w.absmax;
  tensors[module + ".weight_format"] = at::zeros({}, at::TensorOptions().dtype(at::kByte));
}

}  // namespace peft
