import { ERROR_CODES, type ErrorCode, PeftTrainError } from "../errors.js";

interface NativeError extends Error {
  code?: string;
  hint?: string;
}

/** The engine throws plain errors with `code` and `hint`; this gives them their class. Others pass unchanged. */
export function toPeftTrainError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof PeftTrainError) return error;
  const { code, hint } = error as NativeError;
  if (code === undefined || !(ERROR_CODES as readonly string[]).includes(code)) return error;
  return new PeftTrainError(code as ErrorCode, error.message, {
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}

/** The same object with every throw and rejection of its methods turned into PeftTrainError. */
export function withTypedErrors<T extends object>(target: T): T {
  return new Proxy(target, {
    get(object, property) {
      const value: unknown = Reflect.get(object, property, object);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        try {
          const result: unknown = value.apply(object, args);
          return result instanceof Promise
            ? result.catch((error: unknown) => Promise.reject(toPeftTrainError(error)))
            : result;
        } catch (error) {
          throw toPeftTrainError(error);
        }
      };
    },
  });
}
