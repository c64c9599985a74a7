#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

/// Memory of a kernel: it ends where a page begins that cannot be touched, so that an access beyond it stops
/// the process; before it lie bytes that must stay as they are. New memory is NaN (all bits set).
template <typename T>
class Guarded {
 public:
  /// `alignment` of the first element; where it leaves bytes behind the last, these must stay as they are
  /// too.
  explicit Guarded(size_t count, size_t alignment = alignof(T)) : count_(count) {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    used_ = (count * sizeof(T) + alignment - 1) / alignment * alignment;
    readable_ = (used_ + kBefore + page - 1) / page * page;
    mapped_ = readable_ + kBeyond;
    void* const base = ::mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::runtime_error("mmap failed");
    base_ = static_cast<unsigned char*>(base);
    ::mprotect(base_, readable_, PROT_READ | PROT_WRITE);
    std::memset(base_, 0xff, readable_);
  }
  explicit Guarded(const std::vector<T>& values, size_t alignment = alignof(T))
      : Guarded(values.size(), alignment) {
    if (!values.empty()) std::memcpy(data(), values.data(), values.size() * sizeof(T));
  }
  Guarded(Guarded&& other) noexcept { *this = std::move(other); }
  Guarded& operator=(Guarded&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(count_, other.count_);
    std::swap(used_, other.used_);
    std::swap(readable_, other.readable_);
    std::swap(mapped_, other.mapped_);
    return *this;
  }
  ~Guarded() {
    if (base_ != nullptr) ::munmap(base_, mapped_);
  }

  T* data() { return reinterpret_cast<T*>(base_ + readable_ - used_); }
  const T* data() const { return const_cast<Guarded*>(this)->data(); }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }

  /// Throws if bytes around the elements have changed.
  void check_around(const std::string& what) const {
    const auto* first = reinterpret_cast<const unsigned char*>(data());
    for (const unsigned char* p = base_; p < base_ + readable_; p++) {
      const bool inside = p >= first && p < first + count_ * sizeof(T);
      if (!inside && *p != 0xff) throw std::runtime_error(what + ": a write outside its memory");
    }
  }

 private:
  static constexpr size_t kBefore = 256, kBeyond = 1 << 20;

  unsigned char* base_ = nullptr;
  size_t count_ = 0, used_ = 0, readable_ = 0, mapped_ = 0;
};

/// Throws if anything was written between the rows of a matrix whose rows are `stride` apart.
template <typename T>
void check_gaps(const Guarded<T>& matrix, int columns, int stride, const std::string& what) {
  for (size_t i = 0; i < matrix.size(); i++) {
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, matrix.data() + i, sizeof(T));
    for (const unsigned char byte : bytes) {
      const bool gap = static_cast<int>(i % static_cast<size_t>(stride)) >= columns;
      if (gap && byte != 0xff) throw std::runtime_error(what + ": a write between the rows");
    }
  }
}
