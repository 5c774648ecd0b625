/** The least that a WebSocket server on Bun can do: sends every frame back. Prints its URL. */
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: (request, self) =>
    self.upgrade(request) ? undefined : new Response("no", { status: 426 }),
  websocket: {
    maxPayloadLength: 65_536,
    perMessageDeflate: false,
    idleTimeout: 0,
    sendPings: false,
    message(socket, frame) {
      socket.sendBinary(frame as Buffer);
    },
  },
});
console.log(`ws://127.0.0.1:${server.port}/`);
