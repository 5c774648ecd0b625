/** Words that may stand behind `beacon` in place of flags; apart, as the server needs no more. */

export const commands = {
  status: "How a beacon does: health, rates, drops, peers, workers",
  top: "The same live, in a terminal or as lines",
  nodes: "The nodes that a beacon knows",
  explain: "All about one node, and what the next relay to it would come to",
  disconnect: "Forget a node and close its WebSocket (needs the admin token)",
  drain: "Have a beacon relay on for --drain and then end (needs the admin token)",
  upgrade: "Have a beacon start anew and hand over (needs the admin token)",
  supervise: "Serve behind a process that stays across upgrades and crashes",
  "check-config": "Check flags, environment and files as the server would, without serving",
  probe: "Try a beacon from here, by UDP alone: address, round trips, punch, relay",
  completion: "Print what a shell needs to complete all of this",
  help: "Print the commands, or one command's options",
} as const;

/** The command that the entry runs by itself, and not src/cli. */
export const SUPERVISE = "supervise";

export type CommandName = keyof typeof commands;

export function isCommand(word: string | undefined): word is CommandName {
  return word !== undefined && Object.hasOwn(commands, word);
}
