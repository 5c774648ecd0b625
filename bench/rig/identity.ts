/**
 * The keys of nodes that come to the bridge, honest or not: one secret for all, so that whoever
 * runs here can be any of them.
 */
import { base64, NodeIdentity } from "../../test/support/pilot-node.ts";

const SECRET_BYTES = 32;
const EVERYBODY = NodeIdentity.create(0, new Uint8Array(SECRET_BYTES).fill(7));

export const identityOf = (nodeId: number): NodeIdentity => EVERYBODY.as(nodeId);

/** The file that --wss-keys names. */
export function keysFile(nodeIds: readonly number[]): string {
  return JSON.stringify(Object.fromEntries(nodeIds.map((id) => [id, base64(EVERYBODY.publicKey)])));
}
