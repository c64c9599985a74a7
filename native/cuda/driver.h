#pragma once

#include <memory>
#include <string>

#include "cuda/shared_library.h"

namespace peft::cuda {

struct Grid {
  unsigned x = 1, y = 1;
};

/// The little of CUDA's driver interface that loads and launches kernels, found in libcuda.so.1 at run time:
/// nothing of CUDA is linked, so the same engine runs where there is no driver. Types of cuda.h appear as
/// void*.
class Driver {
 public:
  /// Throws DEVICE_UNAVAILABLE where there is no driver.
  Driver();

  /// Compute capability of a device as 75 for 7.5.
  int architecture(int device) const;

  /// Machine code or PTX, loaded into a context; never unloaded.
  class Module {
   public:
    Module(const Driver& driver, void* context, const std::string& binary);
    /// The kernel's handle. Throws INTERNAL where there is none of this name.
    void* function(const std::string& name) const;

   private:
    const Driver& driver_;
    void* context_;
    void* module_ = nullptr;
  };

  /// The device's primary context, which the CUDA runtime and so libtorch work in. Held until the process
  /// ends.
  void* context(int device) const;
  /// `args` points to the kernel's one parameter. Returns as soon as it is queued on the stream.
  void launch(void* context, void* function, Grid grid, unsigned threads, void* stream,
              const void* args) const;

 private:
  class CurrentContext;

  /// Throws OUT_OF_MEMORY or INTERNAL.
  void check(int result, const std::string& what) const;

  SharedLibrary library_;
  int (*init_)(unsigned) = nullptr;
  int (*error_name_)(int, const char**) = nullptr;
  int (*error_string_)(int, const char**) = nullptr;
  int (*device_get_)(int*, int) = nullptr;
  int (*device_attribute_)(int*, int, int) = nullptr;
  int (*retain_context_)(void**, int) = nullptr;
  int (*push_context_)(void*) = nullptr;
  int (*pop_context_)(void**) = nullptr;
  int (*load_)(void**, const void*) = nullptr;
  int (*get_function_)(void**, void*, const char*) = nullptr;
  int (*launch_)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**,
                 void**) = nullptr;
};

}  // namespace peft::cuda
