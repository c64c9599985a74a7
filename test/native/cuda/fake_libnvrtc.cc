// A libnvrtc.so for the tests: its machine code is the name of the program and the architecture. Signatures
// are those of NVRTC.

#include <cstring>
#include <string>

namespace {

constexpr int kSuccess = 0, kCompilation = 6;
constexpr int kArchitectures[] = {75, 80, 86, 90};
struct Program {
  std::string name, binary;
  bool machine_code = false;
};
int compiled = 0;

int size_of(const std::string& text, size_t* size) {
  *size = text.size() + 1;
  return kSuccess;
}
int copy(const std::string& text, char* out) {
  std::memcpy(out, text.c_str(), text.size() + 1);
  return kSuccess;
}

}  // namespace

extern "C" {

int fake_compiled() { return compiled; }

int nvrtcVersion(int* major, int* minor) {
  *major = 99, *minor = 1;
  return kSuccess;
}
int nvrtcGetNumSupportedArchs(int* count) {
  *count = 4;
  return kSuccess;
}
int nvrtcGetSupportedArchs(int* out) {
  std::memcpy(out, kArchitectures, sizeof(kArchitectures));
  return kSuccess;
}
int nvrtcCreateProgram(void** out, const char* text, const char* name, int headers, const char* const*,
                       const char* const*) {
  if (*text == '\0' || headers != 5) return kCompilation;
  *out = new Program{name, "", false};
  return kSuccess;
}
int nvrtcDestroyProgram(void** program) {
  delete static_cast<Program*>(*program);
  return kSuccess;
}
int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
  auto* program = static_cast<Program*>(handle);
  compiled++;
  for (int i = 0; i < count; i++) {
    const std::string option = options[i], architecture = "--gpu-architecture=";
    if (option.rfind(architecture, 0) != 0) continue;
    program->binary = program->name + " for " + option.substr(architecture.size());
    program->machine_code = option.find("=sm_") != std::string::npos;
  }
  return kSuccess;
}
int nvrtcGetProgramLogSize(void*, size_t* size) { return size_of("", size); }
int nvrtcGetProgramLog(void*, char* out) { return copy("", out); }
int nvrtcGetPTXSize(void* program, size_t* size) {
  return size_of(static_cast<Program*>(program)->binary, size);
}
int nvrtcGetPTX(void* program, char* out) { return copy(static_cast<Program*>(program)->binary, out); }
int nvrtcGetCUBINSize(void* handle, size_t* size) {
  const auto* program = static_cast<Program*>(handle);
  return program->machine_code ? size_of(program->binary, size) : kCompilation;
}
int nvrtcGetCUBIN(void* program, char* out) { return copy(static_cast<Program*>(program)->binary, out); }
const char* nvrtcGetErrorString(int) { return "as the test asked for"; }

}  // extern "C"
