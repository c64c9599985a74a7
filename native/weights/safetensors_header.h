#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace peft {

/// One entry of a safetensors header; offsets count from the first byte after the header.
struct TensorEntry {
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;

  uint64_t elements() const;
};

using TensorTable = std::map<std::string, TensorEntry>;

/// Size in bytes of one element, or 0 for a dtype this engine does not read.
int dtype_bytes(std::string_view dtype);

/// Parses the JSON of a safetensors header and checks every rule of the format: unique keys, known dtypes,
/// shapes that agree with their byte ranges, ranges that cover `data_bytes` without hole or overlap. `path`
/// is for errors.
TensorTable parse_safetensors_header(std::string_view json, uint64_t data_bytes, const std::string& path);

/// The same header as text, keys in sorted order, with metadata {"format":"pt"}, padded with spaces to 8
/// bytes.
std::string format_safetensors_header(const TensorTable& table);

}  // namespace peft
