/** `beacon probe`: resolves the name, tries its addresses, tells. */
import { lookup } from "node:dns/promises";
import { hostPort } from "../../../ffi/host-port.ts";
import { parseHostNamePort, shown, withReason } from "../../config/units.ts";
import { type Console, EXIT_UNREACHABLE } from "../console.ts";
import { type Probed, type ProbeOptions, probe, type SocketAddress } from "./probe.ts";
import { exitCodeOf, problemsOf, reportLines } from "./report.ts";

/** A name with more addresses is no beacon's, and each that does not answer takes its time. */
const ADDRESSES_MAX = 8;

/**
 * Tries the addresses of a name in the resolver's order, until one answers.
 * @param target "host:port"
 * @param family 0 for both
 * @throws ConfigError for a target that is none
 */
export async function probeCommand(
  target: string,
  family: 0 | 4 | 6,
  options: ProbeOptions,
  asJson: boolean,
  out: Console,
): Promise<number> {
  const { host, port } = withReason(
    () => parseHostNamePort(target),
    (reason) => `${shown(target)}: ${reason}`,
  );
  let addresses: readonly { address: string }[];
  try {
    addresses = await lookup(host, { all: true, family });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const problem = `${shown(host)}: no address of that name (${code ?? "unknown error"}): is it right, and does DNS answer?`;
    if (asJson) out.json({ ok: false, problems: [problem], beacon: null });
    else out.problem(problem);
    return EXIT_UNREACHABLE;
  }
  let probed: Probed | undefined;
  for (const { address } of addresses.slice(0, ADDRESSES_MAX)) {
    probed = await attempt({ address, port }, options);
    if (probed.seenAs !== null) break;
    if (!asJson && addresses.length > 1) out.problem(problemsOf(probed)[0]!);
  }
  if (probed === undefined) throw new Error("a resolver that finds a name and no address");
  const problems = problemsOf(probed);
  if (asJson) out.json({ ok: problems.length === 0, problems, ...probed });
  else if (probed.seenAs !== null) for (const line of reportLines(probed)) out.line(line);
  else if (addresses.length === 1) out.problem(problems[0]!);
  return exitCodeOf(probed);
}

async function attempt(target: SocketAddress, options: ProbeOptions): Promise<Probed> {
  try {
    return await probe(target, options);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    const nothing = { roundTrips: null, registered: null, punch: null, relay: null };
    return {
      beacon: hostPort(target.address, target.port),
      here: "",
      seenAs: null,
      error: code,
      ...nothing,
    };
  }
}
