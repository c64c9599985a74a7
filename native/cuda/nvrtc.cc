#include "cuda/nvrtc.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace peft::cuda {
namespace {

namespace fs = std::filesystem;

bool is_library(const std::string& file, const std::string& stem) {
  // "libnvrtc.so.13" of a wheel, "libnvrtc-672ee683.so.11.2" of a libtorch archive; not the ".alt" variants.
  if (file.rfind(stem, 0) != 0 || file.find(".so") == std::string::npos) return false;
  return file.find(".alt.") == std::string::npos;
}

/// The libraries of a folder whose names begin with `stem`.
std::vector<std::string> libraries(const std::string& folder, const std::string& stem) {
  std::vector<std::string> found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const std::string file = entry.path().filename();
    const bool builtins = file.rfind("libnvrtc-builtins", 0) == 0;
    if (is_library(file, stem) && builtins == (stem == "libnvrtc-builtins")) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::vector<std::string> nvrtc_folders(const std::string& libtorch_library) {
  const fs::path lib = fs::path(libtorch_library).parent_path();
  std::vector<std::string> folders = {lib};
  // A wheel's torch/lib lies beside nvidia/cu13/lib, or nvidia/cuda_nvrtc/lib before CUDA 13.
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(lib / "../../nvidia", ignored)) {
    folders.push_back((entry.path() / "lib").lexically_normal());
  }
  std::sort(folders.begin() + 1, folders.end());
  return folders;
}

Nvrtc::Nvrtc(const std::vector<std::string>& folders) {
  open(folders);
  library_.find("nvrtcVersion", version_of_);
  library_.find("nvrtcGetNumSupportedArchs", architecture_count_);
  library_.find("nvrtcGetSupportedArchs", architecture_list_);
  library_.find("nvrtcCreateProgram", create_);
  library_.find("nvrtcDestroyProgram", destroy_);
  library_.find("nvrtcCompileProgram", compile_);
  library_.find("nvrtcGetProgramLogSize", log_size_);
  library_.find("nvrtcGetProgramLog", log_);
  library_.find("nvrtcGetPTXSize", ptx_size_);
  library_.find("nvrtcGetPTX", ptx_);
  library_.find("nvrtcGetCUBINSize", cubin_size_);
  library_.find("nvrtcGetCUBIN", cubin_);
  library_.find("nvrtcGetErrorString", error_);

  int major = 0, minor = 0, count = 0;
  check(version_of_(&major, &minor), "nvrtcVersion");
  version_ = std::to_string(major) + "." + std::to_string(minor);
  check(architecture_count_(&count), "nvrtcGetNumSupportedArchs");
  architectures_.resize(static_cast<size_t>(count));
  check(architecture_list_(architectures_.data()), "nvrtcGetSupportedArchs");
}

void Nvrtc::open(const std::vector<std::string>& folders) {
  const char* const named = std::getenv("PEFT_TRAIN_NVRTC");
  std::vector<std::string> searched = folders, files;
  std::string reason;
  if (named != nullptr && *named != '\0') {
    const bool folder = fs::is_directory(named);
    searched = {folder ? std::string(named) : std::string(fs::path(named).parent_path())};
    if (!folder) files = {named};
  }
  const auto attempt = [&](const std::string& folder, const std::string& file) {
    // NVRTC opens its builtins by their bare name, which is found only if they are in the process already.
    for (const std::string& each : libraries(folder, "libnvrtc-builtins")) builtins_ = SharedLibrary(each);
    library_ = SharedLibrary(file);
    if (!library_.opened()) reason = library_.reason();
    return library_.opened();
  };
  for (const std::string& folder : searched) {
    for (const std::string& file : files.empty() ? libraries(folder, "libnvrtc") : files) {
      if (attempt(folder, file)) return;
    }
  }
  if (named == nullptr || *named == '\0') {
    for (const char* file : {"libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"}) {
      if (attempt("", file)) return;
    }
  }
  std::string where;
  for (const std::string& folder : searched) where += (where.empty() ? "" : ", ") + folder;
  throw EngineError("DEVICE_UNAVAILABLE",
                    "No NVRTC (libnvrtc.so) in " + where + (reason.empty() ? "" : ": " + reason),
                    "Run: npx peft-train setup --device cuda, or name its folder in PEFT_TRAIN_NVRTC.");
}

void Nvrtc::check(int result, const char* what) const {
  if (result == 0) return;
  throw EngineError("DEVICE_UNAVAILABLE", std::string(what) + " of " + path() + ": " + error_(result));
}

Nvrtc::Result Nvrtc::compile(const KernelSource& program, const Options& options) const {
  std::vector<const char*> names, texts;
  for (const KernelSource& header : kernel_headers()) {
    names.push_back(header.name);
    texts.push_back(header.text);
  }
  Program handle = nullptr;
  check(create_(&handle, program.text, program.name, static_cast<int>(names.size()), texts.data(),
                names.data()),
        "nvrtcCreateProgram");
  struct Destroy {
    const Nvrtc& nvrtc;
    Program& handle;
    ~Destroy() { nvrtc.destroy_(&handle); }
  } destroy{*this, handle};

  const std::string kind = options.machine_code ? "sm_" : "compute_";
  const std::string architecture = "--gpu-architecture=" + kind + std::to_string(options.architecture);
  std::vector<const char*> arguments = {architecture.c_str(), "--std=c++17"};
  if (options.report_resources) arguments.push_back("--ptxas-options=-v");
  const int result = compile_(handle, static_cast<int>(arguments.size()), arguments.data());

  const auto text = [&](auto size_of, auto get, const char* what) {
    size_t size = 0;
    check(size_of(handle, &size), what);
    std::string out(size, '\0');
    if (size > 0) check(get(handle, out.data()), what);
    return out;
  };
  Result out;
  out.log = text(log_size_, log_, "nvrtcGetProgramLog");
  if (!out.log.empty()) out.log.pop_back();  // the closing zero
  if (result != 0) {
    throw EngineError("INTERNAL", std::string(program.name) + " does not compile for " + kind +
                                      std::to_string(options.architecture) + " with NVRTC " + version_ +
                                      ": " + error_(result) + "\n" + out.log);
  }
  out.binary = options.machine_code ? text(cubin_size_, cubin_, "nvrtcGetCUBIN")
                                    : text(ptx_size_, ptx_, "nvrtcGetPTX");
  return out;
}

}  // namespace peft::cuda
