#pragma once

#include <cstdint>

namespace c10 {
struct Allocator;
}

namespace peft::test {

/// Counts the bytes of tensors on the CPU that are made while it lives.
class PeakMemory {
 public:
  PeakMemory();
  ~PeakMemory();
  PeakMemory(const PeakMemory&) = delete;
  /// The most that were held at once.
  int64_t peak() const;

 private:
  c10::Allocator* before_;
};

}  // namespace peft::test
