#pragma once

#include <string>
#include <vector>

#include "cuda/kernel_source.h"
#include "cuda/shared_library.h"

namespace peft::cuda {

/// NVIDIA's run-time compiler, which a CUDA libtorch brings along. It needs no GPU and no driver.
class Nvrtc {
 public:
  /// The first that opens: what PEFT_TRAIN_NVRTC names (the library or its folder) and nothing else where
  /// that is set, then in these folders, then wherever the system's loader finds one. Throws
  /// DEVICE_UNAVAILABLE.
  explicit Nvrtc(const std::vector<std::string>& folders);

  /// The file that was opened.
  const std::string& path() const { return library_.name(); }
  /// As "13.0".
  const std::string& version() const { return version_; }
  /// Compute capabilities that it compiles for, as 75 for 7.5, rising.
  const std::vector<int>& architectures() const { return architectures_; }

  struct Options {
    int architecture = 0;
    /// Machine code for this architecture alone, or PTX that drivers compile for it and later ones.
    bool machine_code = true;
    /// Makes the log name registers and spilled bytes of each kernel.
    bool report_resources = false;
  };
  struct Result {
    std::string binary;
    std::string log;
  };
  /// Throws INTERNAL with the compiler's log.
  Result compile(const KernelSource& program, const Options& options) const;

 private:
  void open(const std::vector<std::string>& folders);
  void check(int result, const char* what) const;

  SharedLibrary builtins_, library_;
  std::string version_;
  std::vector<int> architectures_;

  using Program = void*;
  int (*version_of_)(int*, int*) = nullptr;
  int (*architecture_count_)(int*) = nullptr;
  int (*architecture_list_)(int*) = nullptr;
  int (*create_)(Program*, const char*, const char*, int, const char* const*, const char* const*) = nullptr;
  int (*destroy_)(Program*) = nullptr;
  int (*compile_)(Program, int, const char* const*) = nullptr;
  int (*log_size_)(Program, size_t*) = nullptr;
  int (*log_)(Program, char*) = nullptr;
  int (*ptx_size_)(Program, size_t*) = nullptr;
  int (*ptx_)(Program, char*) = nullptr;
  int (*cubin_size_)(Program, size_t*) = nullptr;
  int (*cubin_)(Program, char*) = nullptr;
  const char* (*error_)(int) = nullptr;
};

/// The folders of a libtorch that may hold NVRTC, from the file name of one of its libraries.
std::vector<std::string> nvrtc_folders(const std::string& libtorch_library);

}  // namespace peft::cuda
