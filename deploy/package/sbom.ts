/** The bill of materials of a binary: CycloneDX 1.6, as JSON. */
import type { Target } from "../../build.ts";
import type { Component } from "./bundle.ts";
import { DESCRIPTION, LICENSE, NAME, VERSION } from "./release.ts";

/** An npm package's URL in the language of bills of materials; the "@" of a scope is escaped. */
const packageUrl = (name: string, version: string): string =>
  `pkg:npm/${name.replace(/^@/, "%40")}@${version}`;

/** CycloneDX's names of the hashes that package-lock.json has. */
const HASHES: Readonly<Record<string, string>> = {
  sha512: "SHA-512",
  sha256: "SHA-256",
  sha1: "SHA-1",
};

function hash(integrity: string): { alg: string; content: string } {
  const [name = "", base64 = ""] = integrity.split(/-(.*)/s);
  const alg = HASHES[name];
  if (alg === undefined)
    throw new Error(
      `${integrity}: a hash that package-lock.json did not have before; add it to sbom.ts`,
    );
  return { alg, content: Buffer.from(base64, "base64").toString("hex") };
}

/** One id, or an expression such as "(MIT OR Apache-2.0)". */
const licenses = (spdx: string) => [
  /[ (]/.test(spdx) ? { expression: spdx } : { license: { id: spdx } },
];

/** @param components the runtime first @param timeS of the release, in Unix seconds */
export function sbom(target: Target, components: readonly Component[], timeS: number): string {
  const self = packageUrl(NAME, VERSION);
  const references = components.map(({ name, version }) => packageUrl(name, version));
  const document = {
    $schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      timestamp: new Date(timeS * 1000).toISOString(),
      component: {
        type: "application",
        "bom-ref": self,
        name: NAME,
        version: VERSION,
        description: DESCRIPTION,
        licenses: licenses(LICENSE),
        purl: self,
        properties: [{ name: "target", value: `linux-${target}` }],
      },
    },
    components: components.map(({ name, version, license, integrity }, i) => ({
      type: i === 0 ? "platform" : "library",
      "bom-ref": references[i],
      name,
      version,
      licenses: licenses(license),
      hashes: [hash(integrity)],
      purl: references[i],
    })),
    dependencies: [{ ref: self, dependsOn: references }],
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}
