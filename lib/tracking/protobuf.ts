// Fields of protocol buffers, as far as event files, W&B runs and ONNX models need them. Whole numbers are not negative.

/** Number of a field and the wire type of what follows: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes. */
function key(field: number, wireType: number): Buffer {
  return varint(field * 8 + wireType);
}

function varint(value: number): Buffer {
  const out: number[] = [];
  let left = value;
  for (; left >= 128; left = Math.floor(left / 128)) out.push((left % 128) + 128);
  return Buffer.from([...out, left]);
}

/** Nothing for a zero, as protocol buffers have it. */
export function int(field: number, value: number): Buffer {
  return value === 0 ? Buffer.alloc(0) : Buffer.concat([key(field, 0), varint(value)]);
}

/** Every value of a repeated field, zeros too. */
export function ints(field: number, values: readonly number[]): Buffer {
  return Buffer.concat(values.flatMap((value) => [key(field, 0), varint(value)]));
}

/** What stands before `length` bytes of content that follow by themselves. */
export function head(field: number, length: number): Buffer {
  return Buffer.concat([key(field, 2), varint(length)]);
}

export function text(field: number, value: string): Buffer {
  return bytes(field, Buffer.from(value));
}

export function bytes(field: number, content: Uint8Array): Buffer {
  return Buffer.concat([head(field, content.length), content]);
}

export function double(field: number, value: number): Buffer {
  const content = Buffer.alloc(8);
  content.writeDoubleLE(value);
  return Buffer.concat([key(field, 1), content]);
}

export function float(field: number, value: number): Buffer {
  const content = Buffer.alloc(4);
  content.writeFloatLE(value);
  return Buffer.concat([key(field, 5), content]);
}
