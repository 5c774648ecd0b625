/** What a rig needs of the machine, and where to get it. */
import { attempt } from "./namespace.ts";

/** Commands, and the Debian packages that bring them. */
const PACKAGES = {
  ip: "iproute2",
  sysctl: "procps",
  nft: "nftables",
  conntrack: "conntrack",
  dpipe: "vde2",
  wirefilter: "vde2",
  vde_plug: "vde2",
  openssl: "openssl",
  mount: "mount",
  prlimit: "util-linux",
} as const;

export type Needed = keyof typeof PACKAGES;

/** What namespaces and cables need. */
export const NEEDED_FOR_NAMESPACES: readonly Needed[] = ["ip", "sysctl"];

/** Why a rig that needs these commands cannot be built here, in one sentence, or undefined. */
export function obstacle(needed: readonly Needed[] = NEEDED_FOR_NAMESPACES): string | undefined {
  if (process.getuid?.() !== 0) return "needs root, to make network namespaces";
  const missing = needed.filter((command) => Bun.which(command) === null);
  if (missing.length > 0) {
    const packages = [...new Set(missing.map((command) => PACKAGES[command]))].join(" ");
    return `needs ${missing.join(" and ")} (Debian: apt-get install ${packages})`;
  }
  const probe = `pilot-rig-${process.pid}-probe`;
  const { success } = attempt(["ip", "netns", "add", probe]);
  attempt(["ip", "netns", "delete", probe]);
  return success
    ? undefined
    : "needs the right to make network namespaces (a container without CAP_SYS_ADMIN?)";
}
