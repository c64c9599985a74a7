export function instructions(content: string): { keyword: string; text: string; line: number }[];
export function dockerfileFaults(file: string, context: string): string[];
export function copyParts(text: string): { from: string | undefined; sources: string[]; target: string };
export function contextNames(context: string): string[];
