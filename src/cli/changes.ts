/** `beacon disconnect`, `drain` and `upgrade`: changes, which need the admin token. */
import { type Api, UPGRADE_TIMEOUT_MS } from "./api.ts";
import { type Console, EXIT_OK } from "./console.ts";

type Answer = Readonly<Record<string, unknown>>;

/** @throws ApiError, as the others */
export async function disconnect(
  api: Api,
  id: number,
  asJson: boolean,
  out: Console,
): Promise<number> {
  const answer = (await api.post(`api/nodes/${id}/disconnect`)) as Answer;
  return tell(answer, asJson, out, () => `node ${id} is forgotten; it was ${answer["was"]}`);
}

export async function drain(api: Api, asJson: boolean, out: Console): Promise<number> {
  const answer = (await api.post("api/drain")) as Answer;
  // Older beacons send drainMs alone.
  const { drainMs, leftMs = drainMs, wasDraining } = answer;
  const end = leftMs === 0 ? "now" : `in ${Number(leftMs) / 1000} s`;
  return tell(answer, asJson, out, () =>
    wasDraining === true
      ? `the beacon was draining already, and exits ${end}`
      : `the beacon drains, and exits ${end}`,
  );
}

export async function upgrade(api: Api, asJson: boolean, out: Console): Promise<number> {
  const answer = (await api.post("api/upgrade", UPGRADE_TIMEOUT_MS)) as Answer;
  return tell(
    answer,
    asJson,
    out,
    () => `beacon ${answer["version"]} serves now, as process ${answer["pid"]}`,
  );
}

function tell(answer: Answer, asJson: boolean, out: Console, inWords: () => string): number {
  if (asJson) out.json(answer);
  else out.line(inWords());
  return EXIT_OK;
}
