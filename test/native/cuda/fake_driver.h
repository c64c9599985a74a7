#pragma once

#include <string>

namespace peft::test {

/// Makes Driver find a libcuda.so.1 whose device runs kernels on the CPU through the shim (fake_libcuda.cc).
/// For the rest of the process.
class FakeDriver {
 public:
  FakeDriver();
  /// Whether that was done already.
  static bool loaded();
  int launches() const;
  std::string loaded_module() const;
  /// Contexts that were pushed and not popped.
  int contexts_pushed() const;
};

}  // namespace peft::test
