#include "weights/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "error.h"

namespace peft {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format

struct Dtype {
  const char* name;
  at::ScalarType type;
};
constexpr Dtype kDtypes[] = {{"F32", at::kFloat},  {"F16", at::kHalf}, {"BF16", at::kBFloat16},
                             {"F64", at::kDouble}, {"U8", at::kByte},  {"I8", at::kChar},
                             {"I32", at::kInt},    {"I64", at::kLong}};

at::ScalarType scalar_type(const std::string& name) {
  for (const Dtype& d : kDtypes) {
    if (name == d.name) return d.type;
  }
  return at::ScalarType::Undefined;
}

/// Lets the pages of a tensor that was read go, so that a whole model never counts as resident; they come
/// back from the file if they are asked for again.
void release_pages(const char* from, size_t bytes) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(from) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(from) + bytes) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

void write_all(int fd, const char* data, size_t size, const std::string& path) {
  while (size > 0) {
    const ssize_t written = ::write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const std::string reason = std::strerror(errno);
      ::unlink(path.c_str());
      throw EngineError("OUTPUT_UNWRITABLE", "Cannot write " + path + ": " + reason,
                        "Free some space or choose another --output_dir.");
    }
    data += written;
    size -= static_cast<size_t>(written);
  }
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) {
    throw EngineError(errno == ENOENT ? "FILE_NOT_FOUND" : "FILE_UNREADABLE",
                      "Cannot read " + path + ": " + std::strerror(errno));
  }
  size_ = static_cast<size_t>(status.st_size);
  const auto corrupt = [&](const std::string& what) {
    return EngineError("MODEL_CORRUPT", path + ": " + what, "Download or export the file again.");
  };
  if (!S_ISREG(status.st_mode)) throw EngineError("FILE_UNREADABLE", path + " is not a file");
  if (size_ < 8) throw corrupt("not a safetensors file: only " + std::to_string(size_) + " bytes long");
  void* map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (map == MAP_FAILED)
    throw EngineError("FILE_UNREADABLE", "Cannot map " + path + ": " + std::strerror(errno));
  map_ = static_cast<const char*>(map);
  try {
    uint64_t header = 0;
    std::memcpy(&header, map_, 8);
    if (header > kMaxHeaderBytes || header > size_ - 8) {
      throw corrupt("not a safetensors file or cut short: a header of " + std::to_string(header) +
                    " bytes in a file of " + std::to_string(size_));
    }
    data_offset_ = 8 + static_cast<size_t>(header);
    table_ = parse_safetensors_header({map_ + 8, static_cast<size_t>(header)}, size_ - data_offset_, path);
  } catch (...) {
    ::munmap(map, size_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { ::munmap(const_cast<char*>(map_), size_); }

at::Tensor SafetensorsFile::read(const std::string& key) const {
  const TensorEntry& entry = table_.at(key);
  const at::ScalarType type = scalar_type(entry.dtype);
  if (type == at::ScalarType::Undefined) {
    throw EngineError("MODEL_UNSUPPORTED", path_ + ": tensor \"" + key + "\" is " + entry.dtype +
                                               "; expected F32, F16, BF16, F64, U8, I8, I32 or I64");
  }
  // A copy through memcpy: the format does not promise that a tensor is aligned within the file.
  at::Tensor raw = at::empty(entry.shape, at::TensorOptions().dtype(type));
  if (raw.numel() > 0) {
    const char* from = map_ + data_offset_ + entry.begin;
    const size_t bytes = entry.end - entry.begin;
    std::memcpy(raw.data_ptr(), from, bytes);
    release_pages(from, bytes);
  }
  return raw;
}

at::Tensor SafetensorsFile::read_float(const std::string& key) const {
  const at::Tensor raw = read(key);
  if (!raw.is_floating_point()) {
    throw EngineError("MODEL_UNSUPPORTED", path_ + ": tensor \"" + key + "\" is " + table_.at(key).dtype +
                                               "; expected F32, F16, BF16 or F64");
  }
  at::Tensor value = raw.to(at::kFloat);
  if (!at::isfinite(value).all().item<bool>()) {
    throw EngineError("NOT_FINITE", path_ + ": tensor \"" + key + "\" holds NaN or infinity");
  }
  return value;
}

const char* safetensors_dtype(at::ScalarType type) {
  for (const Dtype& d : kDtypes) {
    if (type == d.type) return d.name;
  }
  TORCH_CHECK(false, "no safetensors dtype for ", type);
}

void write_safetensors(const std::string& path, const std::map<std::string, at::Tensor>& tensors) {
  std::vector<std::string> order;
  for (const auto& [key, tensor] : tensors) order.push_back(key);
  std::stable_sort(order.begin(), order.end(), [&](const std::string& a, const std::string& b) {
    return tensors.at(a).element_size() > tensors.at(b).element_size();
  });
  TensorTable table;
  uint64_t position = 0;
  for (const std::string& key : order) {
    const at::Tensor& tensor = tensors.at(key);
    const uint64_t bytes = static_cast<uint64_t>(tensor.numel() * tensor.element_size());
    table[key] = {safetensors_dtype(tensor.scalar_type()), tensor.sizes().vec(), position, position + bytes};
    position += bytes;
  }
  const std::string header = format_safetensors_header(table);
  const uint64_t header_size = header.size();

  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file.get() < 0) {
    throw EngineError("OUTPUT_UNWRITABLE", "Cannot write " + path + ": " + std::strerror(errno));
  }
  write_all(file.get(), reinterpret_cast<const char*>(&header_size), 8, path);
  write_all(file.get(), header.data(), header.size(), path);
  for (const std::string& key : order) {
    const at::Tensor data = tensors.at(key).to(at::kCPU).contiguous();
    write_all(file.get(), static_cast<const char*>(data.data_ptr()), data.nbytes(), path);
  }
  if (::fsync(file.get()) != 0) {
    const std::string reason = std::strerror(errno);
    ::unlink(path.c_str());
    throw EngineError("OUTPUT_UNWRITABLE", "Cannot write " + path + ": " + reason);
  }
}

}  // namespace peft
