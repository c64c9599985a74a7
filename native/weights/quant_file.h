#pragma once

#include <map>
#include <optional>
#include <string>

#include "weights/blockwise.h"
#include "weights/row_int8.h"
#include "weights/safetensors.h"

namespace peft {

// Quantised weights in a safetensors file, under the keys that transformers and bitsandbytes write for a
// linear layer `module`, plus two of our own for outliers: `<module>.weight.outlier_index` (I32, rising, into
// the row-major matrix) and `<module>.weight.outlier_value` (F16).

/// How the file holds the weight of `module`, or nothing for plain numbers.
std::optional<WeightFormat> stored_format(const SafetensorsFile& file, const std::string& module);

/// Throws QUANT_STATE where the state, the tensors and [out, in] do not agree.
BlockwiseWeight read_blockwise(const SafetensorsFile& file, const std::string& module, int64_t out,
                               int64_t in);
RowInt8Weight read_row_int8(const SafetensorsFile& file, const std::string& module, int64_t out, int64_t in);

/// The same tensors, to be written.
void put_blockwise(std::map<std::string, Tensor>& tensors, const std::string& module,
                   const BlockwiseWeight& weight);
void put_row_int8(std::map<std::string, Tensor>& tensors, const std::string& module,
                  const RowInt8Weight& weight);

}  // namespace peft
