export const FLOOR: Record<string, string>;
export function symbolVersions(file: string): Record<string, string>;
export function newest(symbols: string): Record<string, string>;
export function aboveFloor(versions: Record<string, string>): string[];
