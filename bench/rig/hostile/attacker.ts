/** A hostile process in a namespace, driven from outside. */
import type { WireAddress } from "../../../test/e2e/support/wire.ts";
import type { Namespace } from "../namespace.ts";
import { RemoteProcess } from "../remote.ts";
import type { Effort, Received, Scene } from "./attack.ts";

export type AttackerCommand =
  | { readonly do: "attack"; readonly attack: string; readonly scene: Scene }
  | { readonly do: "stop" }
  | {
      readonly do: "sleep";
      readonly address: string;
      readonly beacon: WireAddress;
      readonly firstId: number;
      readonly count: number;
    }
  | { readonly do: "watch"; readonly address: string; readonly sockets: number }
  | { readonly do: "received" };

export class Attacker extends RemoteProcess<AttackerCommand> {
  constructor(namespace: Namespace) {
    super(namespace, "hostile/attacker-process.ts");
  }

  async attack(attack: string, scene: Scene): Promise<void> {
    await this.tell({ do: "attack", attack, scene });
  }

  async stop(): Promise<Effort> {
    return (await this.tell({ do: "stop" })) as Effort;
  }

  /** Registers nodes that read nothing, in place of those before. */
  async sleep(address: string, beacon: WireAddress, firstId: number, count: number): Promise<void> {
    await this.tell({ do: "sleep", address, beacon, firstId, count });
  }

  /** Counts from now on what comes to some new sockets. @returns their ports */
  async watch(address: string, sockets: number): Promise<number[]> {
    return (await this.tell({ do: "watch", address, sockets })) as number[];
  }

  /** All that came to these sockets so far. */
  async received(): Promise<Received> {
    return (await this.tell({ do: "received" })) as Received;
  }
}
