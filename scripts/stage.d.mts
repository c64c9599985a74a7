export function stage(root: string, target: string, prebuilds: string | undefined): void;
