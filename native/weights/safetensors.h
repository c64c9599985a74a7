#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "weights/safetensors_header.h"

namespace peft {

/// A safetensors file, memory-mapped for reading. Tensors are copied out, so the file may go once this is
/// gone.
class SafetensorsFile {
 public:
  /// Throws FILE_NOT_FOUND, FILE_UNREADABLE or MODEL_CORRUPT.
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const TensorTable& table() const { return table_; }
  bool has(const std::string& key) const { return table_.count(key) != 0; }

  /// The tensor as fp32 on the CPU, checked to be finite. F16, BF16 and F64 are converted.
  at::Tensor read_float(const std::string& key) const;
  /// A copy in the dtype it has: F32, F16, BF16, F64, U8, I8, I32 or I64.
  at::Tensor read(const std::string& key) const;

 private:
  std::string path_;
  const char* map_ = nullptr;
  size_t size_ = 0;
  size_t data_offset_ = 0;
  TensorTable table_;
};

/// The name of a type in a safetensors file: `F32`.
const char* safetensors_dtype(at::ScalarType type);

/// Writes CPU tensors and syncs the file: widest dtype first, so that each is aligned, then in key order.
/// Throws OUTPUT_UNWRITABLE and leaves no file behind.
void write_safetensors(const std::string& path, const std::map<std::string, at::Tensor>& tensors);

}  // namespace peft
