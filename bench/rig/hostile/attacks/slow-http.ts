/** HTTP that takes its time: at the operator's port, and at the bridge's. */
import type { WireAddress } from "../../../../test/e2e/support/wire.ts";
import type { Attack, Scene } from "../attack.ts";
import { type Behaviour, Crowd } from "../crowd.ts";

/** A request whose head never ends, a byte at a time. */
const slowly = (path: string): Behaviour => ({
  opened: (socket) => void socket.write(`GET ${path} HTTP/1.1\r\nHost: beacon\r\nX-Slow: `),
  turn: (socket) => void socket.write("s"),
});
const SILENT: Behaviour = {};

interface Door {
  readonly at: string;
  readonly path: string;
  readonly address: (scene: Scene) => WireAddress;
  readonly inSmoke: boolean;
}

const DOORS: readonly Door[] = [
  { at: "the operator's HTTP", path: "/metrics", address: ({ http }) => http, inSmoke: false },
  { at: "the bridge", path: "/v1/compat", address: ({ bridge }) => bridge, inSmoke: true },
];

export const SLOW_HTTP: readonly Attack[] = DOORS.flatMap(
  ({ at, path, address, inSmoke }): Attack[] => [
    {
      name: `slow requests at ${at}`,
      does: "sends heads byte by byte, on many connections of one address",
      stage: "bridge",
      inSmoke,
      newcomer: "connects",
      start: (scene) => new Crowd(address(scene), scene, slowly(path)),
    },
    {
      name: `silence at ${at}`,
      does: "opens many connections from one address and says nothing",
      stage: "bridge",
      inSmoke: false,
      newcomer: "connects",
      start: (scene) => new Crowd(address(scene), scene, SILENT),
    },
  ],
);
