export const LARGEST_BYTES: number;
export function contentFaults(files: string[], manifest: object, platforms: string[]): string[];
export function compressedBytes(folder: string): number;
