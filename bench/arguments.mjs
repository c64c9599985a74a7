import { accessSync, constants, existsSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";

// The command line of a benchmark: everything that can be wrong with it is found before anything is measured.

/** A mistake on the command line, told in one line. */
export class UsageError extends Error {}

/** @param {string[]} argv @param options As node:util's parseArgs takes them. @throws UsageError */
export function readArguments(argv, options) {
  try {
    return parseArgs({ args: argv, options }).values;
  } catch (error) {
    throw new UsageError(error.message);
  }
}

/** @param {string} value @returns {number} */
export function wholeNumber(name, value, least) {
  const number = Number(value);
  if (value.trim() === "" || !Number.isSafeInteger(number) || number < least)
    throw new UsageError(`--${name}: expected a whole number of at least ${least}, found "${value}"`);
  return number;
}

/** @param {string} value with commas between @returns {number[]} */
export function wholeNumbers(name, value, least) {
  return value.split(",").map((item) => wholeNumber(name, item, least));
}

/** @param {string} value with commas between @returns {string[]} each of them once */
export function someOf(name, value, known) {
  const items = [...new Set(value.split(","))];
  for (const item of items)
    if (!known.includes(item))
      throw new UsageError(`--${name}: expected some of ${known.join(",")}, found "${item}"`);
  return items;
}

export function oneOf(name, value, known) {
  if (known.includes(value)) return value;
  throw new UsageError(`--${name}: expected one of ${known.join(", ")}, found "${value}"`);
}

export function existingFile(name, path) {
  if (!isFile(path)) throw new UsageError(`--${name}: no file ${path}`);
  return path;
}

export function modelFolder(name, path) {
  if (!isFile(join(path, "config.json"))) throw new UsageError(`--${name}: no config.json in ${path}`);
  return path;
}

/** A file that figures can be written to in the end. */
export function writableFile(name, path) {
  const folder = dirname(resolve(path));
  const place = existsSync(path) ? path : folder;
  const refused = (why) => new UsageError(`--${name}: cannot write ${path}: ${why}`);
  if (!existsSync(folder)) throw refused(`there is no folder ${folder}`);
  if (!statSync(folder).isDirectory()) throw refused(`${folder} is no folder`);
  if (place === path && statSync(path).isDirectory()) throw refused("it is a folder");
  try {
    accessSync(place, constants.W_OK);
  } catch ({ code }) {
    throw refused(code);
  }
  return path;
}

function isFile(path) {
  return existsSync(path) && statSync(path).isFile();
}
