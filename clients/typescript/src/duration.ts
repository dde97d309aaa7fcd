// Durations, between JavaScript's milliseconds and the wire.

import type { Duration } from "./gen/google/protobuf/duration.js";

/** A duration of the API: of milliseconds, or of a text as protobuf's JSON has it ("1.5s"). */
export function duration(value: number | string): Duration {
  if (typeof value === "string") {
    const parts = /^(-?)(\d{1,12})(?:\.(\d{1,9}))?s$/.exec(value);
    if (parts === null)
      throw new TypeError(`${JSON.stringify(value)} is no duration, such as "1.5s"`);
    const [, sign, seconds = "", fraction = ""] = parts;
    const nanos = Number(fraction.padEnd(9, "0"));
    return sign
      ? { seconds: -BigInt(seconds), nanos: -nanos }
      : { seconds: BigInt(seconds), nanos };
  }
  if (typeof value !== "number" || Number.isNaN(value)) {
    throw new TypeError(`a duration is a number of milliseconds, not ${String(value)}`);
  }
  // The longest that the wire has; the server refuses what is too long.
  const bounded = Math.min(Math.max(value, -3e14), 3e14);
  const seconds = Math.trunc(bounded / 1000);
  const nanos = Math.round((bounded - seconds * 1000) * 1e6);
  // Rounding may have made a whole second.
  const carry = Math.trunc(nanos / 1e9);
  return { seconds: BigInt(seconds + carry), nanos: nanos - carry * 1e9 };
}

/** How many milliseconds a duration of the API has. */
export function milliseconds(value: Duration): number {
  return Number(value.seconds) * 1000 + value.nanos / 1e6;
}
