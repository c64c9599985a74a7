#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/upload.h"
#include "kernels/kernels.h"
#include "weights/model_shape.h"

namespace peft {

/// Texts as packed token ids: text i is ids[offsets[i] .. offsets[i + 1]).
struct TokenBatch {
  std::vector<int32_t> ids;
  std::vector<int32_t> offsets;

  int64_t texts() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

/// Throws USAGE for offsets that do not rise from 0 to ids.size(), an id outside the vocabulary, or a text
/// that is empty or longer than the position table: nothing that follows checks again.
void check_batch(const TokenBatch& batch, const ModelShape& shape);

/// The texts of `order`, in that order.
TokenBatch gather_texts(const TokenBatch& batch, const std::vector<int64_t>& order);

/// Rows [begin, end) of a batch and the number of their adapter; -1 for none.
struct AdapterPart {
  int64_t begin, end;
  int32_t adapter;
};

/// The tokens of a batch by adapter, part by part from the first row to the last.
using AdapterRows = std::vector<AdapterPart>;

/// A run of texts of a batch that goes through the encoder at once, on the device.
struct MicroBatch {
  Tensor ids;            // int32 [T]
  PackedLayout layout;   // offsets from 0
  uint32_t first_token;  // of this run within the batch; dropout counts from there
  int64_t first_text;
  int64_t texts;
  AdapterRows adapters;
};

/// First text and number of texts.
using TextRun = std::pair<int64_t, int64_t>;
using TextRuns = std::vector<TextRun>;

/// Splits a batch into runs of at most `max_tokens` tokens, never inside a group of `texts_per_group` texts;
/// a group that is longer than that runs alone.
TextRuns split_batch(const TokenBatch& batch, int64_t texts_per_group, int64_t max_tokens);

/// Numbers that make_micro_batch asks the upload for, of all runs of a batch.
int64_t upload_size(const TokenBatch& batch, const TextRuns& runs);
/// On the device once the upload is sent. With the adapter of every text of the batch, which lie together
/// adapter by adapter; without, all take the first.
MicroBatch make_micro_batch(const TokenBatch& batch, const TextRun& run, Upload& upload,
                            const std::vector<int32_t>& adapter_of_text = {});
/// In an upload of its own.
MicroBatch make_micro_batch(const TokenBatch& batch, int64_t first_text, int64_t texts, at::Device device,
                            const std::vector<int32_t>& adapter_of_text = {});

}  // namespace peft
