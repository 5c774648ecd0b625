/**
 * A process that holds nodes, and does what its parent tells it over Bun's IPC. Started inside a
 * namespace by remote.ts.
 */
import { discoverNameless, Node } from "./node.ts";
import { type Command, obey } from "./remote.ts";

const nodes = new Map<number, Node>();

async function carryOut(command: Command): Promise<unknown> {
  switch (command.do) {
    case "open":
      nodes.set(command.options.id, await Node.open(command.options));
      return null;
    case "nameless":
      return discoverNameless(command.options);
    case "fetch":
      return (await fetch(command.url)).text();
    case "call": {
      const node = nodes.get(command.node);
      if (node === undefined) throw new Error(`no node ${command.node} here`);
      // The parent's types tie arguments to their method.
      const method = node[command.method] as (...args: readonly unknown[]) => unknown;
      return method.apply(node, command.args);
    }
  }
}

obey(carryOut);
