#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

namespace peft {

/// A named activation buffer that grows to the largest batch seen and is reused from then on: fresh memory
/// for every step would cost a page fault for every 4 KiB of it.
class Buffer {
 public:
  /// A view of `rows` rows of `columns` floats, or of `rows` floats where columns is 0; contents are
  /// undefined.
  at::Tensor take(int64_t rows, int64_t columns, at::Device device) {
    const int64_t needed = rows * (columns == 0 ? 1 : columns);
    if (!storage_.defined() || storage_.numel() < needed) {
      storage_ = at::Tensor();  // the old block goes before the new one comes
      storage_ = at::empty({capacity(needed)}, at::TensorOptions().dtype(at::kFloat).device(device));
    }
    const at::Tensor flat = storage_.narrow(0, 0, needed);
    return columns == 0 ? flat : flat.view({rows, columns});
  }

  /// Floats that a buffer holds which was made for so many.
  static int64_t capacity(int64_t needed) { return needed + needed / 8; }
  void release() { storage_ = at::Tensor(); }
  int64_t bytes() const { return storage_.defined() ? static_cast<int64_t>(storage_.nbytes()) : 0; }

 private:
  at::Tensor storage_;
};

}  // namespace peft
