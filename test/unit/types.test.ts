import { expectTypeOf, it } from "vitest";
import {
  type BatchingOptions,
  Encoder,
  type EncodeTextsOptions,
  type ErrorCode,
  type LabelMetrics,
  type LoadOptions,
  PeftTrainError,
  type TrainEvent,
  type TrainOptions,
  type TrainResult,
  type TrainRun,
  train,
} from "../../lib/index.js";

// What a program may rely on, checked by the compiler in `npm run lint`; nothing here is called.

it("Encoder takes and gives what its documentation says", () => {
  expectTypeOf(Encoder.load).parameter(0).toEqualTypeOf<string>();
  expectTypeOf(Encoder.load).parameter(1).toEqualTypeOf<LoadOptions | undefined>();
  expectTypeOf(Encoder.load).returns.resolves.toEqualTypeOf<Encoder>();
  expectTypeOf<Encoder["encode"]>().returns.resolves.toEqualTypeOf<Float32Array[]>();
  expectTypeOf<Encoder["encode"]>().parameter(0).toEqualTypeOf<readonly string[]>();
  expectTypeOf<Encoder["similarity"]>().returns.resolves.toEqualTypeOf<Float32Array>();
  expectTypeOf<Encoder["dimension"]>().toEqualTypeOf<number>();
  expectTypeOf<Encoder["pending"]>().toEqualTypeOf<{ calls: number; texts: number }>();
  expectTypeOf<Encoder>().toExtend<AsyncDisposable>();
  expectTypeOf<EncodeTextsOptions["signal"]>().toEqualTypeOf<AbortSignal | undefined>();
  expectTypeOf<LoadOptions["batching"]>().toEqualTypeOf<BatchingOptions | undefined>();
  const encoder = {} as Encoder;
  const never = () => {
    // @ts-expect-error a lone string is no list of texts
    encoder.encode("a text");
    // @ts-expect-error no such option
    encoder.encode(["a text"], { normalise: true });
    // @ts-expect-error no such storage
    Encoder.load("model", { quantize: "nf5" });
    // @ts-expect-error made by load alone
    new Encoder();
    expectTypeOf(encoder.evaluate("pairs.csv")).resolves.toEqualTypeOf<LabelMetrics>();
  };
  expectTypeOf(never).toBeFunction();
});

it("train gives events to iterate over, and a result", () => {
  expectTypeOf(train).returns.toEqualTypeOf<TrainRun>();
  expectTypeOf(train).parameter(0).toExtend<TrainOptions>();
  expectTypeOf<TrainRun["result"]>().resolves.toEqualTypeOf<TrainResult>();
  expectTypeOf<TrainRun>().toExtend<AsyncIterable<TrainEvent> & AsyncDisposable>();
  // `event` tells the kinds apart.
  expectTypeOf<Extract<TrainEvent, { event: "log" }>["loss"]>().toEqualTypeOf<number>();
});

it("errors carry a code of the list", () => {
  expectTypeOf<PeftTrainError["code"]>().toEqualTypeOf<ErrorCode>();
  expectTypeOf<"BUSY">().toExtend<ErrorCode>();
  expectTypeOf<PeftTrainError["hint"]>().toEqualTypeOf<string | undefined>();
  expectTypeOf(new PeftTrainError("USAGE", "text")).toExtend<Error>();
});
