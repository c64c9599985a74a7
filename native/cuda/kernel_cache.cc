#include "cuda/kernel_cache.h"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace peft::cuda {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// As lib/setup/cache.ts.
std::string cache_folder() {
  if (const std::string own = variable("PEFT_TRAIN_CACHE"); !own.empty()) return own;
  const std::string base = variable("XDG_CACHE_HOME");
  if (!base.empty() && base[0] == '/') return base + "/peft-train";
  const std::string home = variable("HOME");
  return home.empty() ? "" : home + "/.cache/peft-train";
}

/// FNV-1a, 64 bits, from two starting points.
uint64_t fnv(const std::string& text, uint64_t hash) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace

KernelCache::KernelCache() {
  const std::string folder = cache_folder();
  if (!folder.empty()) folder_ = folder + "/kernels";
}

std::string KernelCache::key(const std::string& text) {
  char out[40];
  std::snprintf(out, sizeof(out), "%016llx%016llx",
                static_cast<unsigned long long>(fnv(text, 0xcbf29ce484222325u)),
                static_cast<unsigned long long>(fnv(text, 0x84222325cbf29ce4u)));
  return out;
}

std::string KernelCache::read(const std::string& name) const {
  if (folder_.empty()) return "";
  std::ifstream in(folder_ + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void KernelCache::write(const std::string& name, const std::string& binary) const {
  if (folder_.empty()) return;
  std::error_code error;
  fs::create_directories(folder_, error);
  const std::string path = folder_ + "/" + name, temporary = path + "." + std::to_string(::getpid()) + ".tmp";
  bool whole = false;
  {
    std::ofstream out(temporary, std::ios::binary);
    out.write(binary.data(), static_cast<std::streamsize>(binary.size()));
    whole = out.flush().good();
  }
  if (whole) fs::rename(temporary, path, error);
  if (!whole || error) fs::remove(temporary, error);
}

}  // namespace peft::cuda
