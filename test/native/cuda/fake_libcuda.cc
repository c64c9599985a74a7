// A libcuda.so.1 for the tests: a few devices, and what is launched goes to a function that the test names.
// Signatures and numbers are those of CUDA's driver interface.

#include <cstring>
#include <set>
#include <string>

namespace {

constexpr int kArchitectures[] = {86, 86, 86, 72, 121, 0, 86};  // compute capability by ordinal; 0: no device
constexpr int kSuccess = 0, kOutOfMemory = 2, kFake = 999;
char context, module;
int depth = 0;
void (*on_launch)(const char* kernel, unsigned x, unsigned y, unsigned threads, const void* args) = nullptr;
std::set<std::string> functions;
std::string loaded;

}  // namespace

extern "C" {

void fake_set_launch(decltype(on_launch) run) { on_launch = run; }
int fake_depth() { return depth; }
/// What was last loaded as a module.
const char* fake_loaded() { return loaded.c_str(); }

int cuInit(unsigned flags) { return flags == 0 ? kSuccess : kFake; }
int cuGetErrorName(int, const char** name) {
  *name = "CUDA_ERROR_FAKE";
  return kSuccess;
}
int cuGetErrorString(int, const char** text) {
  *text = "as the test asked for";
  return kSuccess;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = 100 + ordinal;  // a handle is not an ordinal
  return ordinal >= 0 && ordinal < 7 && kArchitectures[ordinal] != 0 ? kSuccess : kFake;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (device < 100 || (attribute != 75 && attribute != 76)) return kFake;
  const int architecture = kArchitectures[device - 100];
  *value = attribute == 75 ? architecture / 10 : architecture % 10;
  return kSuccess;
}
int cuDevicePrimaryCtxRetain(void** out, int device) {
  *out = &context;
  return device >= 100 ? kSuccess : kFake;
}
int cuCtxPushCurrent_v2(void* given) {
  depth++;
  return given == &context ? kSuccess : kFake;
}
int cuCtxPopCurrent_v2(void** out) {
  depth--;
  *out = &context;
  return kSuccess;
}
int cuModuleLoadData(void** out, const void* image) {
  if (depth != 1) return kFake;
  *out = &module;
  loaded = static_cast<const char*>(image);
  if (loaded == "damaged") return kFake;
  return *static_cast<const char*>(image) == '\0' ? kOutOfMemory : kSuccess;
}
int cuModuleGetFunction(void** out, void* given, const char* name) {
  if (depth != 1 || given != &module) return kFake;
  *out = const_cast<char*>(functions.insert(name).first->c_str());
  return kSuccess;
}
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared, void* stream, void** args, void** extra) {
  if (depth != 1 || z != 1 || threads_y != 1 || threads_z != 1 || shared != 0 || stream == nullptr ||
      extra != nullptr) {
    return kFake;
  }
  on_launch(static_cast<const char*>(function), x, y, threads, args[0]);
  return kSuccess;
}

}  // extern "C"
