/** TLS that is none, or that is left lying. */
import { connect } from "node:tls";
import type { Attack } from "../attack.ts";
import { type Behaviour, Crowd } from "../crowd.ts";

/** The first bytes of a TLS client, which it sends to a server that says nothing. */
async function clientHello(): Promise<Uint8Array> {
  const { promise, resolve } = Promise.withResolvers<Uint8Array>();
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (_, bytes) => resolve(new Uint8Array(bytes)) },
  });
  const client = connect({ host: "127.0.0.1", port: server.port });
  client.on("error", () => {}); // it is cut off in the middle
  try {
    return await promise;
  } finally {
    client.destroy();
    server.stop(true);
  }
}

const GARBAGE = crypto.getRandomValues(new Uint8Array(512));

const attack = (
  name: string,
  does: string,
  inSmoke: boolean,
  behaviour: () => Behaviour | Promise<Behaviour>,
): Attack => ({
  name,
  does,
  stage: "tls bridge",
  inSmoke,
  newcomer: "connects",
  start: async (scene) => new Crowd(scene.bridge, scene, await behaviour()),
});

export const BROKEN_TLS: readonly Attack[] = [
  attack("garbage for TLS", "sends what is no ClientHello", true, () => ({
    opened: (socket) => void socket.write(GARBAGE),
  })),
  attack(
    "a ClientHello and silence",
    "begins handshakes of TLS and says no more",
    false,
    async () => {
      const hello = await clientHello();
      return { opened: (socket) => void socket.write(hello) };
    },
  ),
  attack("TLS cut off", "ends handshakes of TLS when the server has answered", false, async () => {
    const hello = await clientHello();
    return {
      opened: (socket) => void socket.write(hello),
      heard: (socket) => void socket.terminate(),
    };
  }),
];
