#pragma once

#include <dlfcn.h>

#include <string>

#include "error.h"

namespace peft::cuda {

/// A library opened at run time. It stays loaded for the life of the process, as drivers and compilers
/// expect.
class SharedLibrary {
 public:
  SharedLibrary() = default;
  /// `reason()` says why where it could not be opened.
  explicit SharedLibrary(const std::string& name)
      : name_(name), handle_(::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) reason_ = ::dlerror();
  }

  bool opened() const { return handle_ != nullptr; }
  const std::string& name() const { return name_; }
  const std::string& reason() const { return reason_; }

  /// Throws DEVICE_UNAVAILABLE where the library has no such function.
  template <typename Function>
  void find(const char* symbol, Function*& function) const {
    function = reinterpret_cast<Function*>(::dlsym(handle_, symbol));
    if (function == nullptr) throw EngineError("DEVICE_UNAVAILABLE", name_ + " has no " + symbol);
  }

 private:
  std::string name_, reason_;
  void* handle_ = nullptr;
};

}  // namespace peft::cuda
