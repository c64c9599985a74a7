// npm run test:gpu: for a machine with an NVIDIA GPU. Checks every CUDA kernel on it against plain calls on the CPU, and
// the whole engine: vectors, gradients and a few steps of training. It needs the driver, CMake and a C++20 compiler, and does the
// rest itself:
//
//   1. makes sure that there is a GPU;
//   2. finds a libtorch for CUDA (PEFT_TRAIN_LIBTORCH, else the cache folder), or fetches it by pip (2.5 GB);
//   3. compiles the engine and the test program against it into build/gpu;
//   4. runs the program: the kernels are compiled for the GPU by libtorch's own NVRTC.
//
// It ends with 0 where all agree, 1 where something does not or went wrong, and 2 where there is no GPU.
import { buildGpuProgram, cudaLibtorch, requireGpu, requireNoArguments, run } from "./gpu.mjs";

const SCRIPT = "test:gpu";
requireNoArguments(SCRIPT);
console.log(requireGpu(SCRIPT));
run(SCRIPT, "npm", ["run", "--silent", "build:ts"]);
const libtorch = await cudaLibtorch();
console.log(`libtorch for CUDA: ${libtorch}`);
run(SCRIPT, buildGpuProgram(SCRIPT, libtorch), [libtorch]);
