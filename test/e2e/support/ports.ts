/** UDP ports of this host. */
import { expect } from "bun:test";

/** Binds a UDP port and lets it go again. @throws Error if it is taken */
export async function expectFree(port: number): Promise<void> {
  const socket = await Bun.udpSocket({ hostname: "127.0.0.1", port });
  expect(socket.port).toBe(port);
  socket.close();
}
