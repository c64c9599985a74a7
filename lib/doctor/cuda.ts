import { cudaVersion, type Gpu } from "../setup/gpu.js";
import { CUDA_WHEELS, cudaWheelFor, leastWheelFor } from "../setup/pin.js";
import type { Located } from "./engine.js";
import { type Finding, problem } from "./finding.js";

/** The GPU, its driver, and whether this libtorch can use them. */
export function gpuFinding(gpu: Gpu, located: Located | undefined): Finding {
  const details = { ...gpu };
  if (!gpu.present) return { check: "gpu", status: "ok", found: "none; training runs on the CPU", details };
  const finding = driverFinding(gpu, located);
  return { ...finding, details };
}

function driverFinding(gpu: Gpu, located: Located | undefined): Finding {
  const driver = `driver ${gpu.driver ?? "of an unknown version"}${gpu.cuda === undefined ? "" : ` with CUDA ${cudaVersion(gpu.cuda)}`}`;
  if (gpu.failure !== undefined || gpu.cuda === undefined || gpu.devices.length === 0) {
    const reason = gpu.failure ?? "it shows no device";
    const next =
      gpu.driver === undefined
        ? "Install NVIDIA's driver (Debian, Ubuntu: sudo apt-get install nvidia-driver; in a container: docker run --gpus all), then: nvidia-smi"
        : "nvidia-smi   # says what is wrong with the driver; after an update, restart the machine";
    const what = gpu.driver === undefined ? "an NVIDIA GPU without a working driver" : driver;
    return problem("gpu", `${what}: ${reason}`, next);
  }
  const names = gpu.devices.map(
    ({ name, memory, capability }) =>
      `${name} (${(memory / 2 ** 30).toFixed(0)} GiB, sm_${capability.replace(".", "")})`,
  );
  const found = `${names.join(", ")}; ${driver}`;
  const capability = Number(gpu.devices[0]?.capability);
  if (cudaWheelFor(gpu.cuda, capability) === undefined) {
    const least = leastWheelFor(capability);
    if (least === undefined) {
      const next = "npx peft-train setup --device cpu";
      return { check: "gpu", status: "note", found: `${found}: too old a GPU for libtorch`, next };
    }
    const next = `Update the driver to ${least.driver} or newer, then: npx peft-train setup --device cuda`;
    return problem("gpu", `${found}: too old for libtorch, which needs CUDA ${least.cuda}`, next);
  }
  if (located === undefined) return { check: "gpu", status: "ok", found };
  if (located.cuda === undefined) {
    const next = "npx peft-train setup --device cuda";
    return { check: "gpu", status: "note", found: `${found}; libtorch serves the CPU alone`, next };
  }
  if (Number.parseInt(located.cuda, 10) * 1000 > gpu.cuda) {
    const newest = CUDA_WHEELS.find(({ cuda }) => cuda === located.cuda)?.driver ?? "a newer one";
    const next = `Update the driver to ${newest}, or: npx peft-train setup --device cuda --force`;
    return problem("gpu", `${found}; libtorch is for CUDA ${located.cuda}`, next);
  }
  return { check: "gpu", status: "ok", found };
}
