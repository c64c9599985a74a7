#undef _FORTIFY_SOURCE  // its longjmp refuses to leave a fiber's stack
#include "shim.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <random>

namespace shim {

Index thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t kStack = 64 << 10;
constexpr size_t kSharedBytes = 48 << 10;  // what a kernel may have without asking for more
constexpr size_t kFence = 64;
constexpr unsigned char kFenceByte = 0xa5;
constexpr int kNoLine = -1;

enum class State { kReady, kAtBarrier, kAtExchange, kDone };

struct Fiber {
  std::unique_ptr<char[]> stack;
  ucontext_t context;
  jmp_buf position;
  bool started = false;
  State state = State::kReady;
};

struct Warp {
  uint32_t slot[2][32];
  int generation = 0, arrived = 0, line = kNoLine;
};

struct SharedBlock {
  const void* site;
  size_t offset, bytes;
};

/// One block's run. Switches between fibers go by setjmp, which makes no system call as swapcontext does.
struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  int current = 0, alive = 0, at_barrier = 0, barrier_line = kNoLine;
  std::vector<SharedBlock> shared;
  size_t shared_used = 0;
  alignas(64) unsigned char memory[kSharedBytes + 16 * kFence];
  ucontext_t scheduler_context;
  jmp_buf scheduler;
  std::string fault;
  const Kernel* kernel = nullptr;
  const void* args = nullptr;
};

Block block;

[[noreturn]] void back_to_scheduler() { _longjmp(block.scheduler, 1); }

void yield(State state) {
  Fiber& fiber = block.fibers[block.current];
  fiber.state = state;
  if (_setjmp(fiber.position) == 0) back_to_scheduler();
}

[[noreturn]] void fail(const std::string& what) {
  block.fault = "thread " + std::to_string(block.current) + ": " + what;
  block.fibers[block.current].state = State::kDone;
  back_to_scheduler();
}

void fiber_main() {
  block.kernel->call(block.args);
  block.fibers[block.current].state = State::kDone;
  block.alive--;
  back_to_scheduler();
}

void resume(int number) {
  Fiber& fiber = block.fibers[number];
  block.current = number;
  thread_index = {static_cast<unsigned>(number), 0, 0};
  if (_setjmp(block.scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.position, 1);
  fiber.started = true;
  swapcontext(&block.scheduler_context, &fiber.context);  // never comes back this way
}

class Picker {
 public:
  Picker(Order order, int threads, unsigned seed) : order_(order), random_(seed), sequence_(threads) {
    for (int i = 0; i < threads; i++) sequence_[i] = i;
    if (order == Order::kReverse || order == Order::kWarpGreedyReverse) {
      std::reverse(sequence_.begin(), sequence_.end());
    }
  }

  /// The next ready fiber, or -1.
  int next() {
    if (order_ == Order::kWarpGreedy || order_ == Order::kWarpGreedyReverse) {
      for (const int i : sequence_) {
        if (i / 32 == warp_ && ready(i)) return i;
      }
      for (const int i : sequence_) {
        if (ready(i)) return warp_ = i / 32, i;
      }
      return -1;
    }
    for (size_t tried = 0; tried <= sequence_.size(); tried++) {
      if (at_ == sequence_.size()) {
        at_ = 0;
        if (order_ == Order::kShuffled) std::shuffle(sequence_.begin(), sequence_.end(), random_);
      }
      const int i = sequence_[at_++];
      if (ready(i)) return i;
    }
    return std::find_if(sequence_.begin(), sequence_.end(), ready) == sequence_.end()
               ? -1
               : *std::find_if(sequence_.begin(), sequence_.end(), ready);
  }

 private:
  static bool ready(int i) { return block.fibers[i].state == State::kReady; }

  Order order_;
  std::mt19937 random_;
  std::vector<int> sequence_;
  size_t at_ = 0;
  int warp_ = -1;
};

void start_block(unsigned threads) {
  if (block.fibers.size() < threads) block.fibers.resize(threads);
  block.warps.assign((threads + 31) / 32, Warp());
  for (unsigned i = 0; i < threads; i++) {
    Fiber& fiber = block.fibers[i];
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(kStack);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    fiber.started = false;
    fiber.state = State::kReady;
  }
  block.alive = static_cast<int>(threads);
  block.at_barrier = 0;
  block.barrier_line = kNoLine;
  block.shared.clear();
  block.shared_used = 0;
  block.fault.clear();
  std::memset(block.memory, 0xff, sizeof(block.memory));
}

void run_block(Order order, unsigned threads, unsigned seed) {
  start_block(threads);
  Picker picker(order, static_cast<int>(threads), seed);
  while (block.alive > 0) {
    const int next = picker.next();
    if (next < 0) throw Fault("deadlock: " + std::to_string(block.alive) + " threads wait for others");
    resume(next);
    if (!block.fault.empty()) throw Fault(block.fault);
  }
  for (const SharedBlock& each : block.shared) {
    const unsigned char* fence = block.memory + each.offset + each.bytes;
    if (std::any_of(fence, fence + kFence, [](unsigned char b) { return b != kFenceByte; })) {
      throw Fault("a write beyond shared memory");
    }
  }
}

std::map<std::pair<int, std::string>, Kernel>& kernels() {
  static std::map<std::pair<int, std::string>, Kernel> all;
  return all;
}

}  // namespace

const char* order_name(Order order) {
  constexpr const char* kNames[] = {"forward", "reverse", "shuffled", "warp-greedy", "warp-greedy-reverse"};
  return kNames[static_cast<int>(order)];
}

Registration::Registration(int set, Kernel kernel) {
  const std::string name = kernel.name;
  kernels().emplace(std::make_pair(set, name), std::move(kernel));
}

const Kernel& find_kernel(int set, const std::string& name) {
  const auto found = kernels().find({set, name});
  if (found == kernels().end()) throw std::runtime_error("no kernel " + name);
  return found->second;
}

void launch(const Kernel& kernel, Index grid, unsigned threads, const void* args, Order order) {
  if (threads == 0 || threads % 32 != 0) throw Fault("a block has to be whole warps");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) throw Fault("an empty grid");
  if (grid.y > 65535 || grid.z > 65535) throw Fault("a grid too large in y or z");
  block.kernel = &kernel;
  block.args = args;
  block_size = {threads, 1, 1};
  grid_size = grid;
  const unsigned blocks = grid.x * grid.y * grid.z;
  const bool downwards = order == Order::kReverse || order == Order::kWarpGreedyReverse;
  for (unsigned i = 0; i < blocks; i++) {
    const unsigned at = downwards ? blocks - 1 - i : i;
    block_index = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
    run_block(order, threads, at);
  }
}

void sync_threads(int line) {
  const int all = static_cast<int>(block_size.x);
  if (block.alive != all) fail("a barrier after other threads have ended");
  if (block.at_barrier > 0 && block.barrier_line != line) fail("threads wait at different barriers");
  block.barrier_line = line;
  if (++block.at_barrier < all) return yield(State::kAtBarrier);
  block.at_barrier = 0;
  for (int i = 0; i < all; i++) block.fibers[i].state = State::kReady;
}

const uint32_t* exchange(unsigned mask, uint32_t word, int line) {
  if (mask != 0xffffffffu) fail("an exchange among part of a warp, which the shim does not know");
  const int first = block.current / 32 * 32;
  Warp& warp = block.warps[first / 32];
  if (warp.arrived > 0 && warp.line != line) fail("lanes of a warp wait at different exchanges");
  warp.line = line;
  uint32_t* const slot = warp.slot[warp.generation % 2];
  slot[block.current - first] = word;
  if (++warp.arrived < 32) {
    yield(State::kAtExchange);
    return slot;
  }
  warp.arrived = 0;
  warp.generation++;
  for (int i = first; i < first + 32; i++) block.fibers[i].state = State::kReady;
  return slot;
}

void* shared_memory(const void* site, size_t bytes) {
  for (const SharedBlock& each : block.shared) {
    if (each.site == site) return block.memory + each.offset;
  }
  const size_t offset = block.shared_used;
  const size_t end = (offset + bytes + kFence + 63) / 64 * 64;
  if (end > sizeof(block.memory)) fail("more shared memory than a block has");
  block.shared_used = end;
  std::memset(block.memory + offset + bytes, kFenceByte, kFence);
  block.shared.push_back({site, offset, bytes});
  return block.memory + offset;
}

}  // namespace shim
