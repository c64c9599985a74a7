#include "fake_driver.h"

#include "cuda/shared_library.h"
#include "shim.h"

namespace peft::test {
namespace {

int launched = 0;
int (*depth)() = nullptr;
const char* (*module)() = nullptr;

void launch(const char* kernel, unsigned x, unsigned y, unsigned threads, const void* args) {
  launched++;
  shim::launch(shim::find_kernel(0, kernel), {x, y, 1}, threads, args, shim::Order::kForward);
}

}  // namespace

FakeDriver::FakeDriver() {
  // By its path, which the build gives; Driver then asks for the same SONAME and is given this one.
  const cuda::SharedLibrary library(PEFT_FAKE_LIBCUDA);
  if (!library.opened()) throw std::runtime_error(library.reason());
  void (*set_launch)(decltype(&launch)) = nullptr;
  library.find("fake_set_launch", set_launch);
  library.find("fake_depth", depth);
  library.find("fake_loaded", module);
  set_launch(launch);
}

bool FakeDriver::loaded() { return depth != nullptr; }
std::string FakeDriver::loaded_module() const { return module(); }
int FakeDriver::launches() const { return launched; }
int FakeDriver::contexts_pushed() const { return depth(); }

}  // namespace peft::test
