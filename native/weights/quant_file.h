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

/// The tensor that says that `module` is held in this format: nf4, fp4 or int8.
std::string state_key(const std::string& module, WeightFormat format);

/// How the file holds the weight of `module`, or nothing for plain numbers. Throws QUANT_STATE where it says
/// more than one.
std::optional<WeightFormat> stored_format(const SafetensorsFile& file, const std::string& module);

/// The same of the first quantised module whose name starts with `prefix`, in order of the keys.
std::optional<WeightFormat> first_stored_format(const SafetensorsFile& file, const std::string& prefix);

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
