#include "peak_memory.h"

#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <atomic>

namespace peft::test {
namespace {

std::atomic<int64_t> held{0}, most{0};

struct Block {
  c10::DataPtr memory;
  int64_t bytes;
};

void release(void* context) {
  const auto* block = static_cast<Block*>(context);
  held -= block->bytes;
  delete block;
}

class CountingAllocator : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* real) : real_(real) {}

  c10::DataPtr allocate(size_t bytes) override {
    auto* block = new Block{real_->allocate(bytes), static_cast<int64_t>(bytes)};
    const int64_t now = held += block->bytes;
    for (int64_t seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
    }
    return {block->memory.get(), block, release, block->memory.device()};
  }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  c10::Allocator* real_;
};

}  // namespace

PeakMemory::PeakMemory() : before_(c10::GetCPUAllocator()) {
  // Tensors that outlive the count are given back through it: it stays.
  static CountingAllocator counting(before_);
  held = most = 0;
  c10::SetCPUAllocator(&counting);
}

PeakMemory::~PeakMemory() { c10::SetCPUAllocator(before_); }

int64_t PeakMemory::peak() const { return most; }

}  // namespace peft::test
