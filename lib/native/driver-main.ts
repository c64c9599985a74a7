// A process of its own for the CUDA driver, which may crash or hang.
import { cudaDriver } from "./load.js";
import { answerProbe } from "./probe.js";

await answerProbe(cudaDriver);
