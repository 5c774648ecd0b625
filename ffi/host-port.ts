/** Joins an IP literal and a port: "192.0.2.1:9001", "[2001:db8::1]:9001". */
export function hostPort(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
