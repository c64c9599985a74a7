import { openAsBlob } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import { PeftTrainError } from "../../errors.js";
import type { HubAccess } from "../../hub/access.js";
import { uploadFiles, uploadingUser } from "../../hub/upload.js";
import type { TrainEvent, TrainResult } from "../events.js";
import type { ResolvedTrainOptions } from "../options/options.js";
import type { Plan } from "../preparation.js";
import { modelCard } from "./model-card.js";
import { ADAPTER_FILES } from "./output-content.js";

/** `--push_to_hub`: what is wrong with the token is found before training, the adapter is uploaded after it. */
export class HubPush {
  private constructor(
    private readonly repository: string,
    private readonly isPrivate: boolean,
    private readonly access: HubAccess,
  ) {}

  /** @throws HUB_ACCESS, DOWNLOAD_FAILED, USAGE */
  static async prepare(options: ResolvedTrainOptions, access: HubAccess): Promise<HubPush> {
    const user = await uploadingUser(access);
    const name = options.hubModelId ?? path.basename(path.resolve(options.outputDir));
    if (!/^[\w-][\w.-]*(\/[\w-][\w.-]*)?$/.test(name)) {
      throw new PeftTrainError("USAGE", `--output_dir=${options.outputDir} makes no name of a repository`, {
        hint: "Give --hub_model_id=owner/name.",
      });
    }
    const repository = name.includes("/") ? name : `${user}/${name}`;
    return new HubPush(repository, options.hubPrivateRepo, access);
  }

  /** Uploads the adapter of the output folder, with a model card and without checkpoints. */
  async upload(plan: Plan, result: TrainResult): Promise<TrainEvent> {
    const { repository, access } = this;
    const files = new Map([["README.md", new Blob([modelCard(repository, plan, result)])]]);
    for (const name of ADAPTER_FILES) {
      const file = path.join(result.outputDir, name);
      if (await stat(file).catch(() => undefined)) files.set(name, await openAsBlob(file));
    }
    try {
      const title = `Adapter of step ${result.savedStep}, by peft-train`;
      const uploaded = await uploadFiles({ repository, private: this.isPrivate, files, title }, access);
      return { event: "pushed", repository, ...uploaded };
    } catch (cause) {
      if (!(cause instanceof PeftTrainError)) throw cause;
      throw new PeftTrainError(
        cause.code,
        `the upload failed: ${cause.message}; the adapter is in ${result.outputDir}`,
        {
          hint: `Upload it by hand: npx -p @huggingface/hub hfjs upload ${repository} ${result.outputDir}`,
          cause,
        },
      );
    }
  }
}
