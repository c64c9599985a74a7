#pragma once

#include <string>

namespace peft::cuda {

/// Compiled kernels on disk, under kernels/ of the package's cache folder (PEFT_TRAIN_CACHE, else peft-train
/// in XDG_CACHE_HOME or in ~/.cache). A folder that cannot be written or read costs time only.
class KernelCache {
 public:
  KernelCache();
  explicit KernelCache(std::string folder) : folder_(std::move(folder)) {}

  /// A name for what comes of `text`: equal for equal text, different for any other.
  static std::string key(const std::string& text);

  /// Empty where there is none.
  std::string read(const std::string& name) const;
  /// Whole or not at all, also with two processes at once.
  void write(const std::string& name, const std::string& binary) const;

 private:
  std::string folder_;
};

}  // namespace peft::cuda
