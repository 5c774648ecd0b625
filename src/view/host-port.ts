/** An IP literal and a port as one text: "192.0.2.1:9001", "[2001:db8::1]:9001". */
export function hostPort({
  address,
  port,
}: {
  readonly address: string;
  readonly port: number;
}): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
