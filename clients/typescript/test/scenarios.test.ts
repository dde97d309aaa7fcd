// The client against clients/scenarios.json, which every client's tests run. clients/README.md
// says what the steps mean.

import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Stage, type Step } from "./stage.js";

interface Table {
  scenarios: { name: string; server?: string[]; steps: Step[] }[];
}

const path = new URL("../../../scenarios.json", import.meta.url);
const { scenarios } = JSON.parse(readFileSync(path, "utf8")) as Table;

for (const { name, server = [], steps } of scenarios) {
  test(`scenario: ${name}`, { timeout: 60_000 }, async () => {
    const directory = mkdtempSync(join(tmpdir(), "taskyard-"));
    const stage = await Stage.open(join(directory, "data"), server);
    let how = "failed";
    try {
      for (const step of steps) await stage.play(step);
      how = "ok";
    } finally {
      await stage.close();
      rmSync(directory, { recursive: true });
      const report = process.env.SCENARIO_REPORT;
      if (report) appendFileSync(report, `typescript\t${name}\t${how}\n`);
    }
  });
}
