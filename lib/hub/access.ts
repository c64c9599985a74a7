import { type HubSettings, hubSettings } from "./settings.js";

/** How whoever needs a file of the Hub gets at it, and hears of it. */
export interface HubAccess {
  /** Default: from the environment. */
  settings?: HubSettings | undefined;
  /** Bytes of `file` that are here, and in all. May throw, which ends the download. */
  onProgress?: ((file: string, done: number, total: number) => void) | undefined;
  /** A word to the user, such as how long the server asks to wait. */
  onNote?: ((message: string) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export function settingsOf(access: HubAccess): HubSettings {
  return access.settings ?? hubSettings();
}
