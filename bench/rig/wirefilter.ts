/**
 * Link conditions by wirefilter(1) of VDE (Debian: vde2), where the kernel has no netem. Two TAP
 * devices are the ends of the cable; programs carry every frame from one to the other, through a
 * pipe, and wirefilter sits in the middle:
 *
 *   vde_plug tap://a  =  wirefilter -d 20 -l 5  =  ip netns exec B vde_plug tap://b
 *
 * A TAP device takes neither merged packets nor packets without their checksum (ethtool -k:
 * tx-udp-segmentation and tx-checksum-ip-generic are off), so the kernel cuts and sums up before
 * it: UDP_SEGMENT works over it, but saves less than over veth(4), which passes merged packets on
 * as they are.
 *
 * One fault to know: where bursts of fragmented packets cross in both directions, wirefilter of
 * vde2 2.3.2 loses frames, and damages some. Of 60 packets of 1,480 B, echoed as they came, 16 and
 * 40 came back; all 60 through vde_plug alone, over veth, and of packets that fit a frame
 * (2026-11-25). So no run sends packets over the MTU through it.
 */
import { until } from "../../test/e2e/support/wait.ts";
import type { Conditions } from "./link.ts";
import { attempt, type LinkEnd, type Namespace } from "./namespace.ts";
import { checkConditions } from "./netem.ts";

/** In words for the output. */
export const missingIn: readonly string[] = [
  "counts delays in whole milliseconds",
  "may copy a copy again",
  "lets single packets overtake others where the rate is limited",
  "loses frames where bursts of fragments cross",
  "takes processor time for every frame, which two programs and a pipe carry",
];

/**
 * Bytes that may wait where the rate is limited. Without a bound everything is only late; a real
 * queue is some 100 ms deep.
 */
const QUEUE_BYTES_MIN = 16 * 1024;
const QUEUE_S = 0.1;
const BITS_PER_KBIT = 1000;
const BITS_PER_BYTE = 8;

/** @throws RangeError for conditions that contradict each other */
export function wirefilterArguments(conditions: Conditions): string[] {
  const {
    delayMs = 0,
    jitterMs = 0,
    lossPercent,
    duplicatePercent,
    reorder,
    rateKbitPerS,
  } = conditions;
  checkConditions(conditions);
  const words: string[] = [];
  if (delayMs > 0) words.push("-d", jitterMs > 0 ? `${delayMs}+${jitterMs}U` : String(delayMs));
  if (lossPercent !== undefined) words.push("-l", String(lossPercent));
  if (duplicatePercent !== undefined) words.push("-D", String(duplicatePercent));
  if (reorder) words.push("-N");
  if (rateKbitPerS !== undefined) {
    const bytesPerS = Math.round((rateKbitPerS * BITS_PER_KBIT) / BITS_PER_BYTE);
    words.push(
      "-b",
      String(bytesPerS),
      "-c",
      String(Math.max(QUEUE_BYTES_MIN, Math.round(bytesPerS * QUEUE_S))),
    );
  }
  return words;
}

type End = LinkEnd & { readonly namespace: Namespace };

/**
 * Lays a cable, and leaves it switched off. All its programs live in the two namespaces, and end
 * with them.
 */
export async function layWirefilter(one: End, other: End, conditions: Conditions): Promise<void> {
  const pipeline = [
    ...["dpipe", "vde_plug", `tap://${one.link}`],
    ...["=", "wirefilter", ...wirefilterArguments(conditions), "="],
    ...other.namespace.exec("vde_plug", `tap://${other.link}`),
  ];
  const program = Bun.spawn(one.namespace.exec(...pipeline), {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  program.unref();
  try {
    await until(`a cable of wirefilter from ${one.namespace.name}`, () =>
      [one, other].every(exists),
    );
  } catch (error) {
    program.kill();
    throw new Error(`${error}: ${await new Response(program.stderr).text()}`);
  }
}

const exists = ({ namespace, link }: End): boolean =>
  attempt(["ip", "-n", namespace.name, "link", "show", link]).success;
